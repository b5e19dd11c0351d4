/** What the page without a server takes from the browser: model and ONNX Runtime by `fetch`, and decoded audio. */

import { BackendError } from "./backend.js";
import { SPEECH_FRAME, rateOf } from "./recording.js";
import { openStore } from "./voice-store.js";

const USUAL_RATE_HZ = 48_000; // to decode files whose header does not tell
const MAX_FILE_BYTES = 16 * 2 ** 20; // compressed, 16 MiB are a quarter of an hour; decoded, hundreds of MiB

/** Return what `LocalBackend` needs; BackendError when a file of the page is missing or damaged. */
export async function load() {
  try {
    const model = await (await fetched("model/model.json")).json();
    const [runtime, weights, detector, store] = await Promise.all([
      import("./onnxruntime-web/ort.wasm.bundle.min.js"),
      ...[model.onnx, "silero_vad.onnx"].map(async (name) => (await fetched(`model/${name}`)).arrayBuffer()),
      openStore(() => indexedDB),
    ]);
    const [embed, detect] = [await embedderOf(runtime, weights), await detectorOf(runtime, detector)];
    return { model, store, embed, detect, decode: decodeFile };
  } catch (error) {
    const advice = "Reload the page; if that does not help, write it again with “python verify.py page”.";
    throw new BackendError("unreachable", `The model could not be loaded (${error.message}). ${advice}`);
  }
}

/**
 * Return the function from samples to embedding.
 *
 * @param {Object} runtime  The module of onnxruntime-web.
 * @param {ArrayBuffer} weights  An ONNX file.
 */
export async function embedderOf(runtime, weights) {
  const session = await sessionOf(runtime, weights);
  return async (samples) => {
    const waveform = new runtime.Tensor("float32", samples, [1, samples.length]);
    return (await session.run({ waveform })).embedding.data;
  };
}

/** Return the function from frames of `speechFrames` to their probabilities of speech, with Silero VAD. */
export async function detectorOf(runtime, weights) {
  const session = await sessionOf(runtime, weights);
  const state = () => new runtime.Tensor("float32", new Float32Array(128), [1, 1, 128]);
  return async (frames) => {
    const input = new runtime.Tensor("float32", frames, [frames.length / SPEECH_FRAME, SPEECH_FRAME]);
    return (await session.run({ input, h: state(), c: state() })).speech_probs.data;
  };
}

function sessionOf(runtime, weights) {
  runtime.env.wasm.numThreads = 1; // more need SharedArrayBuffer, and with it headers that few servers send
  return runtime.InferenceSession.create(weights, { executionProviders: ["wasm"] });
}

/** Decode a file with the browser's decoders, at its own rate, so that the voice is resampled as in Python. */
export async function decodeFile(file) {
  if (file.size > MAX_FILE_BYTES) {
    const found = Math.ceil(file.size / 2 ** 20);
    throw new BackendError("input", `${file.name}: expected at most ${MAX_FILE_BYTES / 2 ** 20} MiB, found ${found}; cut the recording`);
  }
  const bytes = await file.arrayBuffer();
  const rate = rateOf(new Uint8Array(bytes)) ?? USUAL_RATE_HZ;
  try {
    const audio = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes);
    return { channels: Array.from({ length: audio.numberOfChannels }, (_, channel) => audio.getChannelData(channel)), rate };
  } catch {
    const formats = "a WAV, FLAC, Ogg or MP3 file";
    throw new BackendError("input", `${file.name}: expected audio that this browser can decode, found none; give ${formats}`);
  }
}

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response;
}
