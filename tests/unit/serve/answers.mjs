/**
 * Answers of the page without a server, in Node: `node answers.mjs FOLDER RUNTIME < STEPS`, JSON in and out.
 *
 * FOLDER is written by `verify.py page`; RUNTIME is a module of onnxruntime-web that runs in Node, which that of the
 * folder does not. A step is `[method, ...arguments]`; a recording among the arguments is
 * `{wav}` (base64), or `{name, rate, channels}` (float32, base64) in place of a decoded file.
 */

import { File } from "node:buffer";
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { text } from "node:stream/consumers";
import { pathToFileURL } from "node:url";

globalThis.File ??= File; // Node 18
const folder = pathToFileURL(`${resolve(process.argv[2])}/`);
const [{ LocalBackend }, { MemoryStore }, { detectorOf, embedderOf }] = await Promise.all(
  ["backend-local.js", "voice-store.js", "browser.js"].map((name) => import(new URL(name, folder))),
);
const runtime = await import(pathToFileURL(process.argv[3]));

const bytes = (base64) => new Uint8Array(Buffer.from(base64, "base64"));
const decoded = new Map();

function argument(value) {
  if (Array.isArray(value)) return value.map(argument);
  if (value?.wav) return new Blob([bytes(value.wav)]);
  if (!value?.channels) return value;
  const file = new File([], value.name);
  decoded.set(file, { rate: value.rate, channels: value.channels.map((channel) => new Float32Array(bytes(channel).buffer)) });
  return file;
}

async function load() {
  const model = JSON.parse(await readFile(new URL("model/model.json", folder), "utf8"));
  const embed = await embedderOf(runtime, await readFile(new URL(`model/${model.onnx}`, folder)));
  const detect = await detectorOf(runtime, await readFile(new URL("model/silero_vad.onnx", folder)));
  return { model, embed, detect, store: new MemoryStore(), decode: async (file) => decoded.get(file) };
}

const backend = new LocalBackend(load);
await backend.info();
const answers = [];
for (const [method, ...values] of JSON.parse(await text(process.stdin))) {
  try {
    answers.push((await backend[method](...values.map(argument))) ?? null);
  } catch (error) {
    answers.push({ error: error.message, kind: error.kind });
  }
}
console.log(JSON.stringify(answers));
