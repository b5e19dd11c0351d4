/**
 * Check decoded audio and remark on its quality, as `audio_input.py` does, with the same limits and sentences.
 *
 * Channels and samples are Float32Array in [-1, 1].
 */

import { BackendError } from "./backend.js";
import { clippedShare, frameLevels, levelOf, loudLevel, resample } from "./voice.js";

const MAX_CLIPPED_SHARE = 0.0003;
const MAX_BAND_DROP_DB = 59;
const MIN_LEVEL_DB = -50;
const [SPEECH_BAND_HZ, UPPER_BAND_HZ] = [[200, 3400], [4500, 7500]];
const MAX_CHANNELS = 16;
const [MIN_RATE_HZ, MAX_RATE_HZ] = [4_000, 384_000];
const SILENCE = 2 ** -15; // the smallest step of 16-bit audio
const [LOW_HZ, MAX_LOW_DB, SLOW_RATE_HZ] = [40, -17, 800]; // energy below the voice, found at a low rate
const MEAN_S = 0.025;
const [SOUND_FRAME_S, SOUND_RANGE_DB, SAME_SOUND] = [0.1, 40, 0.6]; // levels of two channels, and their correlation
const [SPEECH_RATE_HZ, FRAME, CONTEXT, IS_SPEECH, LEVEL] = [16_000, 512, 64, 0.5, 0.1]; // as in speech_activity.py
export const SPEECH_FRAME = CONTEXT + FRAME; // samples
const CANCELLING = 0.1; // channels whose mean has less than this fraction of their RMS are not averaged

/**
 * @typedef {Object} Recording
 * @property {string} name  In messages.
 * @property {Float32Array} samples  At the model's rate.
 * @property {number} speechS  Duration of the speech in it, seconds.
 * @property {string[]} warnings  Reasons why an answer about it is less reliable.
 */

/**
 * Return the recording in decoded audio; BackendError for one that cannot be used.
 *
 * @param {{channels: Float32Array[], rate: number}} audio
 * @param {string} name
 * @param {import("./backend.js").Info & {measured_from_s: number}} limits  `measured_from_s`: shortest of the held-out recordings.
 * @param {(frames: Float32Array) => Promise<Float32Array>} detect  Frames of speechFrames to their probabilities of speech.
 * @returns {Promise<Recording>}
 */
export async function recordingOf({ channels, rate }, name, limits, detect) {
  const refuse = (fault) => {
    throw new BackendError("input", `${name}: ${fault}`);
  };
  if (channels.length > MAX_CHANNELS) refuse(`expected 1 to ${MAX_CHANNELS} channels, found ${channels.length}; mix them down`);
  if (rate < MIN_RATE_HZ || rate > MAX_RATE_HZ) {
    refuse(`expected ${grouped(MIN_RATE_HZ)} to ${grouped(MAX_RATE_HZ)} Hz, found ${grouped(rate)}; convert it`);
  }
  const durationS = channels[0].length / rate;
  if (!durationS) refuse("expected speech, found no samples; record it again");
  if (durationS > limits.max_duration_s) {
    refuse(`expected at most ${limits.max_duration_s} s, found ${durationS.toFixed(0)} s; cut the recording`);
  }
  const mono = mixDown(channels);
  if (!mono.every(Number.isFinite)) refuse("expected finite samples, found NaN or infinite ones; record it again");
  if (spread(mono) <= 2 * SILENCE) refuse("expected speech, found silence; check the microphone and record it again");
  const samples = resample(mono, rate, limits.sample_rate);
  const heard = isLowStrong(samples, limits.sample_rate) ? withoutLow(samples, limits.sample_rate) : samples;
  const speechS = await speechDuration(heard, limits.sample_rate, detect);
  if (speechS < limits.min_speech_s) {
    const why = speechS < limits.min_speech_s / 2 ? "no speech found" : "too little to tell speakers apart";
    refuse(`expected ${limits.min_speech_s} s of speech or more, found ${speechS.toFixed(2)} s: ${why}; record a sentence`);
  }
  const warnings = [...remarksOnSound(samples, limits.sample_rate), ...remarksOnFile(channels, rate, limits.sample_rate)];
  if (speechS < limits.sure_speech_s || durationS < limits.measured_from_s) {
    warnings.unshift(`only ${speechS.toFixed(1)} s of speech; expect more false rejections`);
  }
  return { name, samples, speechS, warnings: warnings.map((warning) => `${name}: ${warning}`) };
}

/** Return samples, repeated up to `numSamples` if they are fewer. */
export function repeatTo(samples, numSamples) {
  return samples.length >= numSamples ? samples : Float32Array.from({ length: numSamples }, (_, i) => samples[i % samples.length]);
}

