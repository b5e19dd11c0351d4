/** The pure logic of the page without a server: `node --test tests/unit/serve/`. Numbers are worked out by hand. */

import assert from "node:assert/strict";
import { File } from "node:buffer";
import { test } from "node:test";

globalThis.File ??= File; // Node 18
const page = new URL("../../../voice_biometrics/serve/page/", import.meta.url);
const { checkedName, disagreeing, llrOf, pointsFor, scoreOf, unit } = await import(`${page}decisions.js`);
const { SPEECH_FRAME, bandDrop, holdDifferentSounds, isLowStrong, mixDown, rateOf, recordingOf, repeatTo, speechFrames, withoutLow } = await import(`${page}recording.js`);
const { LocalBackend } = await import(`${page}backend-local.js`);
const { MemoryStore, openStore } = await import(`${page}voice-store.js`);
const { encodeWav } = await import(`${page}voice.js`);

const RATE = 16000;
const [ANNA, BERT, CARL] = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
const point = (use, threshold, max_far) => ({ use, threshold, max_far, far: max_far, frr: 0.2, num_nontarget: 120_000 });
const MODEL = {
  info: {
    model: { name: "toy", version: "1", fingerprint: "ab".repeat(32) },
    use: "smart_speaker",
    points: [point("smart_speaker", 2, 0.01), point("door", 4, 0.0005)],
    sample_rate: RATE,
    min_speech_s: 0.5,
    sure_speech_s: 1.5,
    max_duration_s: 60,
  },
  calibration: { slope: 10, offset: -5 },
  error_rates: { llr: [-10, 0, 2, 4, 5.5], far: [1, 0.06, 0.01, 0.0005, 0], frr: [0, 0.06, 0.2, 0.5, 0.9] },
  limits: { min_duration_s: 0.5, measured_from_s: 1 },
};

/** A tone with the bands of speech; its amplitude carries the voice that `embed` below reads. */
function speech(seconds, amplitude = 0.3) {
  return Float32Array.from({ length: seconds * RATE }, (_, i) => {
    const angle = (2 * Math.PI * i) / RATE;
    return amplitude * (0.9 * Math.sin(300 * angle) + 0.1 * Math.sin(6000 * angle));
  });
}

const VOICES = { 0.2: ANNA, 0.3: BERT, 0.4: CARL };
const said = (amplitude, seconds = 2) => new Blob([encodeWav(speech(seconds, amplitude), RATE)]);

/** All frames hold speech. */
const detect = async (frames) => new Float32Array(frames.length / SPEECH_FRAME).fill(1);

function backendWith(store = new MemoryStore(), model = MODEL) {
  const embed = async (samples) => [...VOICES[Math.max(...samples).toFixed(1)], samples.length / RATE / 10].map((value) => 3 * value);
  return new LocalBackend(async () => ({ model, store, embed, detect, decode: async () => ({ channels: [speech(2)], rate: RATE }) }));
}

async function enrolled(...names) {
  const backend = backendWith();
  await backend.info();
  for (const [place, name] of names.entries()) await backend.enrol(name, [said([0.2, 0.3, 0.4][place])]);
  return backend;
}

const refuses = (promise, kind, words) => assert.rejects(promise, (error) => error.kind === kind && error.message.includes(words));

test("the score with a mean is the cosine times the root of its length", () => {
  assert.equal(scoreOf([0.6, 0.8, 0], ANNA).toFixed(6), "0.600000");
  assert.equal(scoreOf([0.5, 0, 0], ANNA).toFixed(6), Math.SQRT1_2.toFixed(6));
  assert.equal(llrOf(MODEL, 0.75), 2.5);
});

test("an embedding that is zero or not finite is refused", () => {
  for (const bad of [[0, 0], [NaN, 1], [Infinity, 1]]) assert.throws(() => unit(bad), { kind: "input" });
  assert.deepEqual([...unit([3, 4])].map((value) => value.toFixed(4)), ["0.6000", "0.8000"]);
});

test("the odd one out is found wherever it is, and of two both", () => {
  for (const place of [0, 1, 2, 3]) assert.deepEqual(disagreeing(MODEL, [0, 1, 2, 3].map((i) => (i === place ? BERT : ANNA))), [place]);
  assert.deepEqual(disagreeing(MODEL, [ANNA, BERT]), [0, 1]);
  assert.deepEqual(disagreeing(MODEL, [ANNA]), []);
});

test("names that cannot be displayed are refused", () => {
  for (const bad of ["", " anna", "anna ", "a\u0000", "a\u200bb", "a\u00a0b", "x".repeat(101), "\ud800"]) {
    assert.throws(() => checkedName(bad), { kind: "input" }, JSON.stringify(bad));
  }
  for (const good of ["anna", "Zoë van Dam", "李", "😀".repeat(100)]) assert.equal(checkedName(good), good);
});

