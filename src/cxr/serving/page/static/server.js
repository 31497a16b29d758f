/**
 * Asks the server, waits and signs in where it says so, and makes one sentence of whatever else goes wrong.
 *
 * Knows nothing of the page. No file name is ever sent.
 */

import { sentence } from "./dom.js";

const MOST_WAITS = 20;
const SECONDS_TO_WAIT = 5;
const TITLES = {
  400: "The server could not use this file.",
  408: "The file took too long to arrive.",
  409: "The model on the server was changed.",
  413: "This file is larger than the server takes.",
  415: "The server does not read this kind of file.",
  422: "No image could be read from this file.",
  429: "The server stayed busy.",
  503: "The server stayed busy.",
};

/**
 * Why there is no answer: a title and a sentence for people. `kind` is refused, offline, signed_out, unreadable,
 * removed, or changed: another model would give it.
 */
export class Problem extends Error {
  constructor(kind, title, detail = "", ticket = null) {
    super([title, detail].filter(Boolean).join(" "));
    Object.assign(this, { kind, title, detail, ticket });
  }
}

export class Server {
  #token;
  #findToken;
  #signIn;
  #signingIn = null;

  /**
   * token: proves that a request comes from this page; findToken: asks the server for that of the browser's session;
   * signIn: asks a person. Both resolve to a token or null.
   */
  constructor(token, findToken, signIn) {
    this.#token = token;
    this.#findToken = findToken;
    this.#signIn = signIn;
  }

  /** The answer to a question without an image. */
  get(path) {
    return this.#ask("GET", path, null, {});
  }

  /**
   * The answer about an image file.
   *
   * signal: ends the request; onSent(share): how much was sent; onWait(seconds): the server asked for patience.
   */
  async post(path, file, { signal, onSent, onWait } = {}) {
    const form = new FormData();
    form.append("files", new Blob([await readWhole(file)]), "image");
    return this.#ask("POST", path, form, { signal, onSent, onWait });
  }

  /** Ends the session, also one that another tab began; resolves once the browser has forgotten it. */
  async signOut() {
    let answer = await this.#exchange("POST", "/sign-out", null, {});
    if (answer.status === 403 && (await this.#takeToken())) answer = await this.#exchange("POST", "/sign-out", null, {});
    if (answer.status >= 300) throw refusal(answer);
  }

  async #ask(method, path, body, options) {
    for (let waits = 0; ; ) {
      const token = this.#token;
      const answer = await this.#exchange(method, path, body, options);
      if (answer.status >= 200 && answer.status < 300 && answer.json !== null) return answer.json;
      if (answer.status === 401 || answer.status === 403) await this.#renew(token, options.signal);
      else if ((answer.status === 429 || answer.status === 503) && waits < MOST_WAITS) {
        waits += 1;
        await pause(answer.wait, options);
      } else throw refusal(answer);
    }
  }

  /** All requests that are refused with the same token wait for one and the same person to sign in once. */
  async #renew(refused, signal) {
    if (refused !== this.#token) return;
    this.#signingIn ??= this.#findSession().finally(() => (this.#signingIn = null));
    const found = await this.#signingIn;
    if (!found) throw new Problem("signed_out", "You are signed out.", "Sign in to go on; the list is kept.");
    if (signal?.aborted) throw removed();
  }

  /** Whether there is a session again: one that another tab began, else one for which a person signs in. */
  async #findSession() {
    if (await this.#takeToken()) return true;
    const token = await this.#signIn();
    if (token !== null) this.#token = token;
    return token !== null;
  }

  /** Whether the browser has a session with another token, which is taken. */
  async #takeToken() {
    const token = await this.#findToken();
    if (token === null || token === this.#token) return false;
    this.#token = token;
    return true;
  }

  #exchange(method, path, body, { signal, onSent }) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(removed());
      const request = new XMLHttpRequest();
      request.open(method, path);
      if (this.#token !== "") request.setRequestHeader("X-CSRF-Token", this.#token);
      request.setRequestHeader("Accept", "application/json");
      if (onSent) request.upload.onprogress = (event) => event.total > 0 && onSent(event.loaded / event.total);
      request.onload = () => resolve(readAnswer(request));
      request.onerror = () => reject(offline());
      request.onabort = () => reject(removed());
      signal?.addEventListener("abort", () => request.abort(), { once: true });
      request.send(body);
    });
  }
}

function readAnswer(request) {
  let json = null;
  try {
    json = JSON.parse(request.responseText);
  } catch {
    // A reverse proxy may answer with a page of its own.
  }
  const seconds = Number.parseInt(request.getResponseHeader("Retry-After"), 10);
  const wait = Number.isNaN(seconds) ? SECONDS_TO_WAIT : seconds;
  return { status: request.status, json, wait, ticket: request.getResponseHeader("X-Request-ID") };
}

function refusal({ status, json, ticket }) {
  const told = json?.error?.message ?? json?.results?.[0]?.error;
  const title = TITLES[status] ?? "The server failed on this request.";
  const remedy = status >= 500 || !(status in TITLES) ? "Try again; if it stays so, tell whoever runs the server." : "";
  return new Problem("refused", title, told === undefined ? remedy : sentence(told), json?.request_id ?? ticket);
}

const offline = () => new Problem("offline", "The server cannot be reached.", "Check the network, then try again.");
const removed = () => new Problem("removed", "Removed.");

async function readWhole(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    const remedy = "It was moved or changed, or is a folder. Remove it here and add it again.";
    throw new Problem("unreadable", "The browser cannot read this file.", remedy);
  }
}

async function pause(seconds, { signal, onWait }) {
  for (let left = Math.max(seconds, 1); left > 0; left--) {
    onWait?.(left);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    if (signal?.aborted) throw removed();
  }
  onWait?.(0);
}
