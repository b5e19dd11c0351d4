/**
 * What the page knows of voices, without its elements: microphone, levels, checks, WAV, prompts, words and scales.
 *
 * Both pages use it, whatever their backend is. Importing it touches neither document nor microphone, so that Node's
 * own runner tests it. Samples are Float32Array in [-1, 1], one channel; levels are decibels, 0 = full scale.
 */

const FRAME_S = 0.02;
const SPEECH_RANGE_DB = 30; // below the loud frames; quieter frames are pauses (as in audio_input.py)
const MIN_LEVEL_DB = -50; // of the loud frames; audio_input.py warns below it
const SILENT_DB = -75; // a muted microphone
const MAX_CLIPPED_SHARE = 0.0003; // as in audio_input.py
const METER_FLOOR_DB = -60;
const ZERO_CROSSINGS = 96; // of the resampling filter, on each side
const CUTOFF = 0.956; // of the lower Nyquist frequency; 91 % pass
const KAISER_BETA = 14; // what would fold back is 140 dB lower

/** Sentences for enrolment, written for this page: three seconds or so each, with the sounds of English. */
export const SENTENCES = [
  "The boat drifted quietly past the old stone bridge.",
  "We should choose a warm jacket before the weather changes.",
  "Fresh bread and yellow cheese were waiting on the table.",
  "Her younger brother plays the violin every Thursday.",
  "A bright orange kite flew high above the garden.",
  "Please bring five cups of sugar from the village shop.",
  "The train to the north leaves in about half an hour.",
  "Nobody noticed the small bird under the wooden chair.",
  "They painted the kitchen walls in a gentle shade of blue.",
  "My favourite book is on the third shelf, near the window.",
  "Thick fog covered the valley until early afternoon.",
  "I measured the height of the door twice to be sure.",
];

/** Words about the digits, wherever they are shown. */
export const DIGITS_NOTE =
  "Random digits help a listener notice a replayed recording. The page does not check them: " +
  "they are a hurdle to replay, not liveness detection.";

/** A recorded microphone. Errors are Error whose message tells the user what to do. */
export class Microphone {
  /**
   * @param {number} rate  Hz, of the samples that `stop` returns.
   * @param {(block: Float32Array, rate: number) => void} onBlock  Called with about 20 ms at the microphone's own rate.
   * @param {() => void} onEnd  Called when the microphone is taken away, for instance unplugged.
   */
  constructor(rate, onBlock, onEnd) {
    [this.rate, this.onBlock, this.onEnd, this.blocks, this.heard] = [rate, onBlock, onEnd, [], []];
  }

  /** Ask for the microphone and start to record, without the browser's processing, which would change the voice. */
  async start() {
    if (!globalThis.navigator?.mediaDevices?.getUserMedia) {
      throw new Error("Browsers allow the microphone only on localhost or over HTTPS. Open the page that way.");
    }
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio });
      this.stream.getTracks()[0].addEventListener("ended", this.onEnd);
      this.context = new AudioContext({ latencyHint: "interactive" });
      await this.context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url));
    } catch (error) {
      await this.#release();
      throw new Error(microphoneMessage(error), { cause: error });
    }
    this.resampler = new Resampler(this.context.sampleRate, this.rate);
    this.worklet = new AudioWorkletNode(this.context, "capture", { numberOfOutputs: 0 });
    this.worklet.port.onmessage = ({ data }) => {
      this.heard.push(data);
      this.blocks.push(this.resampler.push(data));
      this.onBlock(data, this.context.sampleRate);
    };
    this.context.createMediaStreamSource(this.stream).connect(this.worklet);
    await this.context.resume();
  }

  /** Stop, release the microphone, and return the samples, and the share of them that was clipped. */
  stop() {
    this.worklet.port.onmessage = null;
    this.#release(); // not awaited: the answer need not wait for the microphone to close
    const samples = joined([...this.blocks, this.resampler.end()]);
    return { samples, clipped: clippedShare(joined(this.heard)) };
  }

  async #release() {
    this.stream?.getTracks().forEach((track) => track.stop());
    await this.context?.close();
  }
}

/** Return what to tell the user when the microphone cannot be opened. */
export function microphoneMessage(error) {
  const messages = {
    NotAllowedError: "Microphone access was denied. Allow it for this page in the address bar, and try again.",
    NotFoundError: "No microphone was found. Connect one and try again.",
    NotReadableError: "The microphone is in use by another program. Close it and try again.",
  };
  return messages[error.name] ?? `The microphone could not be started (${error.message}). Try again.`;
}

