/** Signing in from within the page, so that nothing on it is lost. Knows nothing of what it is for. */

import { find } from "./dom.js";

const dialog = find("sign-in");
const [form, key, problem] = [dialog.querySelector("form"), find("key"), find("sign-in-problem")];

/** Ask for the key until it is right: the new token, or null where the person does not want to. */
export function signIn() {
  problem.textContent = "";
  dialog.showModal();
  key.focus();
  return new Promise((resolve) => {
    const end = (token) => {
      form.onsubmit = dialog.onclose = null;
      key.value = "";
      dialog.close();
      resolve(token);
    };
    dialog.onclose = () => end(null);
    form.onsubmit = async (event) => {
      event.preventDefault();
      const token = await send();
      if (token !== null) end(token);
    };
  });
}

/** The token of the session that this browser has now, which another tab may have begun; null where it has none. */
export async function findToken() {
  try {
    const answer = await fetch("/", { cache: "no-store" });
    return answer.ok ? readToken(await answer.text()) : null;
  } catch {
    return null;
  }
}

async function send() {
  problem.textContent = "";
  try {
    const answer = await fetch("/sign-in", { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (answer.ok) return readToken(await answer.text());
    problem.textContent = answer.status === 429
      ? `Too many attempts. Wait ${answer.headers.get("Retry-After") ?? 60} seconds, then try again.`
      : "This key is not valid. Check it for missing letters, or ask whoever runs the server.";
  } catch {
    problem.textContent = "The server cannot be reached. Check the network, then try again.";
  }
  key.select();
  return null;
}

/** The server leads a person who signed in to this very page, which holds the token; others to a form without one. */
const readToken = (html) =>
  new DOMParser().parseFromString(html, "text/html").querySelector("meta[name=csrf-token]")?.content ?? null;
