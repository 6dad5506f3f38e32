// Elements, and numbers as people read them. Text goes into the page as text nodes alone.

/** An element with classes, attributes and children (elements, or text). */
export function el(tag, { className = "", ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}

/** Put children in the place of those that are there, where they differ in text or shape. */
export function refill(parent, ...children) {
  const fresh = document.createElement(parent.tagName);
  fresh.append(...children);
  if (fresh.innerHTML !== parent.innerHTML) parent.replaceChildren(...fresh.childNodes);
}

/** The text of an element, touched only where it changes. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const PREFIXES = [["G", 1e9], ["M", 1e6], ["k", 1e3], ["", 1], ["m", 1e-3], ["u", 1e-6], ["n", 1e-9], ["p", 1e-12]];

/** A number with its unit and a prefix, "12.5 uS"; "-" for none. */
export function quantity(value, unit, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  if (!Number.isFinite(value)) return value > 0 ? "over range" : "could not be read";
  const rounded = Number(Math.abs(value).toPrecision(digits));
  if (rounded < 1e-15) return `0 ${unit}`.trim();
  const [prefix, factor] = PREFIXES.find(([, size]) => rounded >= size) ?? PREFIXES.at(-1);
  return `${Number((value / factor).toPrecision(digits))} ${prefix}${unit}`.trim();
}

/** A duration: "12.3 s", "4 min 05 s", "3 h 20 min", "12 d 3 h"; "-" for none. */
export function duration(seconds, digits = 3) {
  if (!(seconds >= 60 && seconds < Infinity)) return quantity(seconds, "s", digits);
  const whole = Math.round(seconds);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A whole number in groups, "12 345". */
export function count(number) {
  return Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, "\u00a0");
}

/** "1 pulse", "12 pulses". */
export function counted(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

/** The value of a CSS variable of the page. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
