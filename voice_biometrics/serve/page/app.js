/** The page: tabs, and a panel for each task. `start(backend)` runs it; see backend.js for what a backend is. */

import { alertBox, announce, button, element, icon } from "./dom.js";
import { isName } from "./decisions.js";
import { createRecorder, playButton } from "./recorder.js";
import { verdictView, warningsView } from "./verdict.js";
import { DIGITS_NOTE, chooseDigits, chooseSentences, counted, seconds } from "./voice.js";

const TASKS = {
  verify: ["Verify", verifyPanel],
  identify: ["Identify", identifyPanel],
  enrol: ["Enrol", enrolPanel],
  compare: ["Compare", comparePanel],
  voices: ["Voices", voicesPanel],
};
const NUM_SENTENCES = 3;
const NUM_DIGITS = 6;
const MAX_NAME = 100;

const page = { backend: null, info: null, voices: [], task: null, listens: true };
const at = (id) => document.getElementById(id);

/** Run the page with a backend. */
export async function start(backend) {
  page.backend = backend;
  at("panel").replaceChildren(element("p", { class: "hint", role: "status" }, "Loading the model …"));
  try {
    [page.info, page.voices] = await Promise.all([backend.info(), backend.list()]);
  } catch (error) {
    const retry = button("primary", "Try again", () => start(backend));
    at("panel").replaceChildren(alertBox(error.message, retry));
    return;
  }
  const { model, storage } = page.info;
  at("model").textContent = `${model.name} ${model.version}`;
  at("footer").replaceChildren(
    element("p", {}, `Voices are kept ${storage}. Recordings are never stored.`),
    element("p", {}, "A recording or an imitation of a voice may be accepted: this is not liveness detection."),
  );
  makeTabs();
  addEventListener("focus", refresh);
  open(page.voices.length ? "verify" : "enrol");
}

function makeTabs() {
  const tabs = Object.entries(TASKS).map(([task, [label]]) =>
    element("button", { type: "button", role: "tab", id: `tab-${task}`, "aria-controls": "panel", onclick: () => open(task) }, label),
  );
  at("tabs").replaceChildren(...tabs);
  at("tabs").onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const names = Object.keys(TASKS);
    if (step) open(names[(names.indexOf(page.task) + step + names.length) % names.length], true);
  };
}

/** Take over what another tab, or a command, has enrolled or forgotten. */
async function refresh() {
  const before = JSON.stringify(page.voices);
  page.voices = await page.backend.list().catch(() => page.voices);
  if (page.task === "voices" && JSON.stringify(page.voices) !== before) open("voices");
}

/** Show the panel of a task; `details` are passed to it. */
function open(task, focusesTab = false, details = {}) {
  page.task = task;
  for (const tab of at("tabs").children) {
    tab.setAttribute("aria-selected", tab.id === `tab-${task}`);
    tab.tabIndex = tab.id === `tab-${task}` ? 0 : -1;
  }
  at("panel").setAttribute("aria-labelledby", `tab-${task}`);
  at("panel").dataset.task = task;
  const hadFocus = at("panel").contains(document.activeElement);
  at("panel").replaceChildren(...TASKS[task][1](details));
  if (focusesTab) at(`tab-${task}`).focus();
  else if (hadFocus) at("panel").focus(); // the button that led here is gone
}

function heading(title, lead) {
  return element("div", { class: "heading" }, element("h1", {}, title), element("p", {}, lead));
}

/** Show a verdict below a form, and lead to it. */
function showVerdict(place, task, verdict, again) {
  const view = verdictView(task, verdict, page.info);
  place.replaceChildren(view, element("div", { class: "row centred" }, again));
  view.querySelector("h2").focus({ preventScroll: true });
  place.scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  announce(view.querySelector("h2").textContent);
}

function empty(title, words) {
  const enrol = button("primary", "Enrol a voice", () => open("enrol"));
  return element("div", { class: "card empty" }, icon("person"), element("h2", {}, title), element("p", {}, words), enrol);
}