/** Return the samples of all blocks in one array. */
export function joined(blocks) {
  const samples = new Float32Array(blocks.reduce((total, block) => total + block.length, 0));
  let filled = 0;
  for (const block of blocks) {
    samples.set(block, filled);
    filled += block.length;
  }
  return samples;
}

/**
 * Return samples at another rate by a windowed sinc; `from` and `to` are whole Hz.
 *
 * The filter is as sharp as that of soxr, which Python uses: on three utterances of LibriSpeech at 8, 44.1 and 48 kHz the
 * embeddings' cosine distance was at most 1e-5, 2e-7 and 2e-7. A Blackman window over 16 zero crossings gave 0.1, 2e-5, 2e-5.
 */
export function resample(samples, from, to) {
  if (from === to) return samples;
  const resampler = new Resampler(from, to);
  return joined([resampler.push(samples), resampler.end()]);
}

/** Resamples block by block, as `resample` does all at once: so that little is left to do when the speaker stops. */
export class Resampler {
  #received = 0;
  #returned = 0;

  constructor(from, to) {
    const divisor = greatestCommonDivisor(from, to);
    [this.numPhases, this.step] = [to / divisor, from / divisor];
    this.half = Math.ceil((ZERO_CROSSINGS * Math.max(from, to)) / to);
    this.filters = Array.from({ length: this.numPhases }, (_, phase) => filterAt(phase / this.numPhases, this.half, from, to));
    this.kept = new Float32Array(this.half); // silence before the start; the last of it is sample -1
  }

  /** Return the samples that the input so far decides. */
  push(block) {
    this.#received += block.length;
    return this.#advance(block, Math.ceil(((this.#received - this.half) * this.numPhases) / this.step));
  }

  /** Return the last samples, with silence after the end. */
  end() {
    const silence = new Float32Array(this.half);
    return this.#advance(silence, Math.floor((this.#received * this.numPhases) / this.step));
  }

