/**
 * Decisions as those of Python: `decisions.py`, `voiceprints.py` and `recognizer.py`, for the page without a server.
 *
 * Embeddings are arrays of numbers; a template is the mean of embeddings of length 1. `model` is the content of
 * `model/model.json`, which `static_page.py` documents.
 */

import { BackendError } from "./backend.js";

const MAX_NAME = 100; // characters
const MARK_DIMS = 16; // numbers of an embedding by which a recording is recognised
const SAME_RECORDING = 0.01; // between two marks
const ERRORS_FOR_30_PER_CENT = 30;

/** Tell if a voice may have this name: it can be displayed and typed. */
export function isName(name) {
  const unprintable = /[\p{C}\p{Z}]/u.test(name.replaceAll(" ", ""));
  const length = [...name].length;
  return length > 0 && length <= MAX_NAME && !unprintable && name === name.trim();
}

/** Return the name of a voice in composed Unicode; BackendError for one that could not be displayed or typed. */
export function checkedName(name) {
  if (isName(name)) return name.normalize("NFC");
  const expected = `1 to ${MAX_NAME} printable characters without spaces at the ends`;
  throw new BackendError("input", `invalid name ${JSON.stringify(name).slice(0, 60)}: expected ${expected}`);
}

/** Return an embedding scaled to length 1. */
export function unit(embedding) {
  const length = norm(embedding);
  if (!(length > 0 && length < Infinity)) {
    throw new BackendError("input", "the embedding is zero or not finite, so it cannot be scored; record again");
  }
  return Float32Array.from(embedding, (value) => value / length);
}

/** Return the mean of embeddings. */
export function mean(embeddings) {
  return embeddings[0].map((_, dim) => embeddings.reduce((sum, one) => sum + one[dim], 0) / embeddings.length);
}

/** Return the score of a template and an embedding: the cosine times the square root of the template's length. */
export function scoreOf(template, embedding) {
  return product(template, embedding) / Math.sqrt(norm(template));
}

/** Return the log-likelihood ratio of a score. */
export function llrOf(model, score) {
  return model.calibration.slope * score + model.calibration.offset;
}

/**
 * Return the positions of the recordings whose LLR of being the same speaker as the majority is below 0, as
 * `disagreeing` of recognizer.py, which explains the rule.
 */
export function disagreeing(model, embeddings) {
  const scores = embeddings.map((one) => embeddings.map((other) => product(one, other)));
  const totals = scores.map((row) => row.reduce((sum, score) => sum + score, 0));
  const agree = scores[totals.indexOf(Math.max(...totals))].map((score) => llrOf(model, score) >= 0);
  if (agree.length === 2 && agree.includes(false)) return [0, 1];
  const majority = mean(embeddings.filter((_, place) => agree[place]));
  const fits = embeddings.map((one) => llrOf(model, scoreOf(majority, one)) >= 0);
  return [...embeddings.keys()].filter((place) => !(agree[place] || fits[place]));
}

/** Return the first numbers of an embedding, by which its recording is recognised. */
export function markOf(embedding) {
  return embedding.slice(0, MARK_DIMS);
}

/** Tell if one of the recordings of a voice has this embedding; a voice of an earlier version has no marks. */
export function holds({ marks = [] }, embedding) {
  return marks.some((mark) => norm(mark.map((value, dim) => value - embedding[dim])) < SAME_RECORDING);
}

/** Return the operating points of all uses, for one recording against `numVoices` enrolled voices. */
export function pointsFor(model, numVoices) {
  return numVoices === 1 ? model.info.points : model.info.points.map((point) => identificationPoint(model, point, numVoices));
}

/** Return the point at which a stranger is identified as any of several voices with at most `point.max_far`. */
function identificationPoint(model, point, numVoices) {
  const { llr, far, frr } = model.error_rates;
  const share = point.max_far / numVoices;
  const lowest = Math.max(ERRORS_FOR_30_PER_CENT / point.num_nontarget, far.at(-1));
  const measured = Math.max(share, Math.min(point.max_far, lowest));
  const found = far.findIndex((rate) => rate <= measured);
  const threshold = Math.max(point.threshold, found < 0 ? -Infinity : llr[found]) + Math.log(measured / share);
  const place = Math.max(llr.findLastIndex((one) => one <= threshold), 0);
  const unknown = { far: null, far_interval: null, frr_interval: null };
  return { ...point, ...unknown, threshold, frr: frr[place], is_extrapolated: measured > share };
}

function product(a, b) {
  return a.reduce((sum, value, place) => sum + value * b[place], 0);
}

function norm(embedding) {
  return Math.sqrt(product(embedding, embedding));
}
