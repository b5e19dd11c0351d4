/** The backend of `python verify.py serve`: JSON over HTTP, recordings as base64. See backend.js for the types. */

import { BackendError } from "./backend.js";

const TIMEOUT_MS = 60_000; // the server answers within 50 s, if only that it is busy
const MAX_BYTES = 11 * 2 ** 20; // of all recordings of a request; the server reads 16 MiB of base64

export class HttpBackend {
  info() {
    return call("GET", "info");
  }

  async list() {
    return (await call("GET", "voices")).voices;
  }

  async enrol(name, recordings, keepAll = false) {
    return call("POST", "enrol", { name, recordings: await Promise.all(recordings.map(base64)), keep_all: keepAll });
  }

  async verify(name, recording) {
    return call("POST", "verify", { name, recording: await base64(recording) });
  }

  async identify(recording) {
    return call("POST", "identify", { recording: await base64(recording) });
  }

  async compare(a, b) {
    if (a.size + b.size > MAX_BYTES) {
      const message = `The two files are ${Math.ceil((a.size + b.size) / 2 ** 20)} MiB together; the limit is 11 MiB.`;
      throw new BackendError("input", message);
    }
    return call("POST", "compare", { a: await fileOf(a), b: await fileOf(b) });
  }

  async forget(name) {
    await call("POST", "forget", { name });
  }
}

async function call(method, path, content) {
  const headers = { "X-Voice-Biometrics": "1" };
  if (content) headers["Content-Type"] = "application/json";
  let response, answer;
  try {
    response = await fetch(`api/${path}`, { method, headers, body: content && JSON.stringify(content), signal: AbortSignal.timeout(TIMEOUT_MS) });
    answer = response.status === 503 ? {} : await response.json();
  } catch {
    throw new BackendError("unreachable", "The server does not answer. Is “python verify.py serve” still running?");
  }
  if (response.ok) return answer;
  if (response.status === 503) throw new BackendError("busy", "The server is busy. Try again in a moment.");
  throw new BackendError(answer.kind, answer.error, answer.recordings);
}

async function fileOf(file) {
  return { name: (file.name ?? "recording").slice(-200), content: await base64(file) };
}

/** Return the bytes of a Blob in base64. */
async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) {
    text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  }
  return btoa(text);
}
