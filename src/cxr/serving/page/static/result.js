/** The panel beside the image: what the model says of it. Knows nothing of requests. */

import { button, icon, make, percent } from "./dom.js";
import { explanation, headline, judge, listPoints, stateInWords, titled } from "./verdict.js";

const WHAT_A_MAP_IS =
  "A heat map shows where in the image the model found what speaks for a class. It does not outline disease, and a " +
  "map that looks right does not make the answer right.";

/**
 * What the panel says of an item.
 *
 * heat: whether the map is on, of which class, and what became of it; actions: retry, remove, toggleHeat, chooseClass,
 * askAgain.
 */
export function describe(item, facts, heat, actions) {
  if (item.state === "failed") return [showProblem(item, actions)];
  if (item.state !== "done") return [showProgress(item)];
  const { result } = item;
  return [
    ...result.warnings.map(showWarning),
    showHeadline(result, facts),
    showBars(result, facts),
    showHeat(item, heat, actions),
    showDetails(item),
  ];
}

function showProgress(item) {
  const words = stateInWords(item);
  const known = item.state === "sending" ? { value: item.share, max: 1 } : {};
  return make("div", { className: "working" },
    make("p", { textContent: `${words}${item.state === "looking" ? " …" : ""}` }),
    item.state === "waiting" ? null : make("progress", { ...known, "aria-label": words }),
  );
}

function showProblem(item, actions) {
  const { title, detail, ticket } = item.problem;
  return make("div", { className: "notice bad" },
    icon("warning"),
    make("div", {},
      make("h3", { textContent: title }),
      detail === "" ? null : make("p", { textContent: detail }),
      ticket === null ? null : make("p", { className: "note", textContent: `Request ${ticket}` }),
      make("div", { className: "actions" },
        button("Try again", () => actions.retry(item)), button("Remove", () => actions.remove(item), "small quiet")),
    ),
  );
}

function showWarning({ text }) {
  return make("div", { className: "notice look" }, icon("warning"), make("p", { textContent: text }));
}

function showHeadline(result, facts) {
  const positive = !result.abstained && Object.values(result.decisions).some(Boolean);
  const kind = result.abstained ? "unsure" : positive ? "positive" : "";
  return make("div", { className: `headline ${kind}` },
    make("h3", { textContent: headline(result, facts) }),
    make("p", { textContent: explanation(result, facts) }),
  );
}

function showBars(result, facts) {
  const points = listPoints(facts);
  const names = Object.keys(result.probs).sort((one, other) => result.probs[other] - result.probs[one]);
  return make("ul", { className: "bars", "aria-label": "Probability of each class" },
    names.map((name) => showBar(name, result, points[name]?.threshold, judge(name, result, facts))));
}

function showBar(name, result, threshold, words) {
  const fill = make("span", { className: "fill" });
  fill.style.width = `${100 * result.probs[name]}%`;
  const positive = result.decisions[name] === true && !result.abstained;
  return make("li", { className: positive ? "positive" : "" },
    make("span", { className: "class", textContent: titled(name) }),
    make("span", { className: "number", textContent: percent(result.probs[name]) }),
    make("span", { className: "track", "aria-hidden": "true" }, fill, threshold === undefined ? null : tick(threshold)),
    words === "" ? null : make("span", { className: "words", textContent: words }),
  );
}

function tick(threshold) {
  const mark = make("span", { className: "tick", title: `Operating point, ${percent(threshold)}` });
  mark.style.left = `${100 * threshold}%`;
  return mark;
}

function showHeat(item, heat, actions) {
  const names = Object.keys(item.result.probs);
  const choice = make("select", { id: "heat-class", onchange: (event) => actions.chooseClass(event.target.value) },
    names.map((name) => make("option", { value: name, textContent: titled(name), selected: name === heat.label })));
  const toggle = button(heat.on ? "Hide heat map" : "Show heat map", actions.toggleHeat);
  toggle.setAttribute("aria-pressed", heat.on);
  toggle.id = "heat-words";
  const state = heat.problem === null ? (heat.loading ? "Making the heat map …" : "") : whyNoMap(heat.problem);
  return make("section", { className: "heat" },
    make("h3", { textContent: "Heat map" }),
    make("div", { className: "actions" }, toggle, make("label", {}, "for ", choice)),
    make("p", { className: heat.problem === null ? "note" : "problem", role: "status", textContent: state }),
    heat.problem?.kind === "changed" && button("Ask again", () => actions.askAgain(item)),
    make("p", { className: "note", textContent: WHAT_A_MAP_IS }),
  );
}

/** The server's own sentence where it refused: the title speaks of files, and this one was read. */
const whyNoMap = ({ kind, detail, message }) => (kind === "refused" && detail !== "" ? detail : message);

function showDetails({ name, result, model, ticket }) {
  const [height, width] = result.shape;
  const rows = [
    ["File", name],
    ["Size", `${width} × ${height} pixels`],
    ["Time", `${result.seconds.toFixed(2)} s`],
    ["Model", `${model.name}, version ${model.version}`],
    ["Request", ticket],
  ];
  return make("details", { className: "details" },
    make("summary", { textContent: "Details" }),
    make("dl", {}, rows.map(([term, text]) => [
      make("dt", { textContent: term }), make("dd", { textContent: text })])),
  );
}
