/** Images and what the server says of them, asked for one by one, at most two at a time. Knows nothing of the page. */

const AT_ONCE = 2;

/**
 * One image: `state` is waiting, sending, looking, done or failed; `sent` settles when the line is free again; of one
 * that is `misread` the browser makes another picture than the server.
 */
class Item {
  constructor(number, file) {
    Object.assign(this, { number, file, name: file.name, state: "waiting", share: 0, wait: 0 });
    Object.assign(this, { result: null, model: null, ticket: null, problem: null });
    Object.assign(this, { picture: null, misread: false, look: null, maps: new Map() });
    this.abort = new AbortController();
    this.sent = Promise.resolve();
    this.markSent = () => {};
  }

  get over() {
    return this.state === "done" || this.state === "failed";
  }
}

export class WorkList {
  items = [];
  #server;
  #changed;
  #stopped;
  #halted = false;
  #numbers = 0;

  /** changed(item): something about it is new; stopped(problem): nothing more is sent before `resume`. */
  constructor(server, changed, stopped) {
    this.#server = server;
    this.#changed = changed;
    this.#stopped = stopped;
  }

  /** Append files; returns their items. */
  add(files) {
    const items = Array.from(files, (file) => new Item(++this.#numbers, file));
    this.items.push(...items);
    this.#go();
    return items;
  }

  /** Take an image from the list, and end what was asked about it. */
  remove(item) {
    item.abort.abort();
    this.items = this.items.filter((other) => other !== item);
    item.picture?.close?.();
  }

  /** Ask about an image once more; what was said of it is forgotten. */
  retry(item) {
    Object.assign(item, { state: "waiting", result: null, model: null, ticket: null, problem: null });
    item.maps.clear();
    this.#changed(item);
    this.#go();
  }

  /** Go on after `stopped`. */
  resume() {
    this.#halted = false;
    this.#go();
  }

  get failed() {
    return this.items.filter((item) => item.state === "failed");
  }

  #go() {
    const asked = this.items.filter((item) => item.state === "sending" || item.state === "looking").length;
    const waiting = this.items.filter((item) => item.state === "waiting");
    if (!this.#halted) waiting.slice(0, AT_ONCE - asked).forEach((item) => this.#ask(item));
  }

  async #ask(item) {
    item.sent = new Promise((resolve) => (item.markSent = resolve));
    this.#set(item, { state: "sending", share: 0 });
    try {
      const answer = await this.#server.post("/v1/predict", item.file, {
        signal: item.abort.signal,
        onSent: (share) => this.#set(item, { state: share < 1 ? "sending" : "looking", share }),
        onWait: (wait) => this.#set(item, { state: "looking", wait }),
      });
      const { model, results, request_id: ticket } = answer;
      this.#set(item, { state: "done", result: results[0], model, ticket });
    } catch (problem) {
      this.#fail(item, problem);
    }
    this.#go();
  }

  #fail(item, problem) {
    if (problem.kind === "removed") return;
    if (problem.kind === undefined) throw problem;
    if (problem.kind === "offline" || problem.kind === "signed_out") {
      this.#set(item, { state: "waiting", share: 0 });
      if (!this.#halted) this.#stopped(problem);
      this.#halted = true;
    } else this.#set(item, { state: "failed", problem });
  }

  #set(item, news) {
    Object.assign(item, news);
    if (item.state !== "sending") item.markSent();
    if (this.items.includes(item)) this.#changed(item);
  }
}
