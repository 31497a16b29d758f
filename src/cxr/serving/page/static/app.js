/** The page: which image is looked at, and what happens when somebody presses something. */

import { count, find, spoken } from "./dom.js";
import { listenToDrops } from "./dropping.js";
import { describeModel } from "./facts.js";
import { decode, fits, readPicture } from "./picture.js";
import { describe } from "./result.js";
import { Rows } from "./rows.js";
import { Problem, Server } from "./server.js";
import { findToken, signIn } from "./sign_in.js";
import { save, toCsv } from "./table.js";
import { aloud, classToExplain } from "./verdict.js";
import { plainLook, Viewer } from "./viewer.js";
import { WorkList } from "./worklist.js";

const MOST_PICTURES = 6;

const server = new Server(document.querySelector("meta[name=csrf-token]").content, findToken, signIn);
const list = new WorkList(server, changed, stopped);
const rows = new Rows(find("rows"), { choose, retry: (item) => list.retry(item), remove });
const viewer = new Viewer(find("viewport"), find("film"), showLook);
const heat = { on: false, label: null, loading: false, problem: null };
const known = new Map();
let chosen = null;
let facts = null;
let reading = null;
let leaving = false;
let recent = [];

// -- the work list

function add(files) {
  if (files.length === 0) return;
  const [first] = list.add(files);
  if (chosen !== null) return showList();
  choose(first);
  rows.focus(first);
}

function remove(item) {
  const place = list.items.indexOf(item);
  const focused = find("rows").contains(document.activeElement);
  list.remove(item);
  recent = recent.filter((other) => other !== item);
  if (item === chosen) choose(list.items[Math.min(place, list.items.length - 1)] ?? null);
  else showList();
  if (list.items.length === 0) document.querySelector(".drop .choose").focus();
  else if (focused) rows.focus(chosen);
}

function clear() {
  if (!confirm(`Remove ${count(list.items.length, "image")} and their results from this page?`)) return;
  [...list.items].forEach((item) => list.remove(item));
  choose(null);
  document.querySelector(".drop .choose").focus();
}

function changed(item) {
  rows.update(item, item === chosen);
  showSum();
  learn(item);
  if (item !== chosen) return;
  showAnswer();
  if (item.over) say(aloud(item, factsOf(item)));
  if (item.state === "done") checkPicture(item);
}

function stopped(problem) {
  find("banner").hidden = false;
  find("banner").querySelector("p").textContent = problem.message;
  find("banner").querySelector("button").textContent = problem.kind === "signed_out" ? "Sign in" : "Try again";
}

function resume() {
  find("banner").hidden = true;
  if (facts === null) readFacts();
  if (chosen !== null && chosen.picture === null) readChosen(chosen);
  list.resume();
}

function showList() {
  find("bench").classList.toggle("empty", list.items.length === 0);
  rows.show(list.items, chosen);
  showSum();
  showPlace();
}

function showSum() {
  const [all, over] = [list.items.length, list.items.filter((item) => item.over).length];
  const failed = list.failed.length;
  const words = over < all ? `${over} of ${all} done` : `${count(all, "image")}, all done`;
  const text = failed > 0 ? `${words}, ${failed} failed` : words;
  if (find("sum-text").textContent === text) return;
  find("sum-text").textContent = text;
  Object.assign(find("progress").querySelector("progress"), { max: Math.max(all, 1), value: over });
  find("progress").classList.toggle("over", over === all);
  find("retry-all").hidden = failed === 0;
  if (all > 1 && over === all) say(text);
}

// -- the image that is looked at

function choose(item) {
  if (item !== null && item === chosen) return showList();
  chosen = item;
  heat.on = false;
  showList();
  showHeat();
  if (item === null) return viewer.show(null, plainLook(), 1);
  item.look ??= plainLook();
  rows.reveal(item);
  learn(item);
  showAnswer();
  return readChosen(item);
}

function step(by) {
  const next = list.items[list.items.indexOf(chosen) + by];
  if (next !== undefined) choose(next);
}

async function readChosen(item) {
  if (item.picture !== null) return showPicture(item);
  viewer.show(null, item.look, 1);
  tell("Opening the image …");
  try {
    item.picture = await readPicture(item, server);
    showPicture(item);
  } catch (problem) {
    if (item === chosen) tell(problem.kind === "refused" ? "No image to show" : "The image could not be loaded");
  }
}

