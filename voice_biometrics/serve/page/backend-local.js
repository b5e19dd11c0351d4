/**
 * The backend of the page without a server: model, decisions and store are in the browser. See backend.js for the types.
 *
 * `browser.js` loads what only a browser has; Node's tests give replacements:
 *
 * - `model`: the content of `model/model.json`.
 * - `embed`: samples at the model's rate to a promise of the embedding.
 * - `detect`: frames of `speechFrames` to a promise of their probabilities of speech.
 * - `decode`: a File to a promise of `{channels, rate}`.
 * - `store`: voices by name, with the methods of `VoiceStore` in voice-store.js.
 */

import { BackendError } from "./backend.js";
import { checkedName, disagreeing, holds, llrOf, markOf, mean, pointsFor, scoreOf, unit } from "./decisions.js";
import { recordingOf, repeatTo } from "./recording.js";
import { decodeWav } from "./voice.js";

const NUM_CANDIDATES = 3;

export class LocalBackend {
  /** @param {() => Promise<Object>} load  Returns the five; called when they are first needed, again if it failed. */
  constructor(load) {
    this.load = load;
  }

  async info() {
    await this.#loaded();
    return { ...this.model.info, storage: this.store.place };
  }

  async list() {
    await this.#loaded();
    const voices = await this.store.all();
    return voices.map(({ name, num_recordings, speech_s }) => ({ name, num_recordings, speech_s })).sort(byName);
  }

  async enrol(wanted, recordings, keepAll = false) {
    const name = checkedName(wanted);
    const read = await this.#readAll(recordings.map((recording, place) => [recording, `recording ${place + 1}`]));
    const isCopy = read.map((one, place) => read.slice(0, place).some((earlier) => holds(earlier, one.embedding)));
    const kept = [...read.keys()].filter((place) => !isCopy[place]);
    const embeddings = kept.map((place) => read[place].embedding);
    const odd = disagreeing(this.model, embeddings).map((place) => kept[place]);
    if (odd.length && !keepAll) {
      const names = odd.map((place) => read[place].name).join(", ");
      throw new BackendError("another_speaker", `${names}: sounds like another speaker; nothing was enrolled, record it again`, odd);
    }
    const voice = {
      name,
      fingerprint: this.model.info.model.fingerprint,
      num_recordings: kept.length,
      speech_s: kept.reduce((total, place) => total + read[place].speechS, 0),
      embedding: mean(embeddings),
      marks: embeddings.map(markOf),
    };
    await this.store.add(voice);
    const warnings = [
      ...odd.map((place) => `${read[place].name}: sounds like another speaker`),
      ...read.filter((_, place) => isCopy[place]).map((one) => `${one.name}: the same recording again; counted once`),
      ...warningsOf(read),
    ];
    return { name, num_recordings: voice.num_recordings, speech_s: voice.speech_s, warnings };
  }

  async verify(wanted, recording) {
    const name = checkedName(wanted);
    const voice = this.#ofThisModel(await this.store.get(name));
    const read = await this.#readAll([[recording, "the recording"]]);
    return this.#verdict(name, voice, read);
  }

  async identify(recording) {
    const voices = (await this.store.all()).map((voice) => this.#ofThisModel(voice));
    if (!voices.length) throw new BackendError("input", "no voice is enrolled; enrol one first");
    const read = await this.#readAll([[recording, "the recording"]]);
    const llrs = new Map(voices.map((voice) => [voice, this.#llr(voice, read[0])]));
    const best = voices.sort((a, b) => llrs.get(b) - llrs.get(a)).slice(0, NUM_CANDIDATES);
    const verdict = this.#verdict(best[0].name, best[0], read, voices.length);
    const candidates = best.map((voice) => ({ name: voice.name, llr: llrs.get(voice) }));
    return { ...verdict, name: verdict.decision === "accepted" ? verdict.name : null, candidates };
  }

  async compare(a, b) {
    const read = await this.#readAll([a, b].map((recording) => [recording, recording.name ?? "the recording"]));
    return this.#verdict(null, read[0], read);
  }

  async forget(name) {
    await this.store.remove(checkedName(name));
  }

  /** The page asks for `info` and `list` first, at once. */
  async #loaded() {
    this.loading ??= this.load();
    try {
      Object.assign(this, await this.loading);
    } catch (error) {
      this.loading = null;
      throw error;
    }
  }

  /** Return recordings with their embeddings of length 1; a Blob that is no File was made by voice.js. */
  async #readAll(sources) {
    const read = [];
    for (const [blob, name] of sources) {
      const audio = blob instanceof File ? await this.decode(blob) : mono(decodeWav(await blob.arrayBuffer()));
      const recording = await recordingOf(audio, name, { ...this.model.info, ...this.model.limits }, this.detect);
      const samples = repeatTo(recording.samples, Math.round(this.model.limits.min_duration_s * this.model.info.sample_rate));
      const embedding = unit(await this.embed(samples));
      read.push({ ...recording, num_recordings: 1, embedding, marks: [markOf(embedding)] });
    }
    return read;
  }

  /** Decide if a voice, enrolled or of one recording, is that of the last recording that was read. */
  #verdict(name, voice, read, numVoices = 1) {
    const { use } = this.model.info;
    const [points, llr, test] = [pointsFor(this.model, numVoices), this.#llr(voice, read.at(-1)), read.at(-1)];
    const decision = llr >= points.find((point) => point.use === use).threshold ? "accepted" : "rejected";
    const warnings = warningsOf(read);
    if (holds(voice, test.embedding)) warnings.push(`${test.name}: identical to the recording that it is compared with, as in a replay`);
    return { decision, name, llr, use, points, candidates: [], warnings };
  }

  #llr(voice, recording) {
    return llrOf(this.model, scoreOf(voice.embedding, recording.embedding));
  }

  #ofThisModel(voice) {
    const { fingerprint } = this.model.info.model;
    if (voice.fingerprint === fingerprint) return voice;
    const models = `enrolled with model ${voice.fingerprint.slice(0, 12)}, but this is model ${fingerprint.slice(0, 12)}`;
    const advice = "their scores are not comparable: forget the voice and enrol it again";
    throw new BackendError("input", `${voice.name} was ${models}, and ${advice}`);
  }
}

function mono({ samples, rate }) {
  return { channels: [samples], rate };
}

function warningsOf(read) {
  return read.flatMap(({ warnings }) => warnings);
}

function byName(a, b) {
  return a.name < b.name ? -1 : 1;
}