test("the threshold of an identification rises with the number of voices, and beyond what was measured by a logarithm", () => {
  assert.deepEqual(pointsFor(MODEL, 1), MODEL.info.points);
  const [twenty] = pointsFor(MODEL, 20); // a share of 0.0005, measured at LLR 4
  assert.deepEqual([twenty.threshold, twenty.frr, twenty.far, twenty.is_extrapolated], [4, 0.5, null, false]);
  const [many] = pointsFor(MODEL, 1000); // a share of 0.00001; 30 errors support 0.00025, which LLR 5.5 has
  assert.equal(many.threshold.toFixed(6), (5.5 + Math.log(25)).toFixed(6));
  assert.deepEqual([many.frr, many.is_extrapolated], [0.9, true]);
});

test("sample rates are read from headers, and a header that ends early is none", () => {
  const bytes = (...parts) => parts.flatMap((part) => (typeof part === "string" ? [...part].map((c) => c.charCodeAt(0)) : part));
  const zeros = (count) => new Array(count).fill(0);
  const ogg = (head) => bytes("OggS", zeros(24), head, [0x80, 0x3e, 0, 0]);
  const cases = [
    [new Uint8Array(encodeWav(speech(0.1), 44_100)), 44_100],
    [bytes("RIFF", zeros(4), "WAVE", "LIST", [3, 0, 0, 0], "abc\0", "fmt ", [16, 0, 0, 0, 1, 0, 1, 0, 0x40, 0x1f, 0, 0]), 8000],
    [bytes("fLaC", [0, 0, 0, 34], zeros(10), [0x0b, 0xb8, 0x00, 0xf0]), 48_000],
    [ogg(bytes("OpusHead", zeros(4))), 16_000],
    [ogg(bytes([1], "vorbis", zeros(5))), 16_000],
    [bytes([0xff, 0xfb, 0x90, 0x64]), 44_100],
    [bytes("ID3", [4, 0, 0, 0, 0, 0, 2], zeros(2), [0xff, 0xf3, 0x48, 0xc4]), 16_000],
    [bytes("RIFF", zeros(4), "WAVE"), null],
    [bytes("<!doctype html>"), null],
    [bytes(), null],
  ];
  for (const [content, rate] of cases) assert.equal(rateOf(Uint8Array.from(content)), rate);
});

test("channels are averaged, and of channels that cancel each other the loudest is taken", () => {
  const [loud, inverted] = [speech(0.1), speech(0.1, -0.29)];
  assert.equal(mixDown([loud, inverted]), loud);
  assert.deepEqual(mixDown([Float32Array.of(1, 0), Float32Array.of(0.5, 0.5)]), Float32Array.of(0.75, 0.25));
});

test("a telephone has nothing above 4 kHz", () => {
  assert.equal(Math.round(bandDrop(speech(1), RATE)), 19); // 0.9 at 300 Hz over 0.1 at 6 kHz
});

test("frames of 512 samples begin with the 64 before them, and end with zeros", () => {
  const frames = speechFrames(Float32Array.from({ length: 600 }, (_, i) => i + 1));
  assert.equal(frames.length, 2 * SPEECH_FRAME);
  assert.deepEqual([63, 64, 575, 576, 640, 727, 728].map((place) => frames[place]), [0, 1, 512, 449, 513, 600, 0]);
});

test("an offset or rumble of 20 % of the voice is strong, of 1 % is not", () => {
  for (const hertz of [0, 25]) {
    const withLow = (height) => speech(1.3).map((sample, i) => sample + height * Math.cos((2 * Math.PI * hertz * i) / RATE));
    assert.deepEqual([0.003, 0.06].map((height) => isLowStrong(withLow(height), RATE)), [false, true], `${hertz} Hz`);
  }
});

test("speech is measured without an offset and rumble", () => {
  const voice = speech(1);
  for (const low of [() => 0.3, (t) => 0.3 * Math.sin(2 * Math.PI * 5 * t)]) {
    const cleaned = withoutLow(voice.map((sample, place) => sample + low(place / RATE)), RATE);
    const rest = cleaned.slice(400, -400).map((sample, place) => Math.abs(sample - voice[place + 400]));
    assert.ok(Math.max(...rest) < 0.06);
  }
});

test("two people on two channels are different sounds, one person is not, whatever the level", () => {
  const turns = (turn) => speech(4).map((sample, i) => (Math.floor(i / RATE) % 2 === turn ? sample : 0));
  assert.equal(holdDifferentSounds([turns(0), turns(1)], RATE), true);
  assert.equal(holdDifferentSounds([turns(0), turns(0).map((sample) => 0.1 * sample)], RATE), false);
  assert.equal(holdDifferentSounds([turns(0)], RATE), false);
});

