/** The drawer with what is known of the model. Knows nothing of images. */

import { make, percent, spoken } from "./dom.js";
import { listPoints, titled } from "./verdict.js";

const METRICS = {
  auroc: "AUROC",
  average_precision: "Average precision",
  sensitivity: "Sensitivity",
  specificity: "Specificity",
  ppv: "Positive predictive value",
  npv: "Negative predictive value",
  balanced_accuracy: "Balanced accuracy",
  accuracy: "Accuracy",
};
const PARTS = { test: "test images", val: "validation images" };

/** What the drawer holds, of the answer of `/v1/model`. */
export function describeModel(facts) {
  return [
    make("p", { className: "notice look", textContent: "Research use only. Not a medical device. Do not base the care of a patient on it." }),
    makeTable([
      ["Name", facts.name],
      ["Version", facts.version],
      [facts.multilabel ? "Findings" : "Classes", facts.class_names.map(spoken).join(", ")],
      ["Probabilities", facts.calibrated ? "calibrated on validation images" : "never calibrated: read them as an order"],
      ["Answers", describeAbstention(facts)],
      ["Training data", facts.data_fingerprint === null ? "not recorded" : `fingerprint ${facts.data_fingerprint.slice(0, 12)}`],
    ]),
    ...describePoints(facts),
    ...describeMetrics(facts.metrics),
    ...(facts.card === null ? [] : [make("h3", { textContent: "Model card" }), ...readCard(facts.card)]),
  ];
}

function describeAbstention({ abstention }) {
  return abstention === null ? "always" : `only where its highest probability is at least ${percent(abstention.threshold)}`;
}

function describePoints(facts) {
  const points = Object.entries(listPoints(facts));
  if (points.length === 0) return [];
  const texts = points.map(([name, point]) => make("li", { textContent: describePoint(name, point) }));
  return [make("h3", { textContent: "Operating point" }), make("ul", {}, texts)];
}

function describePoint(name, { threshold, rule, chosen_on: part, sensitivity, specificity, n }) {
  const start = `${titled(name)} is called positive from ${percent(threshold)} on`;
  const found = sensitivity === undefined ? "" : `, where sensitivity was ${percent(sensitivity)} and specificity ${percent(specificity)}`;
  return `${start}. Chosen on ${n === undefined ? "" : `${n.toLocaleString("en")} `}${PARTS[part] ?? part} by the rule ${rule}${found}.`;
}

function describeMetrics(metrics) {
  const part = Object.keys(PARTS).find((name) => Object.keys(metrics ?? {}).some((key) => key.startsWith(`${name}/`)));
  if (part === undefined) return [];
  const rows = Object.entries(METRICS)
    .filter(([key]) => typeof metrics[`${part}/${key}`] === "number")
    .map(([key, title]) => [title, metrics[`${part}/${key}`].toFixed(3)]);
  const note = "Calls here are by the most probable class, not at the operating point.";
  return [
    make("h3", { textContent: `Measured on ${PARTS[part]}` }),
    makeTable(rows),
    make("p", { className: "note", textContent: note }),
  ];
}

function makeTable(rows) {
  return make("dl", { className: "table" }, rows.map(([term, text]) => [
    make("dt", { textContent: term }), make("dd", { textContent: text })]));
}

/** The headings, lists and paragraphs of a model card in Markdown; its own title is left out. */
function readCard(card) {
  const lines = card.split("\n").filter((line) => line.trim() !== "" && !line.startsWith("# "));
  const blocks = [];
  for (const line of lines) {
    if (line.startsWith("#")) blocks.push(make("h4", {}, inline(line.replace(/^#+ */, ""))));
    else if (!/^[-*] /.test(line)) blocks.push(make("p", {}, inline(line)));
    else if (blocks.at(-1)?.tagName === "UL") blocks.at(-1).append(make("li", {}, inline(line.slice(2))));
    else blocks.push(make("ul", {}, make("li", {}, inline(line.slice(2)))));
  }
  return [make("div", { className: "markdown" }, blocks)];
}

function inline(text) {
  return text.split(/(\*\*[^*]+\*\*|\*[^*]+\*)/).filter(Boolean).map((piece) => {
    if (piece.startsWith("**")) return make("strong", { textContent: piece.slice(2, -2) });
    return piece.startsWith("*") ? make("em", { textContent: piece.slice(1, -1) }) : piece;
  });
}
