/** The recorder: level meter and progress while speaking, then waveform, checks and playback before anything is sent. */

import { alertBox, announce, button, element, icon, svg } from "./dom.js";
import {
  Microphone, adviceWhileSpeaking, checkRecording, encodeWav, frameLevels, levelOf, loudLevel, meterHeight, seconds,
  speechSeconds, waveform,
} from "./voice.js";

const NUM_BARS = 72;
const GOAL_S = 3; // of speech: the ring around the button is full
const MAX_S = 30;
const DRAW_MS = 60;
const RING = 2 * Math.PI * 46;

/**
 * Make a recorder.
 *
 * @param {Object} options
 * @param {import("./backend.js").Info} options.info
 * @param {() => string|null} options.action  Label of the button that hands the recording over; null: it cannot be.
 * @param {(recording: {wav: Blob, samples: Float32Array}) => Promise<void>} options.onDone  May throw; the message is shown.
 * @param {() => boolean} [options.reviews]  False: hand over as soon as the speaker stops.
 * @param {() => void} [options.onStart]  A recording begins.
 * @param {{wav: Blob, samples: Float32Array}} [options.recording]  An earlier recording to review.
 */
export function createRecorder({ info, action, onDone, reviews = () => true, onStart = () => {}, recording = null }) {
  const root = element("div", { class: "recorder" });
  let microphone = null;
  let levels = [];
  let heights = [];
  let drawn = 0; // when, milliseconds

  function show(state, ...children) {
    root.dataset.state = state;
    root.replaceChildren(...children.flat().filter(Boolean));
  }

  function idle(message = "") {
    show("idle", bars([]), roundButton("microphone", "Record", start), hint("Press, speak, and press again."), message && alertBox(message));
  }

  async function start() {
    onStart();
    [levels, heights] = [[], []];
    root.dataset.frames = 0;
    microphone = new Microphone(info.sample_rate, hear, stop);
    show("starting", bars([]), roundButton("microphone", "Record", null, { disabled: true }), hint("Waiting for the microphone …"));
    try {
      await microphone.start();
    } catch (error) {
      idle(error.message);
      root.querySelector("button").focus();
      return;
    }
    if (!root.isConnected) {
      microphone.stop();
      return;
    }
    const stopButton = roundButton("stop", "Stop", stop, { onkeydown: (event) => event.key === "Escape" && cancel() });
    const meter = element(
      "div",
      { class: "meter", role: "meter", "aria-label": "Level", "aria-valuemin": -60, "aria-valuemax": 0, "aria-valuenow": -60 },
      element("div", {}),
    );
    show("recording", bars([]), meter, stopButton, hint("Speak now"), element("p", { class: "advice", role: "status" }));
    stopButton.focus();
    root.scrollIntoView({ block: "nearest" });
    announce("Recording");
  }

  function hear(block, rate) {
    if (root.dataset.state !== "recording") return;
    if (!root.isConnected) {
      microphone.stop();
      return;
    }
    levels.push(...frameLevels(block, rate));
    root.dataset.frames = levels.length; // for tests, which record until they are enough
    heights.push(meterHeight(levelOf(block)) ** 1.7); // quiet and loud parts look different
    if (heights.length * block.length > MAX_S * rate) stop();
    else if (performance.now() - drawn > DRAW_MS) draw();
  }

  /** Draw what was heard last; less often than it is heard, which is 47 times a second. */
  function draw() {
    drawn = performance.now();
    const level = Math.max(-60, Math.round(loudLevel(levels.slice(-5)))); // of 0.1 s
    fill(root.querySelector(".bars"), heights.slice(-NUM_BARS));
    const meter = root.querySelector(".meter");
    meter.setAttribute("aria-valuenow", level);
    meter.firstChild.style.width = `${100 * meterHeight(level)}%`;
    const speech = speechSeconds(levels);
    root.querySelector(".ring-filled").setAttribute("stroke-dashoffset", RING * (1 - Math.min(1, speech / GOAL_S)));
    root.querySelector(".hint").textContent = `Speak now · ${seconds(speech)}`;
    const advice = adviceWhileSpeaking(levels);
    const shown = root.querySelector(".advice");
    if (shown.textContent !== advice) shown.textContent = advice;
  }

  function cancel() {
    microphone.stop();
    idle();
    root.querySelector("button").focus();
  }

  async function stop() {
    if (root.dataset.state !== "recording") return;
    root.dataset.state = "stopping";
    const { samples, clipped } = microphone.stop();
    recording = { samples, clipped, wav: new Blob([encodeWav(samples, info.sample_rate)], { type: "audio/wav" }) };
    const { checks } = checkRecording(samples, info.sample_rate, info, clipped);
    if (reviews() || checks.some((check) => check.isFatal)) review();
    else await handOver();
  }

  function review(problem = null) {
    const { samples, clipped, wav } = recording;
    const { speechSeconds: speech, level, checks } = checkRecording(samples, info.sample_rate, info, clipped);
    const label = action();
    const isUsable = label && !checks.some((check) => check.isFatal);
    const again = button("quiet", [icon("again"), "Record again"], start);
    const use = button("primary", label ?? "", handOver);
    show(
      "review",
      bars(waveform(samples, NUM_BARS)),
      element("p", { class: "facts" }, `${seconds(speech)} without pauses`, element("span", {}, `level ${Math.round(level)} dB`.replace("-", "−"))),
      checks.map((check) => alertBox(check.message)),
      problem,
      element("div", { class: "row centred" }, playButton(wav), again, isUsable && use),
    );
    (isUsable && !problem ? use : again).focus();
    announce([`Recorded ${seconds(speech)} without pauses.`, ...checks.map((check) => check.message)].join(" "));
  }

  async function handOver() {
    const waiting = element("p", { class: "hint waiting", role: "status" }, "Listening …");
    show("sending", bars(waveform(recording.samples, NUM_BARS)), waiting);
    try {
      await onDone(recording);
    } catch (error) {
      if (!root.isConnected) return;
      review(alertBox(error.message));
      error.field?.focus(); // where the user can mend it
    }
  }

  if (recording) setTimeout(review);
  idle();
  return root;
}

