/** Small things about elements and words. Knows nothing of this page. */

/** The element with this id. */
export const find = (id) => document.getElementById(id);

/** A new element with properties (or, with a dash, attributes) and children; null and false children are left out. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== false));
  return element;
}

/** A symbol of index.html, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** A button with words. */
export function button(words, onclick, className = "small") {
  return make("button", { type: "button", className, textContent: words, onclick });
}

/** A button with a symbol, and words for those who do not see it. */
export function iconButton(symbol, words, onclick) {
  const properties = { type: "button", className: "quiet icon", title: words, onclick, "aria-label": words };
  return make("button", properties, icon(symbol));
}

/** A probability in words: 0.9512 -> "95.1%". What is not quite 0 or 1 is not called so. */
export function percent(share) {
  const value = 100 * share;
  if (share > 0 && value < 0.1) return "< 0.1%";
  if (share < 1 && value > 99.9) return "> 99.9%";
  return `${value.toFixed(1)}%`;
}

/** "1 image", "3 images". */
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

/** A sentence: a capital at the start, a stop at the end. */
export function sentence(words) {
  const text = String(words).trim();
  return text === "" ? "" : text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Class names as they are read: "left_pleural_effusion" -> "left pleural effusion". */
export const spoken = (name) => name.replaceAll("_", " ");

export const capital = (words) => (words === "" ? "" : words[0].toUpperCase() + words.slice(1));
