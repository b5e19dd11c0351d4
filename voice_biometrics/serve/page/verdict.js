/** A verdict on the page: decision, scale, error rates, warnings. */

import { element, icon } from "./dom.js";
import { describeVerdict, perCent, perCentRange, scaleOf, signed, useName } from "./voice.js";

const ROW_PX = 17; // between the names of two thresholds

/**
 * Return the section of a verdict.
 *
 * @param {"verify"|"identify"|"compare"} task
 * @param {import("./backend.js").Verdict} verdict
 * @param {import("./backend.js").Info} info
 */
export function verdictView(task, verdict, info) {
  const { title, sentence } = describeVerdict(task, verdict);
  const isAccepted = verdict.decision === "accepted";
  return element(
    "section",
    { class: `verdict ${verdict.decision}`, "aria-labelledby": "verdict-title" },
    element(
      "div",
      { class: "headline" },
      element("span", { class: "mark" }, icon(isAccepted ? "check" : "cross")),
      element("div", {}, element("h2", { id: "verdict-title", tabIndex: -1 }, title), element("p", {}, sentence)),
    ),
    scaleView(verdict),
    verdict.candidates.length > 1 && candidatesView(verdict.candidates),
    element("div", { class: "points" }, ...verdict.points.map((point) => pointView(point, verdict))),
    verdict.warnings.length > 0 && warningsView(verdict.warnings),
    element(
      "p",
      { class: "small" },
      `Measured on ${info.held_out.num_speakers} held-out speakers, with the 95 % interval over speakers. A false accept is a `,
      "stranger who is accepted; a false reject is the right speaker who is rejected. Replayed and synthetic voices are not detected.",
    ),
  );
}

/** Return a list of warnings. */
export function warningsView(warnings) {
  const items = warnings.map((warning) => element("li", {}, icon("warning"), element("span", {}, warning)));
  return element("ul", { class: "warnings", "aria-label": "Warnings" }, ...items);
}

function scaleView({ points, llr, use }) {
  const scale = scaleOf(points, llr);
  const at = (node, position) => {
    node.style.left = `${100 * position}%`;
    return node;
  };
  const marks = [...scale.marks].sort((a, b) => a.position - b.position);
  const decisive = marks.find((mark) => mark.use === use);
  const accepting = at(element("div", { class: "accepting" }), decisive.position);
  const track = element(
    "div",
    { class: "track" },
    accepting,
    ...scale.ticks.map(({ value, position }) => at(element("span", { class: "tick" }, String(value).replace("-", "−")), position)),
    ...marks.map((mark, row) => thresholdView(mark, row, mark === decisive, at)),
    at(element("span", { class: "needle" }, element("span", { class: "value" }, signed(llr))), scale.value),
  );
  track.style.marginTop = `${30 + ROW_PX * (marks.length - 1)}px`;
  const words = marks.map((mark) => `${useName(mark.use)} ${signed(mark.threshold)}`).join(", ");
  const label = `Log-likelihood ratio ${signed(llr)}; thresholds: ${words}`;
  return element("div", { class: "scale", role: "img", "aria-label": label }, element("p", {}, "log-likelihood ratio"), track);
}

/** Return the mark of a threshold, with its name to the left: each in a row of its own, so that none covers another. */
function thresholdView({ use, position }, row, isDecisive, at) {
  const mark = element("span", { class: `threshold ${isDecisive ? "decisive" : ""}` }, element("span", {}, useName(use)));
  [mark.style.top, mark.style.height] = [`${-8 - ROW_PX * row}px`, `${24 + ROW_PX * row}px`];
  return at(mark, position);
}

function candidatesView(candidates) {
  const rows = candidates.map(({ name, llr }) => element("li", {}, element("span", {}, name), element("span", {}, signed(llr))));
  return element("ol", { class: "candidates", "aria-label": "Best voices and their log-likelihood ratios" }, ...rows);
}

function pointView(point, { llr, use }) {
  const isAccepted = llr >= point.threshold;
  const rows = [
    ["Threshold", [signed(point.threshold)]],
    ["False accepts", point.far === null ? [`at most ${perCent(point.max_far)}`] : rate(point.far, point.far_interval)],
    ["False rejects", rate(point.frr, point.frr_interval)],
  ];
  return element(
    "section",
    { class: `point ${point.use === use ? "decisive" : ""}`, "aria-label": `Threshold for ${useName(point.use)}` },
    element(
      "header",
      {},
      element("h3", {}, useName(point.use)),
      element("span", { class: `badge ${isAccepted ? "yes" : "no"}` }, icon(isAccepted ? "check" : "cross"), isAccepted ? "accepts" : "rejects"),
    ),
    element("dl", {}, ...rows.map(([term, value]) => element("div", {}, element("dt", {}, term), element("dd", {}, ...value)))),
    point.use === use && element("p", { class: "small" }, "This threshold decides."),
    point.is_extrapolated && element("p", { class: "small" }, "Extrapolated beyond the measured range."),
  );
}

function rate(estimate, interval) {
  return [perCent(estimate), interval && element("span", {}, ` ${perCentRange(interval)}`)].filter(Boolean);
}