/** Return a card with digits to say and a recorder; `decide(wav)` gives the verdict. */
function digitsCard(task, action, decide, result) {
  const prompt = element("p", { class: "prompt digits", "aria-label": "Say these digits" });
  const change = () => (prompt.textContent = chooseDigits(NUM_DIGITS).join(" "));
  const listens = element("input", { type: "checkbox", id: "listens", checked: page.listens });
  listens.addEventListener("change", () => (page.listens = listens.checked));
  const holder = element("div", {});
  const renew = () => {
    change();
    result.replaceChildren();
    const recorder = createRecorder({
      info: page.info,
      action: () => action,
      reviews: () => page.listens,
      onStart: () => result.replaceChildren(),
      onDone: async ({ wav }) => {
        const verdict = await decide(wav);
        holder.replaceChildren();
        card.hidden = true;
        showVerdict(result, task, verdict, button("primary", "Speak again", speakAgain));
      },
    });
    card.hidden = false;
    holder.replaceChildren(recorder);
  };
  const speakAgain = () => {
    renew();
    holder.querySelector("button").focus();
  };
  const card = element(
    "section",
    { class: "card", "aria-label": "Recording" },
    element("p", { class: "label" }, "Say these digits"),
    prompt,
    element("p", { class: "small centred" }, DIGITS_NOTE),
    holder,
    element("label", { class: "choice", for: "listens" }, listens, "Listen before sending"),
  );
  renew();
  return { card, renew };
}

function verifyPanel({ name }) {
  const title = heading("Verify a voice", "Choose an enrolled voice, and speak to verify that it is yours.");
  if (!page.voices.length) return [title, empty("No voice is enrolled yet", "Enrol one first: three short sentences are enough.")];
  const options = page.voices.map((voice) => element("option", { value: voice.name, selected: voice.name === name }, voice.name));
  const result = element("div", { class: "result" });
  const chosen = element("select", { id: "name", onchange: () => renew() }, ...options);
  const { card, renew } = digitsCard("verify", "Verify voice", (wav) => page.backend.verify(chosen.value, wav), result);
  return [title, element("div", { class: "field" }, element("label", { for: "name" }, "Enrolled voice"), chosen), card, result];
}

function identifyPanel() {
  const title = heading("Who is speaking?", "Speak. The page compares your voice with all enrolled voices.");
  if (!page.voices.length) return [title, empty("No voice is enrolled yet", "Enrol the voices to choose from first.")];
  const result = element("div", { class: "result" });
  const { card } = digitsCard("identify", "Find speaker", (wav) => page.backend.identify(wav), result);
  return [title, card, result];
}