function hint(text) {
  return element("p", { class: "hint" }, text);
}

/** Return the round button, with the ring that fills while somebody speaks. */
function roundButton(name, label, onclick, properties = {}) {
  const circle = { cx: 50, cy: 50, r: 46 };
  const filled = svg("circle", { ...circle, class: "ring-filled", "stroke-dasharray": RING, "stroke-dashoffset": RING });
  const ring = svg("svg", { viewBox: "0 0 100 100", class: "ring", "aria-hidden": "true" }, svg("circle", circle), filled);
  return element("button", { type: "button", class: `round ${name}`, "aria-label": label, onclick, ...properties }, ring, icon(name));
}

function bars(heights) {
  const drawing = svg("svg", { class: "bars", viewBox: `0 0 ${4 * NUM_BARS} 100`, preserveAspectRatio: "none", role: "img" });
  drawing.setAttribute("aria-label", heights.length ? "Waveform of the recording" : "Waveform, empty");
  for (let bar = 0; bar < NUM_BARS; bar++) drawing.append(svg("rect", { x: 4 * bar + 1, width: 2, rx: 1 }));
  fill(drawing, heights);
  return drawing;
}

/** Draw heights, 0 to 1, from the right. */
function fill(drawing, heights) {
  [...drawing.children].forEach((bar, place) => {
    const height = Math.max(2, 96 * (heights.at(place - NUM_BARS) ?? 0));
    bar.setAttribute("y", 50 - height / 2);
    bar.setAttribute("height", height);
  });
}

/** Return a button that plays a recording. */
export function playButton(wav) {
  const player = new Audio();
  const label = element("span", {}, "Play");
  const made = button("quiet", [icon("play"), label], () => {
    if (player.paused) {
      if (!player.src) player.src = URL.createObjectURL(wav);
      player.play().catch(() => (label.textContent = "Cannot be played"));
    } else {
      player.pause();
      player.currentTime = 0;
    }
  });
  const change = (name, words) => {
    made.firstChild.replaceWith(icon(name));
    label.textContent = words;
  };
  player.addEventListener("play", () => change("stop", "Stop"));
  for (const kind of ["pause", "ended"]) player.addEventListener(kind, () => change("play", "Play"));
  return made;
}