test("unusable recordings are refused, doubtful ones remarked on", async () => {
  const limits = { ...MODEL.info, ...MODEL.limits };
  const read = (samples, rate = RATE) => recordingOf({ channels: [samples], rate }, "a.wav", limits, detect);
  const fault = (samples, words, rate) => assert.rejects(read(samples, rate), { kind: "input", message: new RegExp(`^a.wav: .*${words}`) });
  const remarks = async (...recording) => (await read(...recording)).warnings.join();
  await fault(new Float32Array(0), "no samples");
  await fault(new Float32Array(RATE).fill(0.1), "silence");
  await fault(speech(1).fill(NaN, 5, 6), "finite samples");
  await fault(speech(61), "at most 60 s, found 61 s");
  await fault(speech(0.3), "found 0.30 s: too little");
  await fault(speech(0.1), "found 0.10 s: no speech found");
  await fault(speech(1), "4,000 to 384,000 Hz, found 3,000", 3000);
  assert.equal(await remarks(speech(2)), "");
  assert.match(await remarks(speech(1)), /^a.wav: only 1.0 s of speech/);
  assert.match(await remarks(speech(2, 0.001)), /very quiet: the loud parts reach -64 dB/);
  assert.match(await remarks(speech(2).map((value) => Math.max(-0.1, Math.min(0.1, value)))), /clipped: \d+ % of/);
  assert.match(await remarks(speech(2), 8000), /recorded at 8,000 Hz: the model was trained on 16,000 Hz/);
});

test("short speech is repeated", () => {
  assert.deepEqual(repeatTo(Float32Array.of(1, 2, 3), 7), Float32Array.of(1, 2, 3, 1, 2, 3, 1));
});

test("a voice is accepted, another rejected, and nobody found among others", async () => {
  const backend = await enrolled("anna", "bert");
  const accepted = await backend.verify("anna", said(0.2, 2.5));
  assert.deepEqual([accepted.decision, accepted.name, accepted.llr.toFixed(1)], ["accepted", "anna", "5.0"]);
  assert.deepEqual(accepted.warnings, []);
  assert.equal((await backend.verify("anna", said(0.3))).decision, "rejected");
  assert.equal((await backend.identify(said(0.3))).name, "bert");
  const nobody = await backend.identify(said(0.4));
  assert.deepEqual([nobody.decision, nobody.name, nobody.candidates.length], ["rejected", null, 2]);
  assert.equal((await backend.compare(said(0.2), said(0.2, 3))).decision, "accepted");
});

test("recordings of two speakers are enrolled only on request", async () => {
  const backend = await enrolled();
  const recordings = [said(0.2), said(0.3), said(0.2, 3)];
  await assert.rejects(backend.enrol("anna", recordings), { kind: "another_speaker", recordings: [1] });
  assert.deepEqual(await backend.list(), []);
  const { num_recordings, warnings } = await backend.enrol("anna", recordings, true);
  assert.equal(num_recordings, 3);
  assert.deepEqual(warnings, ["recording 2: sounds like another speaker"]);
});

test("copies count once, and a recording that is compared with itself is a doubt", async () => {
  const backend = await enrolled();
  const done = await backend.enrol("anna", [said(0.2), said(0.2)]);
  assert.deepEqual([done.num_recordings, done.speech_s], [1, 2]);
  assert.deepEqual(done.warnings, ["recording 2: the same recording again; counted once"]);
  await backend.enrol("bert", [said(0.3), said(0.3, 3), said(0.3, 2.5)]);
  const compared = [backend.verify("anna", said(0.2)), backend.identify(said(0.2)), backend.compare(said(0.2), said(0.2))];
  for (const answer of [...compared, backend.verify("bert", said(0.3, 3))]) {
    assert.match((await answer).warnings.join(), /identical to the recording that it is compared with/);
  }
});

test("voices are listed, forgotten, and never replaced", async () => {
  const backend = await enrolled("bert", "anna");
  assert.deepEqual((await backend.list()).map(({ name }) => name), ["anna", "bert"]);
  await refuses(backend.enrol("anna", [said(0.4)]), "input", "anna is already enrolled");
  await backend.forget("anna");
  await refuses(backend.forget("anna"), "input", "anna is not enrolled");
  await refuses(backend.verify("anna", said(0.2)), "input", "anna is not enrolled");
  await backend.forget("bert");
  await refuses(backend.identify(said(0.2)), "input", "no voice is enrolled");
});

test("a voice of another model is refused", async () => {
  const store = new MemoryStore();
  await store.add({ name: "old", fingerprint: "cd".repeat(32), num_recordings: 1, speech_s: 2, embedding: ANNA });
  const backend = backendWith(store);
  await backend.info();
  for (const promise of [backend.verify("old", said(0.2)), backend.identify(said(0.2))]) {
    await refuses(promise, "input", "old was enrolled with model cdcdcdcdcdcd, but this is model abababababab");
  }
  await backend.forget("old");
});

test("a load that failed is tried again", async () => {
  let tries = 0;
  const parts = { model: MODEL, store: new MemoryStore() };
  const backend = new LocalBackend(async () => {
    if (!tries++) throw new Error("no network");
    return parts;
  });
  await assert.rejects(Promise.all([backend.info(), backend.list()]), { message: "no network" });
  assert.equal((await backend.info()).storage, parts.store.place);
  assert.equal(tries, 2);
});

test("without IndexedDB, voices live as long as the tab", async () => {
  const refusing = { open: () => { throw new DOMException("denied", "SecurityError"); } };
  for (const factory of [() => undefined, () => refusing, () => refusing.open()]) {
    const store = await openStore(factory);
    assert.match(store.place, /in this tab only/);
    await store.add({ name: "anna" });
    assert.deepEqual(await store.all(), [{ name: "anna" }]);
  }
});