function enrolPanel() {
  const sentences = chooseSentences(NUM_SENTENCES);
  const recordings = new Array(NUM_SENTENCES).fill(null);
  const problems = new Set();
  const nameInput = element("input", {
    id: "name", type: "text", maxLength: MAX_NAME, autocomplete: "off", spellcheck: false, placeholder: "for example, Anna",
    "aria-describedby": "name-problem", oninput: () => nameProblem(""),
  });
  const problem = element("p", { class: "problem", id: "name-problem", role: "alert" });
  const steps = element("ol", { class: "steps", "aria-label": "Sentences" });
  const prompt = element("p", { class: "prompt" });
  const holder = element("div", {});
  const messages = element("div", {});
  const result = element("div", { class: "result" });

  function nameProblem(words) {
    problem.textContent = words;
    nameInput.setAttribute("aria-invalid", Boolean(words));
  }

  function checkedName() {
    const name = nameInput.value.trim().normalize("NFC");
    if (!name) nameProblem("Give the voice a name.");
    else if (!isName(name)) nameProblem("Use 1 to 100 visible characters: a line break, joined emoji or an invisible character cannot be stored.");
    else if (page.voices.some((voice) => voice.name === name)) nameProblem(`${name} is already enrolled. Choose another name, or forget that voice first.`);
    else return name;
    throw Object.assign(new Error("Correct the name above."), { field: nameInput });
  }

  function show(step) {
    steps.replaceChildren(...sentences.map((_, place) => stepView(place, place === step)));
    prompt.textContent = sentences[step];
    const isLast = recordings.every((recording, place) => recording || place === step);
    holder.replaceChildren(
      createRecorder({
        info: page.info,
        action: () => (problems.has(step) ? null : isLast ? "Enrol voice" : "Next sentence"),
        recording: recordings[step],
        onStart: () => {
          problems.delete(step);
          messages.replaceChildren();
        },
        onDone: async (recording) => {
          recordings[step] = recording;
          const name = checkedName();
          if (isLast) await enrol(name, false);
          else show(recordings.findIndex((one) => !one));
        },
      }),
    );
  }

  function stepView(place, isCurrent) {
    const state = problems.has(place) ? "again" : recordings[place] ? "done" : "open";
    const words = { again: "record again", done: "recorded", open: "not recorded" }[state];
    const mark = { again: icon("again"), done: icon("check"), open: String(place + 1) }[state];
    const properties = { type: "button", class: state, onclick: () => show(place), "aria-label": `Sentence ${place + 1}, ${words}` };
    if (isCurrent) properties["aria-current"] = "step";
    return element("li", {}, element("button", properties, mark));
  }

  async function enrol(name, keepAll) {
    messages.replaceChildren();
    try {
      const done = await page.backend.enrol(name, recordings.map((recording) => recording.wav), keepAll);
      page.voices = await page.backend.list();
      enrolled(done);
    } catch (error) {
      const [, faulty] = error.message.match(/^recording (\d+): /) ?? [];
      if (error.kind === "input" && faulty) {
        problems.add(faulty - 1);
        show(faulty - 1);
        messages.replaceChildren(alertBox(error.message));
        return;
      }
      if (error.kind !== "another_speaker") throw error;
      const first = error.recordings[0];
      error.recordings.forEach((place) => problems.add(place));
      show(first);
      const which = error.recordings.map((place) => place + 1).join(" and ");
      const fault = error.recordings.length > 1 ? `Recordings ${which} sound like different speakers.` : `Recording ${which} sounds like a different speaker.`;
      const enrolAnyway = () => enrol(name, true).catch((refused) => messages.replaceChildren(alertBox(refused.message)));
      messages.replaceChildren(alertBox(`${fault} Nothing was enrolled: record again.`, button("quiet", "Enrol anyway", enrolAnyway)));
    }
  }

  function enrolled(done) {
    form.hidden = true;
    const view = element(
      "section",
      { class: "verdict accepted" },
      element(
        "div",
        { class: "headline" },
        element("span", { class: "mark" }, icon("check")),
        element(
          "div",
          {},
          element("h2", { tabIndex: -1 }, `${done.name} is enrolled`),
          element("p", {}, `${counted(done.num_recordings, "recording")}, ${seconds(done.speech_s)} of speech.`),
        ),
      ),
      done.warnings.length > 0 && warningsView(done.warnings),
    );
    const verify = button("primary", "Verify now", () => open("verify", false, { name: done.name }));
    result.replaceChildren(view, element("div", { class: "row centred" }, verify, button("quiet", "Enrol another voice", () => open("enrol"))));
    view.querySelector("h2").focus();
    announce(`${done.name} is enrolled`);
  }

  const form = element(
    "div",
    { class: "stack" },
    element("div", { class: "field" }, element("label", { for: "name" }, "Name"), nameInput, problem),
    element("section", { class: "card", "aria-label": "Recording" }, steps, element("p", { class: "label" }, "Read this aloud"), prompt, messages, holder),
  );
  show(0);
  return [heading("Enrol a voice", "Read three sentences in your normal voice. It takes half a minute."), form, result];
}

