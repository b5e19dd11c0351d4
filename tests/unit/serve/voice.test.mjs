// Run by test_voice_js.py with Node's own runner: node --test tests/unit/serve/voice.test.mjs

import assert from "node:assert/strict";
import { test } from "node:test";

import * as voice from "../../../voice_biometrics/serve/page/voice.js";

const RATE = 16000;
const LIMITS = { min_speech_s: 0.5, sure_speech_s: 1.5 };

function sine(hertz, duration_s, rate = RATE, height = 0.3) {
  return Float32Array.from({ length: Math.round(duration_s * rate) }, (_, i) => height * Math.sin((2 * Math.PI * hertz * i) / rate));
}

function kinds(samples) {
  return voice.checkRecording(samples, RATE, LIMITS).checks.map((check) => [check.kind, check.isFatal]);
}

test("resampling keeps a tone of the pass band, in height and phase", () => {
  for (const from of [48000, 44100, 32000, 8000]) {
    const found = voice.resample(sine(1000, 0.5, from), from, RATE);
    const expected = sine(1000, 0.5);
    assert.ok(Math.abs(found.length - expected.length) <= 1);
    for (let i = 400; i < 7600; i++) assert.ok(Math.abs(found[i] - expected[i]) < 1e-3, `${from} Hz, sample ${i}`);
  }
});

test("resampling removes what would fold back: a tone of 12 kHz", () => {
  const found = voice.resample(sine(12000, 0.5, 48000), 48000, RATE);
  assert.ok(voice.levelOf(found.subarray(400, 7600)) < -75);
  assert.equal(voice.resample(found, RATE, RATE), found);
});

test("block by block, a resampler gives what all samples at once give", () => {
  const samples = Float32Array.from({ length: 30011 }, (_, i) => Math.sin(i * i * 1e-6));
  for (const [from, sizes] of [[48000, [1024]], [44100, [1024, 1, 0, 77]], [8000, [1, 5000]], [48000, [30011]]]) {
    const resampler = new voice.Resampler(from, RATE);
    const blocks = [];
    for (let start = 0, turn = 0; start < samples.length; turn++) {
      const stop = start + sizes[turn % sizes.length];
      blocks.push(resampler.push(samples.subarray(start, stop)));
      start = stop;
    }
    blocks.push(resampler.end());
    assert.deepEqual(voice.joined(blocks), voice.resample(samples, from, RATE));
    assert.equal(voice.joined(blocks).length, Math.floor((samples.length * RATE) / from));
  }
});

test("a WAV file has a header of 44 bytes, and returns its samples", () => {
  const samples = Float32Array.of(0, 0.5, -0.5, 1, -1, 2);
  const file = voice.encodeWav(samples, RATE);
  const view = new DataView(file);
  assert.equal(Buffer.from(file, 0, 4).toString() + Buffer.from(file, 8, 8).toString(), "RIFFWAVEfmt ");
  assert.deepEqual([view.getUint32(4, true), view.getUint32(40, true)], [file.byteLength - 8, 12]);
  assert.deepEqual([view.getUint16(22, true), view.getUint32(24, true), view.getUint16(34, true)], [1, RATE, 16]);
  const read = voice.decodeWav(file);
  assert.equal(read.rate, RATE);
  [0, 0.5, -0.5, 1, -1, 1].forEach((expected, i) => assert.ok(Math.abs(read.samples[i] - expected) < 1e-4));
});

test("levels: a sine of height 1 has -3 dB, and no frame is lost", () => {
  assert.ok(Math.abs(voice.levelOf(sine(1000, 1, RATE, 1)) + 3.01) < 0.01);
  assert.equal(voice.frameLevels(sine(1000, 1), RATE).length, 50);
  assert.equal(voice.frameLevels(new Float32Array(0), RATE).length, 0);
  assert.equal(voice.frameLevels(sine(1000, 0.01), RATE).length, 1);
  assert.deepEqual([-90, -60, -30, 0, 6].map(voice.meterHeight), [0, 0, 0.5, 1, 1]);
});

test("pauses are not speech", () => {
  const samples = voice.joined([sine(300, 1), new Float32Array(RATE), sine(300, 0.5)]);
  assert.ok(Math.abs(voice.speechSeconds(voice.frameLevels(samples, RATE)) - 1.5) < 0.021);
  assert.equal(voice.speechSeconds(voice.frameLevels(new Float32Array(RATE), RATE)), 0);
});