/** Return the mean of the channels; of channels that cancel each other, the loudest. */
export function mixDown(channels) {
  if (channels.length === 1) return channels[0];
  const mono = channels[0].map((_, place) => channels.reduce((sum, channel) => sum + channel[place], 0) / channels.length);
  const powers = channels.map(power);
  const loudest = Math.max(...powers);
  return power(mono) < CANCELLING ** 2 * loudest ? channels[powers.indexOf(loudest)] : mono;
}

async function speechDuration(samples, rate, detect) {
  const gain = LEVEL / Math.max(10 ** (loudLevel(frameLevels(samples, rate)) / 20), 1e-9);
  const heard = resample(samples, rate, SPEECH_RATE_HZ).map((sample) => sample * gain);
  const probabilities = await detect(speechFrames(heard));
  const numSpeech = probabilities.filter((probability) => probability > IS_SPEECH).length;
  return Math.min(numSpeech * FRAME, heard.length) / SPEECH_RATE_HZ;
}

/** Return the frames of the voice activity detector, one after the other: 512 samples, each with the 64 before them. */
export function speechFrames(samples) {
  const frames = new Float32Array(Math.ceil(samples.length / FRAME) * SPEECH_FRAME);
  for (let start = 0, filled = 0; start < samples.length; start += FRAME, filled += SPEECH_FRAME) {
    const first = Math.max(0, start - CONTEXT);
    frames.set(samples.subarray(first, start + FRAME), filled + first - (start - CONTEXT));
  }
  return frames;
}

/** Tell if energy below the voice (an offset, rumble) is strong enough to change decisions. */
export function isLowStrong(samples, rate) {
  const slow = resample(samples, rate, SLOW_RATE_HZ);
  const scale = (samples.length / slow.length) ** 2;
  const numBins = Math.ceil((LOW_HZ * slow.length) / SLOW_RATE_HZ);
  const energies = Array.from({ length: numBins }, (_, bin) => scale * binEnergy(slow, bin));
  const low = energies.reduce((sum, energy) => sum + energy, 0);
  const all = (samples.length ** 2 * power(samples) + energies[0]) / 2; // one side of the spectrum (Parseval)
  return low > (all - low) * 10 ** (MAX_LOW_DB / 10);
}

/** Return samples minus their moving average: without an offset and most rumble, which make the detector miss speech. */
export function withoutLow(samples, rate) {
  const sums = new Float64Array(samples.length + 1);
  samples.forEach((sample, place) => (sums[place + 1] = sums[place] + sample));
  const half = Math.round((MEAN_S / 2) * rate);
  return samples.map((sample, place) => {
    const [first, last] = [Math.max(place - half, 0), Math.min(place + half + 1, samples.length)];
    return sample - (sums[last] - sums[first]) / (last - first);
  });
}

/** Return the energy of a bin of the discrete Fourier transform. Source: Goertzel 1958. */
function binEnergy(samples, bin) {
  const twice = 2 * Math.cos((2 * Math.PI * bin) / samples.length);
  let [last, before] = [0, 0];
  for (const sample of samples) [last, before] = [sample + twice * last - before, last];
  return last * last + before * before - twice * last * before;
}

/** Tell if the two loudest channels hold different sounds, such as two people: their levels do not rise and fall together. */
export function holdDifferentSounds(channels, rate) {
  const length = Math.max(1, Math.round(SOUND_FRAME_S * rate));
  const numFrames = Math.floor(channels[0].length / length);
  if (numFrames < 10 || channels.length < 2) return false;
  const levels = channels.map((channel) =>
    Array.from({ length: numFrames }, (_, frame) => levelOf(channel.subarray(frame * length, (frame + 1) * length))),
  );
  const loudest = [...levels].sort((a, b) => Math.max(...b) - Math.max(...a)).slice(0, 2);
  const floor = Math.max(...loudest[0]) - SOUND_RANGE_DB;
  const [first, second] = loudest.map((one) => {
    const floored = one.map((level) => Math.max(level, floor));
    const average = floored.reduce((sum, level) => sum + level, 0) / numFrames;
    return floored.map((level) => level - average);
  });
  const dot = (a, b) => a.reduce((sum, value, frame) => sum + value * b[frame], 0);
  const deviation = Math.sqrt(dot(first, first) * dot(second, second));
  return deviation > 0 && dot(first, second) < SAME_SOUND * deviation;
}

/** Return the energy of the telephone band over that above 4.5 kHz, decibels. */
export function bandDrop(samples, rate) {
  const size = 2 ** Math.ceil(Math.log2(samples.length));
  const [real, imaginary] = [new Float64Array(size), new Float64Array(size)];
  samples.forEach((sample, place) => {
    real[place] = sample * (0.5 - 0.5 * Math.cos((2 * Math.PI * place) / (samples.length - 1)));
  });
  fourier(real, imaginary);
  const [low, high] = [SPEECH_BAND_HZ, UPPER_BAND_HZ].map(([from, to]) => {
    let energy = 1e-12;
    for (let bin = Math.ceil((from * size) / rate); bin < (to * size) / rate; bin++) energy += real[bin] ** 2 + imaginary[bin] ** 2;
    return energy;
  });
  return 10 * Math.log10(low / high);
}