function showPicture(item) {
  recent = [item, ...recent.filter((other) => other !== item)];
  recent.splice(MOST_PICTURES).forEach(forget);
  if (item !== chosen) return;
  tell("");
  viewer.show(item.picture, item.look, item.result?.shape[1] ?? item.picture.width);
  if (item.state === "done") checkPicture(item);
  showHeat();
}

function forget(item) {
  item.picture?.close?.();
  item.picture = null;
  item.maps.clear();
}

/** A picture that the server sees in other proportions is read by the server, now and whenever it is shown again. */
function checkPicture(item) {
  if (item.picture === null || item.misread || fits(item.picture, item.result.shape)) return;
  item.misread = true;
  forget(item);
  readChosen(item);
}

function tell(words) {
  find("reading").textContent = words;
  find("reading").hidden = words === "";
}

function showPlace() {
  const place = list.items.indexOf(chosen);
  find("name").textContent = find("name").title = chosen?.name ?? "";
  find("count").textContent = chosen === null ? "" : `${place + 1} of ${list.items.length}`;
  find("previous").disabled = place <= 0;
  find("next").disabled = place === list.items.length - 1;
  find("viewport").setAttribute("aria-label", chosen === null ? "Image" : `Image ${chosen.name}`);
}

function showAnswer() {
  if (chosen.state === "done" && !(heat.label in chosen.result.probs)) heat.label = classToExplain(chosen.result);
  const focused = document.activeElement?.id;
  const open = find("answer").querySelector("details")?.open === true;
  find("answer").replaceChildren(...describe(chosen, factsOf(chosen), heat, {
    retry: (item) => list.retry(item), remove, toggleHeat, chooseClass, askAgain,
  }));
  if (open && chosen.state === "done") find("answer").querySelector("details").open = true;
  if (focused === "heat-class" || focused === "heat-words") find(focused)?.focus();
  find("heat").disabled = chosen.state !== "done";
}

function showLook() {
  const { window, level, invert } = viewer.look;
  setSlider("window", window, `${window}`);
  setSlider("level", level, `${level}`);
  find("invert-view").setAttribute("aria-pressed", invert);
  const zoom = Math.round(100 * viewer.percent);
  find("readout").textContent = chosen?.picture ? `${zoom}%   W ${window}   L ${level}${invert ? "   inverted" : ""}` : "";
}

function setSlider(name, value, words) {
  find(name).value = value;
  document.querySelector(`output[for=${name}]`).textContent = words;
}

// -- the heat map

function toggleHeat() {
  if (chosen?.state !== "done") return;
  heat.on = !heat.on;
  showHeat();
}

function chooseClass(label) {
  heat.label = label;
  heat.on = true;
  showHeat();
}

async function showHeat() {
  Object.assign(heat, { loading: false, problem: null });
  const item = chosen;
  const wanted = heat.on && item?.state === "done";
  find("heat").setAttribute("aria-pressed", wanted);
  find("heat-opacity").hidden = !wanted;
  if (!wanted) viewer.cover(null);
  else if (item.maps.has(heat.label)) viewer.cover(item.maps.get(heat.label));
  else return readMap(item, heat.label);
  if (item?.state === "done") showAnswer();
}

async function readMap(item, label) {
  const isWanted = () => item === chosen && heat.on && heat.label === label;
  heat.loading = true;
  viewer.cover(null);
  showAnswer();
  try {
    const path = `/v1/explain?label=${encodeURIComponent(label)}`;
    const { overlay, model } = await server.post(path, item.file, { signal: item.abort.signal });
    if (model.version !== item.model?.version) throw changedModel();
    await decode(overlay);
    item.maps.set(label, overlay);
    if (isWanted()) showHeat();
    if (isWanted()) say("The heat map is shown.");
  } catch (problem) {
    const why = problem.kind === "refused" && (await isOutdated(item)) ? changedModel() : problem;
    if (!isWanted()) return;
    Object.assign(heat, { on: false, loading: false });
    await showHeat();
    heat.problem = why;
    showAnswer();
  }
}

function changedModel() {
  const remedy = "This answer and a heat map would be of different models: ask again for both of the same one.";
  return new Problem("changed", "The model on the server has changed.", remedy);
}

/** Whether the server has another model by now: one with other classes refuses those of the answer. */
async function isOutdated(item) {
  await readFacts();
  return facts !== null && facts.version !== item.model?.version;
}

function askAgain(item) {
  list.retry(item);
  showHeat();
}

