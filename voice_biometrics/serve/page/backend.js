/**
 * The interface between the page and what answers it. `app.js` knows nothing else of a backend:
 *
 *     import { start } from "./app.js";
 *     start(new HttpBackend());          // main.js: backend-http.js asks verify.py serve
 *
 * A backend is an object with the methods of `Backend` below. Rates are fractions, log-likelihood ratios (LLR) natural
 * logarithms, durations seconds. Every method returns a promise, and rejects with a `BackendError`.
 *
 * A recording is a Blob: 16-bit mono WAV at `info.sampleRate` from `voice.js`, or a File of any format that was dropped
 * on the page (compare only; its `name` appears in messages).
 *
 * @typedef {Object} Point  The threshold of a use, and the error rates measured at it.
 * @property {string} use  "smart_speaker", "door", or "far 0.01" for a limit chosen by the user.
 * @property {number} threshold  LLR; accepted at or above it.
 * @property {number} max_far  The limit on the false-accept rate that the threshold was chosen for.
 * @property {number|null} far  Measured; null for an identification among several voices, where `max_far` is a bound.
 * @property {number} frr  Measured.
 * @property {[number, number]|null} far_interval  95 % over speakers.
 * @property {[number, number]|null} frr_interval
 * @property {boolean} is_extrapolated  The threshold lies beyond what could be measured.
 *
 * @typedef {Object} Info
 * @property {{name: string, version: string, fingerprint: string}} model
 * @property {string} use  The use of `points` that decides.
 * @property {Point[]} points  Of a single comparison; the first is not special.
 * @property {number} sample_rate  Hz.
 * @property {number} min_speech_s  Less speech is refused.
 * @property {number} sure_speech_s  Less speech gives a warning.
 * @property {number} max_duration_s  Of a recording.
 * @property {{description: string, num_speakers: number}} held_out  The speakers behind the error rates.
 * @property {string} storage  Where the voices are kept, in words: "in voices.db on this computer".
 *
 * @typedef {Object} Verdict  Of verify, identify and compare.
 * @property {"accepted"|"rejected"} decision
 * @property {string|null} name  The enrolled voice: claimed (verify) or found (identify, null: nobody).
 * @property {number} llr  Of the comparison; of the best voice for identify.
 * @property {string} use  The use that decided.
 * @property {Point[]} points  The thresholds of all uses for this decision.
 * @property {{name: string, llr: number}[]} candidates  Of identify, the best first; otherwise empty.
 * @property {string[]} warnings  Reasons why the answer is less reliable, a sentence each.
 *
 * @typedef {Object} Enrolment
 * @property {string} name
 * @property {number} num_recordings
 * @property {number} speech_s
 * @property {string[]} warnings
 *
 * @typedef {Object} Voice
 * @property {string} name
 * @property {number} num_recordings
 * @property {number} speech_s
 *
 * @typedef {Object} Backend
 * @property {() => Promise<Info>} info
 * @property {(name: string, recordings: Blob[], keepAll?: boolean) => Promise<Enrolment>} enrol  Refuses recordings
 *     that sound like several speakers (kind "another_speaker") unless `keepAll`; nothing is stored then.
 * @property {(name: string, recording: Blob) => Promise<Verdict>} verify
 * @property {(recording: Blob) => Promise<Verdict>} identify
 * @property {(a: Blob, b: Blob) => Promise<Verdict>} compare
 * @property {() => Promise<Voice[]>} list  Sorted by name.
 * @property {(name: string) => Promise<void>} forget
 */

/**
 * Why there is no answer. `kind`:
 *
 * - "input": the recording, name or file cannot be used; the message says why and what to do.
 * - "another_speaker": `recordings` (positions from 0) sound like another speaker than the others.
 * - "busy": too many requests at once; try again.
 * - "unreachable": the server does not answer, or the model could not be loaded.
 * - "fault": a fault of the program.
 */
export class BackendError extends Error {
  /**
   * @param {string} kind
   * @param {string} message  A sentence for the user; shown as text, never as HTML.
   * @param {number[]} recordings
   */
  constructor(kind, message, recordings = []) {
    super(message);
    this.name = "BackendError";
    this.kind = kind;
    this.recordings = recordings;
  }
}