test("a good recording has no fault; silent, short, quiet and clipped ones have theirs", () => {
  assert.deepEqual(kinds(sine(300, 2)), []);
  assert.deepEqual(kinds(new Float32Array(2 * RATE)), [["silent", true]]);
  assert.deepEqual(kinds(new Float32Array(0)), [["silent", true]]);
  assert.deepEqual(kinds(sine(300, 0.4)), [["too_short", true]]);
  assert.deepEqual(kinds(sine(300, 1)), [["too_short", false]]);
  assert.deepEqual(kinds(sine(300, 2, RATE, 0.002)), [["too_quiet", false]]);
  assert.deepEqual(kinds(sine(300, 2, RATE, 2).map((sample) => Math.max(-1, Math.min(1, sample)))), [["clipped", false]]);
});

test("advice while speaking: none at first, then about silence and quiet speech", () => {
  assert.equal(voice.adviceWhileSpeaking(new Array(20).fill(-90)), "");
  assert.match(voice.adviceWhileSpeaking(new Array(75).fill(-90)), /muted/);
  assert.match(voice.adviceWhileSpeaking(new Array(75).fill(-60)), /quiet/);
  assert.equal(voice.adviceWhileSpeaking([...new Array(75).fill(-60), ...new Array(20).fill(-20)]), "");
});

test("a waveform is relative to its highest part", () => {
  const bars = voice.waveform(voice.joined([sine(300, 1, RATE, 0.1), sine(300, 1, RATE, 0.4)]), 10);
  assert.equal(bars.length, 10);
  bars.forEach((bar, i) => assert.ok(Math.abs(bar - (i < 5 ? 0.25 : 1)) < 0.01));
  assert.deepEqual(voice.waveform(new Float32Array(0), 3), [0, 0, 0]);
});

test("prompts: different sentences, digits without neighbours alike", () => {
  assert.equal(new Set(voice.chooseSentences(12)).size, 12);
  for (let i = 0; i < 200; i++) {
    const digits = voice.chooseDigits(6);
    assert.ok(digits.length === 6 && digits.every((digit, place) => digit >= 0 && digit <= 9 && digit !== digits[place - 1]));
  }
  assert.deepEqual(voice.chooseDigits(2, () => [0.1, 0.1, 0.95][voice.chooseDigits.calls = (voice.chooseDigits.calls ?? -1) + 1]), [1, 9]);
});

test("numbers as text", () => {
  assert.deepEqual([0.00009788, 0.00999, 0.2687, 0, 1].map(voice.perCent), ["0.0098 %", "1 %", "27 %", "0 %", "100 %"]);
  assert.equal(voice.perCentRange([0.1885, 0.378]), "19 to 38 %");
  assert.deepEqual([5.694, -0.4, 0].map(voice.signed), ["+5.69", "−0.40", "+0.00"]);
  assert.deepEqual([voice.counted(1, "recording"), voice.counted(3, "recording"), voice.seconds(2.96)], ["1 recording", "3 recordings", "3.0 s"]);
  assert.deepEqual(["smart_speaker", "far 0.02"].map(voice.useName), ["smart speaker", "at most 2 % false accepts"]);
});

test("a verdict in words: an LLR of 0.69 is twice as likely, a huge one is not printed", () => {
  const verdict = { decision: "accepted", name: "<b>Anna</b>", llr: Math.log(2) };
  assert.deepEqual(voice.describeVerdict("verify", verdict).title, "Accepted as <b>Anna</b>");
  assert.match(voice.describeLlr(Math.log(2)), /fit one speaker 2\.0 times better/);
  assert.match(voice.describeLlr(-Math.log(50)), /fit two speakers 50 times better/);
  assert.match(voice.describeLlr(1000), /at least 1,000,000 times/);
  assert.equal(voice.describeVerdict("identify", { decision: "rejected", name: null, llr: 1 }).title, "No enrolled voice was confirmed");
});

test("the scale holds every threshold, in order, and stops an LLR beyond it at its end", () => {
  const points = [{ use: "smart_speaker", threshold: 2.5 }, { use: "door", threshold: 17 }];
  const scale = voice.scaleOf(points, 40);
  assert.deepEqual([scale.min, scale.max, scale.value, scale.isBeyond], [-8, 19, 1, true]);
  assert.ok(0 < scale.marks[0].position && scale.marks[0].position < scale.marks[1].position && scale.marks[1].position < 1);
  assert.ok(scale.ticks.every(({ position }) => position >= 0 && position <= 1));
  assert.equal(voice.scaleOf(points, -8).value, 0);
  assert.equal(voice.scaleOf(points, 5.5).value, 0.5);
});

test("microphone faults tell what to do", () => {
  const named = (name) => voice.microphoneMessage(Object.assign(new Error("why"), { name }));
  assert.match(named("NotAllowedError"), /Allow it/);
  assert.match(named("NotFoundError"), /Connect one/);
  assert.match(named("OtherError"), /\(why\)/);
});

test("without a secure page there is no microphone, and that is told", async () => {
  await assert.rejects(new voice.Microphone(RATE, () => {}).start(), /localhost or over HTTPS/);
});
