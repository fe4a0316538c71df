// The service's API. Everything goes through fetch, so that a token can be sent with each request. Addresses are
// relative to the page's own, so that it works wherever a reverse proxy puts it.

import { sentence } from "./page.js";

const TOKEN = "atldiff-token";
const POLL_MS = 200;
const HIDDEN_POLL_MS = 2000;
const RETRY_MS = 1000;
const ANSWER_MS = 10_000;
const LOST_AFTER = 3;
const PASSING = [0, 429, 502, 503, 504];

/** An answer that says what was wrong, and with which field. */
export class Problem extends Error {
  constructor({ status, detail, field }) {
    super(sentence(detail));
    this.status = status;
    this.field = field;
  }
}

/** Take the token out of the address, where `atldiff studio` has put it; whether there was one. */
export function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return false;
  history.replaceState(null, "", location.pathname);
  return keepToken(token);
}

/** Send a token from now on; not if it cannot be one. */
export function keepToken(token) {
  if (!/^[ -~]+$/.test(token)) return false;
  sessionStorage.setItem(TOKEN, token);
  return true;
}

export const hasToken = () => sessionStorage.getItem(TOKEN) !== null;

export const token = () => sessionStorage.getItem(TOKEN) ?? "";

export async function getLimits() {
  return (await send("GET", "v1/limits")).json();
}

export async function findFaces(portrait, signal) {
  return (await send("POST", "v1/faces", { body: form({ portrait }), signal })).json();
}

/** Gives the number of the new job. */
export async function createVideo(parts, signal) {
  const answer = await send("POST", "v1/videos", { body: form(parts), signal });
  return answer.headers.get("Location").split("/").pop();
}

export async function getPart(id, part) {
  return send("GET", `v1/videos/${id}/${part}`);
}

export async function deleteVideo(id) {
  await send("DELETE", `v1/videos/${id}`);
}

export async function getExample(name) {
  const blob = await (await send("GET", `studio/${name}`)).blob();
  return new File([blob], name, { type: blob.type });
}

/** The job again and again until it has ended; null while the service does not answer. */
export async function* states(id, signal) {
  for (let failures = 0; ; ) {
    try {
      const patience = AbortSignal.any([signal, AbortSignal.timeout(ANSWER_MS)]);
      const answer = await send("GET", `v1/videos/${id}`, { signal: patience });
      const job = await lost(answer.json());
      failures = 0;
      yield job;
      if (job.state === "done" || job.state === "failed") return;
    } catch (error) {
      if (signal.aborted || !PASSING.includes(error.status)) throw error;
      failures += 1;
      if (failures >= LOST_AFTER) yield null;
    }
    await pause(failures ? RETRY_MS : POLL_MS);
  }
}

/** Waits; longer while nobody looks. */
async function pause(milliseconds) {
  const looking = new AbortController();
  await new Promise((resolve) => {
    setTimeout(resolve, document.hidden ? HIDDEN_POLL_MS : milliseconds);
    document.addEventListener("visibilitychange", resolve, { signal: looking.signal });
  });
  looking.abort();
}

async function send(method, path, { body, signal } = {}) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await lost(fetch(path, { method, body, signal, headers, cache: "no-store" }));
  if (answer.ok) return answer;
  let problem = { detail: answer.statusText };
  try {
    problem = await answer.json();
  } catch {
    // not from this service
  }
  const seconds = answer.headers.get("Retry-After");
  if (answer.status === 429 && seconds) problem.detail = `too much at once; try again in ${seconds} s`;
  throw new Problem({ ...problem, status: answer.status });
}

/** Gives a connection that could not be made, or was cut, as a problem of status 0. */
async function lost(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ status: 0, detail: "the service does not answer; see whether it is still running" });
  }
}

function form(parts) {
  const data = new FormData();
  for (const [name, value] of Object.entries(parts)) {
    if (value !== null && value !== "") data.append(name, value);
  }
  return data;
}
