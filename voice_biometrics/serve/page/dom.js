/** Elements without HTML strings: text from others is only ever text. */

const SVG = "http://www.w3.org/2000/svg";
const ICONS = {
  microphone: "M12 15a3.5 3.5 0 0 0 3.5-3.5v-5a3.5 3.5 0 0 0-7 0v5A3.5 3.5 0 0 0 12 15ZM5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21",
  stop: "M7.5 7.5h9v9h-9z",
  play: "M8.5 5.5v13l10-6.5z",
  pause: "M8 6v12M16 6v12",
  again: "M4.5 12a7.5 7.5 0 1 0 2.4-5.5M4.5 4.5v4h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M7 7l10 10M17 7L7 17",
  warning: "M12 4.5l8.5 15h-17zM12 10.5v4M12 17v.2",
  file: "M7 3.5h6.5L18 8v12.5H7zM13 3.5V8.5H18",
  person: "M12 11.5a3.75 3.75 0 1 0 0-7.5 3.75 3.75 0 0 0 0 7.5ZM5 20c.6-3.6 3.4-5.5 7-5.5s6.4 1.9 7 5.5",
};

/**
 * Return an element. Properties that begin with "on" are listeners, `class` and names with "-" or "role" attributes, the
 * others properties of the element; children are elements or text, false and null are left out.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (/-|^(class|role|for|list)$/.test(name)) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.flat().filter((child) => child !== null && child !== false && child !== undefined));
  return made;
}

/** Return an SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Return an icon that screen readers skip. */
export function icon(name) {
  return svg("svg", { viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

/** Return a button; `kind` is "primary", "quiet" or "danger". */
export function button(kind, label, onclick, properties = {}) {
  return element("button", { type: "button", class: `button ${kind}`, onclick, ...properties }, ...[label].flat());
}

/** Return a box with a message that screen readers read at once, and buttons. */
export function alertBox(message, ...buttons) {
  return element(
    "div",
    { class: "alert", role: "alert" },
    icon("warning"),
    element("div", {}, element("p", {}, message), buttons.length > 0 && element("div", { class: "row" }, ...buttons)),
  );
}

/** Tell screen readers what has changed. */
export function announce(message) {
  document.getElementById("announcer").textContent = message;
}