// -- the models

/** Every answer is drawn with the facts of the model that gave it; null while these are not known. */
function factsOf(item) {
  return known.get(item.model?.version) ?? null;
}

/** The first answer of a model is the reason to read its facts. */
function learn(item) {
  if (item.model !== null && !known.has(item.model.version)) readFacts();
}

/** What the server tells of its model now; whoever asks meanwhile waits for the same answer. */
function readFacts() {
  reading ??= askFacts().finally(() => (reading = null));
  return reading;
}

async function askFacts() {
  try {
    facts = await server.get("/v1/model");
  } catch (problem) {
    facts = null;
    find("facts").querySelector(".content").textContent = problem.message;
    return;
  }
  known.set(facts.version, facts);
  showFacts();
}

function showFacts() {
  find("model-name").textContent = facts.name;
  find("open-facts").title = `About the model, version ${facts.version}`;
  find("purpose").textContent = `The model here ${facts.multilabel ? "looks for" : "tells apart"}: ${facts.class_names.map(spoken).join(", ")}.`;
  find("facts").querySelector(".content").replaceChildren(...describeModel(facts));
  showList();
  if (chosen !== null) showAnswer();
}

// -- everything else

function say(words) {
  find("live").textContent = "";
  setTimeout(() => (find("live").textContent = words), 50);
}

function toggleTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const { dataset } = document.documentElement;
  dataset.theme = (dataset.theme ?? (dark ? "dark" : "light")) === "dark" ? "light" : "dark";
}

function setTool(tool) {
  viewer.tool = tool;
  viewer.set({});
  find("pan").setAttribute("aria-pressed", tool === "pan");
  find("adjust").setAttribute("aria-pressed", tool === "adjust");
}

async function signOut() {
  leaving = true;
  try {
    await server.signOut();
    location.assign("/sign-in");
  } catch (problem) {
    leaving = false;
    stopped(problem);
  }
}

function press(event) {
  const steps = { PageUp: -1, PageDown: 1 };
  if (event.key in steps) step(steps[event.key]);
  else if (event.key.toLowerCase() === "h") toggleHeat();
  else if (event.key.toLowerCase() === "w") setTool(viewer.tool === "pan" ? "adjust" : "pan");
  else if (!viewer.press(event)) return;
  event.preventDefault();
}

function listenToFiles() {
  const input = find("files");
  document.querySelectorAll(".choose").forEach((one) => one.addEventListener("click", () => input.click()));
  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = "";
  });
  listenToDrops(add, (held) => (find("dropping").hidden = !held));
}

function listenToButtons() {
  const on = (id, act) => find(id)?.addEventListener("click", act);
  on("previous", () => step(-1));
  on("next", () => step(1));
  on("pan", () => setTool("pan"));
  on("adjust", () => setTool("adjust"));
  on("zoom-in", () => viewer.zoom(1.25));
  on("zoom-out", () => viewer.zoom(0.8));
  on("fit-view", () => viewer.fit());
  on("invert-view", () => viewer.set({ invert: !viewer.look.invert }));
  on("reset-view", () => viewer.reset());
  on("heat", toggleHeat);
  on("theme", toggleTheme);
  on("sign-out", signOut);
  on("clear", clear);
  on("retry-all", () => list.failed.forEach((item) => list.retry(item)));
  on("export", () => save(toCsv(list.items), "results.csv"));
  on("open-facts", () => find("facts").showModal());
  on("open-help", () => find("help-dialog").showModal());
  find("banner").querySelector("button").addEventListener("click", resume);
  document.querySelectorAll(".dismiss").forEach((one) =>
    one.addEventListener("click", () => one.closest("dialog").close()));
}

function listenToSliders() {
  find("window").addEventListener("input", (event) => viewer.set({ window: event.target.valueAsNumber }));
  find("level").addEventListener("input", (event) => viewer.set({ level: event.target.valueAsNumber }));
  find("opacity").addEventListener("input", (event) => {
    viewer.opacity = event.target.valueAsNumber / 100;
    setSlider("opacity", event.target.value, `${event.target.value}%`);
  });
  viewer.opacity = find("opacity").valueAsNumber / 100;
}

listenToFiles();
listenToButtons();
listenToSliders();
find("viewport").addEventListener("keydown", press);
addEventListener("beforeunload", (event) => {
  if (!leaving && list.items.some((item) => !item.over)) event.preventDefault();
});
readFacts();
