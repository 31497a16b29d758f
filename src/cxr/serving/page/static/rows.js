/** The rows of the work list. Knows nothing of requests and of what is shown beside it. */

import { icon, iconButton, make } from "./dom.js";
import { stateInWords } from "./verdict.js";

export class Rows {
  #list;
  #actions;
  #rows = new Map();

  /** list: the element; actions: choose(item), retry(item), remove(item). */
  constructor(list, actions) {
    [this.#list, this.#actions] = [list, actions];
    list.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Make the rows those of the items, the chosen one marked. */
  show(items, chosen) {
    for (const [item, row] of this.#rows) {
      if (items.includes(item)) continue;
      row.remove();
      this.#rows.delete(item);
    }
    items.filter((item) => !this.#rows.has(item)).forEach((item) => this.#append(item));
    items.forEach((item) => this.update(item, item === chosen));
  }

  /** Bring one row up to date; only what is new is touched, so that the focus stays. */
  update(item, isChosen) {
    const row = this.#rows.get(item);
    if (row === undefined) return;
    const [words, flagged] = [stateInWords(item), item.result !== null && item.result.warnings.length > 0];
    const kind = describeKind(item);
    row.className = `row ${kind}${isChosen ? " chosen" : ""}`;
    setText(row.querySelector(".state"), words);
    row.querySelector(".flag").hidden = !flagged;
    row.querySelector(".retry").hidden = item.state !== "failed";
    const choose = row.querySelector(".choose-row");
    if (isChosen) choose.setAttribute("aria-current", "true");
    else choose.removeAttribute("aria-current");
    choose.tabIndex = isChosen ? 0 : -1;
    row.querySelector(".share").style.width = `${item.state === "sending" ? 100 * item.share : 0}%`;
  }

  /** Put the focus on the row of an item. */
  focus(item) {
    this.#rows.get(item)?.querySelector(".choose-row").focus({ preventScroll: true });
  }

  /** Scroll the row of an item into the list's window, and nothing else. */
  reveal(item) {
    const row = this.#rows.get(item);
    if (row === undefined) return;
    const [frame, place] = [this.#list.getBoundingClientRect(), row.getBoundingClientRect()];
    if (place.top < frame.top) this.#list.scrollTop -= frame.top - place.top;
    if (place.bottom > frame.bottom) this.#list.scrollTop += place.bottom - frame.bottom;
  }

  #append(item) {
    const choose = make("button", { type: "button", className: "choose-row", onclick: () => this.#actions.choose(item) },
      make("span", { className: "dot", "aria-hidden": "true" }),
      make("span", { className: "file", textContent: item.name, title: item.name }),
      make("span", { className: "state" }),
      make("span", { className: "flag", hidden: true }, icon("warning"), make("span", { className: "hidden", textContent: "with warnings" })),
    );
    const retry = iconButton("again", `Try ${item.name} again`, () => this.#actions.retry(item));
    retry.classList.add("retry");
    const remove = iconButton("close", `Remove ${item.name}`, () => this.#actions.remove(item));
    const row = make("li", {}, make("span", { className: "share", "aria-hidden": "true" }), choose, retry, remove);
    this.#rows.set(item, row);
    this.#list.append(row);
  }

  #press(event) {
    const items = [...this.#rows.keys()];
    const place = items.findIndex((item) => this.#rows.get(item).contains(document.activeElement));
    const goal = { ArrowUp: place - 1, ArrowDown: place + 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === "Delete" && place >= 0) this.#actions.remove(items[place]);
    else if (goal !== undefined && items[goal] !== undefined) {
      this.#actions.choose(items[goal]);
      this.focus(items[goal]);
    } else return;
    event.preventDefault();
  }
}

function describeKind(item) {
  if (item.state !== "done") return item.state;
  if (item.result.abstained) return "done unsure";
  return Object.values(item.result.decisions).some(Boolean) ? "done positive" : "done";
}

function setText(element, words) {
  if (element.textContent !== words) element.textContent = words;
}
