/** What the server's answer says, in plain words. Knows nothing of how it is shown. */

import { capital, percent, spoken } from "./dom.js";

/** Class or target name -> operating point with its `threshold`, of `operating_point` in the model's facts. */
export function listPoints(facts) {
  const points = facts?.operating_point;
  if (points === null || points === undefined) return {};
  return "threshold" in points ? { [points.positive_class]: points } : points;
}

/** Whether answers are independent of each other; while the facts are not known, a label that is no class says so. */
const isMultilabel = ({ label, probs }, facts) => facts?.multilabel ?? !(label in probs);

/** The answer in a few words. */
export function headline(result, facts) {
  const { abstained, decisions, label } = result;
  if (abstained) return "No answer";
  const names = Object.keys(decisions);
  const positive = names.filter((name) => decisions[name]);
  if (positive.length > 0) return `Called positive for ${positive.map(spoken).join(", ")}`;
  if (names.length === 1) return `Not called positive for ${spoken(names[0])}`;
  if (names.length > 1) return "Nothing called positive";
  if (!isMultilabel(result, facts)) return `Most probable: ${spoken(label)}`;
  return label === "none" ? "No finding reaches 50%" : `At least 50%: ${label.split("; ").map(spoken).join(", ")}`;
}

/** What has to be said beside the headline. */
export function explanation(result, facts) {
  const { abstained, decisions, label, probs } = result;
  const highest = Math.max(...Object.values(probs));
  if (abstained) {
    const needed = facts?.abstention?.threshold;
    const limit = needed === undefined ? "too low" : `below the ${percent(needed)} that it needs`;
    return `The model is not sure enough to answer: its highest probability, ${percent(highest)}, is ${limit}.`;
  }
  if (Object.keys(decisions).length === 0) {
    return "No operating point was chosen for this model, so it calls nothing positive or negative.";
  }
  return isMultilabel(result, facts) ? "" : `Most probable class: ${spoken(label)}, ${percent(highest)}.`;
}

/** Where a probability lies, in words; empty where the class has no operating point or no answer is given. */
export function judge(name, { probs, decisions, abstained }, facts) {
  if (abstained || !(name in decisions)) return "";
  const threshold = listPoints(facts)[name]?.threshold;
  const point = threshold === undefined ? "the operating point" : `the operating point of ${percent(threshold)}`;
  if (!decisions[name]) return `Below ${point}: not called positive.`;
  return `${probs[name] === threshold ? "At" : "Above"} ${point}: called positive.`;
}

/** The class whose map is of most interest: the one called positive or with an operating point, else the likeliest. */
export function classToExplain({ probs, decisions }) {
  const byProbability = (one, other) => probs[other] - probs[one];
  const names = Object.keys(decisions);
  const positive = names.filter((name) => decisions[name]);
  const candidates = [positive, names, Object.keys(probs)].find((some) => some.length > 0);
  return candidates.sort(byProbability)[0];
}

/** The state of an item of the work list in a few words. */
export function stateInWords(item) {
  if (item.wait > 0 && !item.over) return `Server busy, goes on in ${item.wait} s`;
  if (item.state === "waiting") return "Waiting";
  if (item.state === "sending") return `Sending, ${Math.round(100 * item.share)}%`;
  if (item.state === "looking") return "The model is looking";
  return item.state === "failed" ? item.problem.title : briefly(item.result);
}

/** The answer as it fits into a row of the list. */
function briefly({ abstained, decisions, label, probs }) {
  if (abstained) return "No answer";
  const names = Object.keys(decisions);
  const positive = names.filter((name) => decisions[name]);
  if (names.length === 1) return `${positive.length === 1 ? "Positive" : "Not positive"}, ${percent(probs[names[0]])}`;
  if (names.length > 1) return positive.length > 0 ? `Positive: ${positive.map(spoken).join(", ")}` : "Nothing positive";
  return label in probs ? `${titled(label)}, ${percent(probs[label])}` : titled(label);
}

/** Everything of an item in one sentence, for those who listen. */
export function aloud(item, facts) {
  if (item.state === "failed") return `${item.name}: ${item.problem.message}`;
  const warnings = item.result.warnings.map((warning) => ` Warning: ${warning.text}`).join("");
  return `${item.name}: ${headline(item.result, facts)}. ${explanation(item.result, facts)}${warnings}`;
}

/** The title of a class or a finding. */
export const titled = (name) => capital(spoken(name));