function remarksOnSound(samples, rate) {
  const remarks = [];
  const level = loudLevel(frameLevels(samples, rate));
  if (level < MIN_LEVEL_DB) remarks.push(`very quiet: the loud parts reach ${level.toFixed(0)} dB of full scale; speak closer`);
  if (rate / 2 >= UPPER_BAND_HZ[1] && bandDrop(samples, rate) > MAX_BAND_DROP_DB) {
    remarks.push("narrow band: nothing above 4 kHz, as on a telephone; the model was trained on wide-band speech");
  }
  if (isLowStrong(samples, rate)) {
    remarks.push("strong energy below the voice (an offset or rumble): use a high-pass filter or another microphone");
  }
  return remarks;
}

function remarksOnFile(channels, fileRate, rate) {
  const remarks = [];
  if (holdDifferentSounds(channels, fileRate)) {
    remarks.push("different sounds on its channels, such as two people: choose one channel");
  }
  const clipped = Math.max(...channels.map(clippedShare));
  if (clipped > MAX_CLIPPED_SHARE) {
    const share = Number((100 * clipped).toPrecision(2));
    remarks.push(`clipped: ${share} % of the samples are at the peak; lower the recording level`);
  }
  if (fileRate < rate) remarks.push(`recorded at ${grouped(fileRate)} Hz: the model was trained on ${grouped(rate)} Hz`);
  return remarks;
}

function power(samples) {
  return samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
}

function spread(samples) {
  let [lowest, highest] = [Infinity, -Infinity];
  for (const sample of samples) {
    lowest = Math.min(lowest, sample);
    highest = Math.max(highest, sample);
  }
  return highest - lowest;
}

function grouped(number) {
  return number.toLocaleString("en-US");
}

/** Replace a complex signal, whose length is a power of two, by its Fourier transform. Source: Cooley and Tukey 1965. */
function fourier(real, imaginary) {
  const size = real.length;
  for (let place = 1, mirrored = 0; place < size; place++) {
    let bit = size >> 1;
    for (; mirrored & bit; bit >>= 1) mirrored ^= bit;
    mirrored ^= bit;
    if (place < mirrored) {
      [real[place], real[mirrored]] = [real[mirrored], real[place]];
      [imaginary[place], imaginary[mirrored]] = [imaginary[mirrored], imaginary[place]];
    }
  }
  for (let half = 1; half < size; half *= 2) {
    for (let twiddle = 0; twiddle < half; twiddle++) {
      const [cos, sin] = [Math.cos((Math.PI * twiddle) / half), -Math.sin((Math.PI * twiddle) / half)];
      for (let low = twiddle; low < size; low += 2 * half) {
        const high = low + half;
        const [re, im] = [real[high] * cos - imaginary[high] * sin, real[high] * sin + imaginary[high] * cos];
        [real[high], imaginary[high]] = [real[low] - re, imaginary[low] - im];
        real[low] += re;
        imaginary[low] += im;
      }
    }
  }
}

/**
 * Return the sample rate, Hz, in the header of a WAV, FLAC, Ogg or MP3 file; null for others. Browsers resample what
 * they decode to a rate that must be chosen before.
 */
export function rateOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (place, length) => String.fromCharCode(...bytes.subarray(place, place + length));
  try {
    if (text(0, 4) === "RIFF" && text(8, 4) === "WAVE") {
      let place = 12;
      while (text(place, 4) !== "fmt ") place += 8 + view.getUint32(place + 4, true) + (view.getUint32(place + 4, true) % 2);
      return view.getUint32(place + 12, true);
    }
    if (text(0, 4) === "fLaC") return view.getUint32(18) >> 12;
    if (text(0, 4) === "OggS") {
      if (text(28, 8) === "OpusHead" || text(29, 6) === "vorbis") return view.getUint32(40, true);
      return null;
    }
    const start = text(0, 3) === "ID3" ? 10 + [6, 7, 8, 9].reduce((size, place) => size * 128 + view.getUint8(place), 0) : 0;
    const header = view.getUint32(start);
    const [version, rate] = [(header >> 19) & 3, (header >> 10) & 3];
    if (header >>> 21 !== 0x7ff || version === 1 || rate === 3) return null;
    return [44_100, 48_000, 32_000][rate] / { 3: 1, 2: 2, 0: 4 }[version];
  } catch (error) {
    if (error instanceof RangeError) return null; // the file ends within its header
    throw error;
  }
}
