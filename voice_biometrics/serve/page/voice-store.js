/**
 * Enrolled voices in the browser: IndexedDB, which keeps them when the page is closed, or memory where there is none.
 *
 * A voice is `{name, fingerprint, num_recordings, speech_s, embedding, marks}`. Both stores have the same methods, which
 * reject with a BackendError: `all()`, `get(name)`, `add(voice)` and `remove(name)`.
 */

import { BackendError } from "./backend.js";

const DATABASE = "voice-biometrics";
const VOICES = "voices";

/**
 * Return the store of this browser; `factory` returns its `indexedDB`, or throws. A private window may refuse to store anything, and a
 * browser may take `indexedDB` away from pages without a secure context.
 */
export async function openStore(factory) {
  try {
    const request = factory().open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(VOICES, { keyPath: "name" });
    return new VoiceStore(await done(request));
  } catch {
    return new MemoryStore();
  }
}

export class VoiceStore {
  place = "in this browser, on this device";

  constructor(database) {
    this.database = database;
    database.onversionchange = () => database.close(); // the user deletes the data of this page
  }

  all() {
    return this.#run("readonly", (voices) => voices.getAll());
  }

  async get(name) {
    return enrolled(await this.#run("readonly", (voices) => voices.get(name)), name);
  }

  async add(voice) {
    navigator.storage?.persist().catch(() => {}); // or the browser may delete it when the disk is full; some ask the user
    await this.#run("readwrite", (voices) => voices.add(voice), alreadyEnrolled(voice.name));
  }

  async remove(name) {
    await this.get(name);
    await this.#run("readwrite", (voices) => voices.delete(name));
  }

  /** Make a request in a transaction and return its result once it is on the disk. */
  async #run(mode, ask, duplicate) {
    try {
      const transaction = this.database.transaction(VOICES, mode, { durability: "strict" });
      const request = ask(transaction.objectStore(VOICES));
      await new Promise((resolve, reject) => {
        transaction.oncomplete = resolve;
        transaction.onabort = () => reject(transaction.error ?? request.error);
      });
      return request.result;
    } catch (error) {
      if (error?.name === "ConstraintError") throw duplicate;
      const reason = error?.name === "QuotaExceededError" ? "the disk is full; free some space" : `${error?.message}; reload the page`;
      throw new BackendError("input", `the voices in this browser cannot be used: ${reason}`);
    }
  }
}

export class MemoryStore {
  place = "in this tab only, until it is closed: this browser stores nothing, as in a private window";
  #voices = new Map();

  async all() {
    return [...this.#voices.values()];
  }

  async get(name) {
    return enrolled(this.#voices.get(name), name);
  }

  async add(voice) {
    if (this.#voices.has(voice.name)) throw alreadyEnrolled(voice.name);
    this.#voices.set(voice.name, voice);
  }

  async remove(name) {
    await this.get(name);
    this.#voices.delete(name);
  }
}

function enrolled(voice, name) {
  if (!voice) throw new BackendError("input", `${name} is not enrolled`);
  return voice;
}

function alreadyEnrolled(name) {
  return new BackendError("input", `${name} is already enrolled; forget the voice first`);
}

function done(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = request.onblocked = () => reject(request.error);
  });
}