  /** Return the samples up to `stop`, and keep what later ones need. */
  #advance(block, stop) {
    const input = joined([this.kept, block]);
    const output = new Float32Array(Math.max(0, stop - this.#returned));
    const begin = Math.floor((this.#returned * this.step) / this.numPhases);
    for (let i = 0; i < output.length; i++) {
      const place = (this.#returned + i) * this.step;
      const first = Math.floor(place / this.numPhases) - begin + 1;
      const filter = this.filters[place % this.numPhases];
      let sum = 0;
      for (let tap = 0; tap < filter.length; tap++) sum += filter[tap] * input[first + tap];
      output[i] = sum;
    }
    this.#returned += output.length;
    this.kept = input.subarray(Math.floor((this.#returned * this.step) / this.numPhases) - begin);
    return output;
  }
}

/** Return the 2 x half taps around a place between two samples; `fraction` is its distance from the left one. */
function filterAt(fraction, half, from, to) {
  const cutoff = CUTOFF * Math.min(1, to / from);
  const taps = Float64Array.from({ length: 2 * half }, (_, tap) => {
    const distance = tap - half + 1 - fraction;
    const angle = Math.PI * cutoff * distance;
    return (angle ? Math.sin(angle) / angle : 1) * kaiser(distance / half);
  });
  const sum = taps.reduce((total, tap) => total + tap, 0);
  return taps.map((tap) => tap / sum);
}

/** Return the Kaiser window, 1 in the middle (0) and nearly 0 at the ends (-1 and 1). */
function kaiser(place) {
  return Math.abs(place) < 1 ? bessel(KAISER_BETA * Math.sqrt(1 - place * place)) / bessel(KAISER_BETA) : 0;
}

/** Return the modified Bessel function of order 0, by its power series. */
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
  return sum;
}

function greatestCommonDivisor(a, b) {
  return b ? greatestCommonDivisor(b, a % b) : a;
}

/** Return a 16-bit mono WAV file of the samples, as an ArrayBuffer. */
export function encodeWav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (place, word) => [...word].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); // bytes per second
  view.setUint16(32, 2, true); // bytes per frame
  view.setUint16(34, 16, true); // bits
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, place) => {
    view.setInt16(44 + 2 * place, Math.round(32767 * Math.max(-1, Math.min(1, sample))), true);
  });
  return view.buffer;
}

/** Return samples and rate of a WAV file that `encodeWav` made. */
export function decodeWav(buffer) {
  const view = new DataView(buffer);
  const samples = new Float32Array((buffer.byteLength - 44) / 2);
  for (let place = 0; place < samples.length; place++) samples[place] = view.getInt16(44 + 2 * place, true) / 32768;
  return { samples, rate: view.getUint32(24, true) };
}

/** Return the level of each complete 20 ms frame; of all samples if there is none. */
export function frameLevels(samples, rate) {
  const length = Math.min(samples.length, Math.max(1, Math.round(FRAME_S * rate)));
  return Array.from({ length: length ? Math.floor(samples.length / length) : 0 }, (_, frame) =>
    levelOf(samples.subarray(frame * length, (frame + 1) * length)),
  );
}

/** Return the level of a block of samples. */
export function levelOf(samples) {
  const energy = samples.reduce((sum, sample) => sum + sample * sample, 0);
  return 10 * Math.log10(energy / samples.length + 1e-12);
}

/** Return the level that 5 % of the frames exceed. */
export function loudLevel(levels) {
  return levels.length ? [...levels].sort((a, b) => a - b)[Math.floor(0.95 * (levels.length - 1))] : -120;
}

/** Return the duration without pauses, seconds, of the frames with these levels; steady noise counts as speech. */
export function speechSeconds(levels) {
  const floor = Math.max(loudLevel(levels) - SPEECH_RANGE_DB, SILENT_DB);
  return FRAME_S * levels.filter((level) => level > floor).length;
}

/** Return the fraction of samples in runs of three or more at the peak; resampling would round their corners. */
export function clippedShare(samples) {
  const peak = 0.999 * samples.reduce((highest, sample) => Math.max(highest, Math.abs(sample)), 0);
  if (!peak || samples.length < 3) return 0;
  let [clipped, run] = [0, 0];
  for (const sample of samples) {
    run = Math.abs(sample) >= peak ? run + 1 : 0;
    if (run >= 3) clipped++;
  }
  return clipped / (samples.length - 2);
}

/** Return the height of a level on the meter, 0 to 1. */
export function meterHeight(level) {
  return Math.max(0, Math.min(1, 1 - level / METER_FLOOR_DB));
}

/** Return what to tell the speaker while recording, from the levels so far: "" while all is well. */
export function adviceWhileSpeaking(levels) {
  const recent = levels.slice(-75); // 1.5 s
  if (recent.length < 50) return "";
  const loud = loudLevel(recent);
  if (loud < SILENT_DB) return "No sound. Is the microphone muted?";
  return loud < MIN_LEVEL_DB ? "Too quiet. Speak up, or move closer." : "";
}

/**
 * @typedef {Object} Check  A fault of a recording. `isFatal`: it cannot be used.
 * @property {"silent"|"too_short"|"too_quiet"|"clipped"} kind
 * @property {boolean} isFatal
 * @property {string} message
 */

/**
 * Check a recording before it is sent.
 *
 * @param {Float32Array} samples
 * @param {number} rate  Hz.
 * @param {{min_speech_s: number, sure_speech_s: number}} limits  Of `Backend.info()`.
 * @param {number} clipped  Share of clipped samples, before resampling.
 * @returns {{speechSeconds: number, level: number, checks: Check[]}}
 */
export function checkRecording(samples, rate, limits, clipped = clippedShare(samples)) {
  const levels = frameLevels(samples, rate);
  const level = loudLevel(levels);
  const speech = speechSeconds(levels);
  const checks = [];
  const add = (kind, isFatal, message) => checks.push({ kind, isFatal, message });
  if (!levels.some((one) => one >= SILENT_DB)) {
    add("silent", true, "No sound was recorded. Check that the right microphone is chosen and not muted.");
    return { speechSeconds: 0, level, checks };
  }
  if (speech < limits.min_speech_s) {
    add("too_short", true, `Too short: ${seconds(speech)} of speech. Say the whole prompt.`);
  } else if (speech < limits.sure_speech_s) {
    add("too_short", false, `Short: ${seconds(speech)} of speech. With more, the right speaker is rejected less often.`);
  }
  if (level < MIN_LEVEL_DB && speech >= limits.min_speech_s) add("too_quiet", false, "Too quiet. Speak up or move closer, and record again.");
  if (clipped > MAX_CLIPPED_SHARE) {
    add("clipped", false, "Too loud: the peaks are cut off. Move away, or lower the recording level.");
  }
  return { speechSeconds: speech, level, checks };
}

/** Return the peak of each of `numBars` equal parts, relative to the highest; noise that is hardly heard stays low. */
export function waveform(samples, numBars) {
  const bars = Array.from({ length: numBars }, (_, bar) => {
    const [start, stop] = [bar, bar + 1].map((edge) => Math.floor((edge * samples.length) / numBars));
    return samples.subarray(start, stop).reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);
  });
  const highest = Math.max(...bars, 0.02);
  return bars.map((bar) => bar / highest);
}

/** Return `count` different sentences; `random` is as Math.random. */
export function chooseSentences(count, random = Math.random) {
  const left = [...SENTENCES];
  return Array.from({ length: count }, () => left.splice(Math.floor(random() * left.length), 1)[0]);
}

/** Return `count` digits, no two neighbours alike. */
export function chooseDigits(count, random = Math.random) {
  const digits = [];
  while (digits.length < count) {
    const digit = Math.floor(random() * 10);
    if (digit !== digits.at(-1)) digits.push(digit);
  }
  return digits;
}

/** Return "3.2 s". */
export function seconds(duration) {
  return `${duration.toFixed(1)} s`;
}

/** Return "1 recording", "2 recordings". */
export function counted(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** Return a rate, a fraction, in per cent with two digits: "0.0098 %", "27 %". */
export function perCent(rate) {
  return `${twoDigits(100 * rate)} %`;
}

/** Return an interval of a rate in per cent: "19 to 38 %". */
export function perCentRange([lower, upper]) {
  return `${twoDigits(100 * lower)} to ${twoDigits(100 * upper)} %`;
}

function twoDigits(number) {
  return number.toLocaleString("en", { maximumSignificantDigits: 2 });
}

/** Return "+5.69", "−0.40". */
export function signed(llr) {
  return `${llr < 0 ? "−" : "+"}${Math.abs(llr).toFixed(2)}`;
}

/** Return the words for a use: "smart speaker". */
export function useName(use) {
  const limit = use.match(/^far (.+)$/);
  return limit ? `at most ${perCent(Number(limit[1]))} false accepts` : use.replaceAll("_", " ");
}

/** Return the headline of a verdict and a sentence about it; `task` is "verify", "identify" or "compare". */
export function describeVerdict(task, verdict) {
  const isAccepted = verdict.decision === "accepted";
  const odds = describeLlr(verdict.llr);
  const titles = {
    verify: isAccepted ? `Accepted as ${verdict.name}` : `Not confirmed as ${verdict.name}`,
    identify: isAccepted ? `This is ${verdict.name}` : "No enrolled voice was confirmed",
    compare: isAccepted ? "The same speaker" : "Not confirmed as the same speaker",
  };
  return { title: titles[task], sentence: odds };
}

/** Say in words what a log-likelihood ratio means. */
export function describeLlr(llr) {
  const factor = Math.exp(Math.min(Math.abs(llr), Math.log(1e6)));
  const times = factor < 10 ? factor.toFixed(1) : Number(factor.toPrecision(2)).toLocaleString("en");
  const atLeast = Math.abs(llr) > Math.log(1e6) ? "at least " : "";
  const [likely, other] = llr >= 0 ? ["one speaker", "two speakers"] : ["two speakers", "one speaker"];
  return `The recordings fit ${likely} ${atLeast}${times} times better than ${other}.`;
}

/**
 * Return where thresholds and LLR lie on a scale: positions from 0 (left) to 1.
 *
 * @param {{use: string, threshold: number}[]} points
 * @param {number} llr  Beyond the ends it is drawn at the end.
 * @returns {{min: number, max: number, ticks: {value: number, position: number}[],
 *     marks: {use: string, threshold: number, position: number}[], value: number, isBeyond: boolean}}
 */
export function scaleOf(points, llr) {
  const thresholds = points.map((point) => point.threshold);
  const min = Math.floor(Math.min(-6, ...thresholds) - 2);
  const max = Math.ceil(Math.max(8, ...thresholds) + 2);
  const position = (value) => Math.max(0, Math.min(1, (value - min) / (max - min)));
  const step = max - min > 24 ? 10 : 5;
  const first = Math.ceil(min / step) * step;
  const ticks = Array.from({ length: Math.floor((max - first) / step) + 1 }, (_, i) => first + i * step);
  return {
    min,
    max,
    ticks: ticks.map((value) => ({ value, position: position(value) })),
    marks: points.map(({ use, threshold }) => ({ use, threshold, position: position(threshold) })),
    value: position(llr),
    isBeyond: llr < min || llr > max,
  };
}