function comparePanel() {
  const files = [null, null];
  const result = element("div", { class: "result" });
  const messages = element("div", {});
  const compare = button("primary", "Compare recordings", decide, { disabled: true });

  function zone(place) {
    const label = `${["First", "Second"][place]} recording`;
    const input = element("input", { type: "file", accept: "audio/*,.flac,.ogg,.opus,.wav,.mp3", class: "visually-hidden", "aria-label": label });
    const content = element("div", { class: "dropped" });
    const root = element("div", { class: "zone" }, element("label", {}, input, icon("file"), element("span", {}, label), content));
    const take = (file) => {
      if (!file) return;
      files[place] = file;
      content.replaceChildren(element("b", {}, file.name), element("span", {}, sizeOf(file)));
      root.querySelector(".button")?.remove();
      root.append(playButton(file));
      root.classList.add("full");
      messages.replaceChildren();
      result.replaceChildren();
      compare.disabled = !(files[0] && files[1]);
      announce(`${label}: ${file.name}`);
    };
    content.append("Drop a file, or choose one");
    input.addEventListener("change", () => take(input.files[0]));
    root.addEventListener("dragover", (event) => {
      event.preventDefault();
      root.classList.add("over");
    });
    root.addEventListener("dragleave", () => root.classList.remove("over"));
    root.addEventListener("drop", (event) => {
      event.preventDefault();
      root.classList.remove("over");
      const [first, second] = event.dataTransfer.files;
      take(first);
      if (second) zones[1 - place].take(second);
    });
    return { root, take };
  }

  async function decide() {
    compare.disabled = true;
    try {
      const verdict = await page.backend.compare(...files);
      messages.replaceChildren();
      showVerdict(result, "compare", verdict, button("quiet", "Compare other recordings", () => open("compare")));
    } catch (error) {
      result.replaceChildren();
      messages.replaceChildren(alertBox(error.message));
    }
    compare.disabled = false;
  }

  const zones = [zone(0), zone(1)];
  const card = element(
    "section",
    { class: "card" },
    element("div", { class: "zones" }, ...zones.map(({ root }) => root)),
    messages,
    element("div", { class: "row centred" }, compare),
  );
  return [heading("Are these the same speaker?", "Drop two recordings: WAV, FLAC, OGG, Opus or MP3, up to a minute each."), card, result];
}

function voicesPanel() {
  const title = heading("Enrolled voices", `They are kept ${page.info.storage}.`);
  if (!page.voices.length) return [title, empty("No voice is enrolled yet", "A voice is stored as 192 numbers, not as a recording.")];
  const messages = element("div", {});
  const list = element("ul", { class: "card voices" }, ...page.voices.map((voice) => voiceView(voice, messages)));
  return [title, messages, list, element("div", { class: "row centred" }, button("primary", "Enrol a voice", () => open("enrol")))];
}

function voiceView(voice, messages) {
  const actions = element("div", { class: "row" });
  const facts = `${counted(voice.num_recordings, "recording")}, ${seconds(voice.speech_s)} of speech`;
  const detail = element("span", {}, facts);
  const root = element(
    "li",
    {},
    element("span", { class: "avatar", "aria-hidden": "true" }, [...voice.name][0].toUpperCase()),
    element("div", { class: "who" }, element("b", {}, voice.name), detail),
    actions,
  );
  const ask = () => {
    const keep = button("quiet", "Keep", offer);
    actions.replaceChildren(button("danger", "Forget", forget, { "aria-label": `Forget ${voice.name} for good` }), keep);
    detail.textContent = "Forget this voice? This cannot be undone.";
    keep.focus();
    announce(`Forget ${voice.name}? This cannot be undone.`);
  };
  const offer = () => {
    detail.textContent = facts;
    actions.replaceChildren(button("quiet", "Forget …", ask, { "aria-label": `Forget ${voice.name}` }));
  };
  async function forget() {
    try {
      await page.backend.forget(voice.name);
      page.voices = await page.backend.list();
      open("voices");
      announce(`${voice.name} is forgotten`);
    } catch (error) {
      messages.replaceChildren(alertBox(error.message));
    }
  }
  offer();
  return root;
}

function sizeOf(file) {
  return file.size < 1e6 ? `${Math.ceil(file.size / 1e3)} kB` : `${(file.size / 1e6).toFixed(1)} MB`;
}
