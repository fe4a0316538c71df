// The service's API. Everything goes through fetch, so that a token can be sent with each request.

const TOKEN = "atldiff-token";

/** An answer that says what was wrong, and with which field. */
export class Problem extends Error {
  constructor({ status, detail, field }) {
    super(sentence(detail));
    this.status = status;
    this.field = field;
  }
}

/** Take the token out of the address, where `atldiff studio` has put it. */
export function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    keepToken(token);
    history.replaceState(null, "", location.pathname);
  }
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export async function findFaces(portrait, signal) {
  return (await send("POST", "/v1/faces", { body: form({ portrait }), signal })).json();
}

export async function createVideo(parts) {
  return (await send("POST", "/v1/videos", { body: form(parts) })).json();
}

export async function getVideo(id) {
  return (await send("GET", `/v1/videos/${id}`)).json();
}

export async function getPart(id, part) {
  return send("GET", `/v1/videos/${id}/${part}`);
}

export async function deleteVideo(id) {
  await send("DELETE", `/v1/videos/${id}`);
}

export async function getExample(name) {
  const blob = await (await send("GET", `/studio/${name}`)).blob();
  return new File([blob], name, { type: blob.type });
}

/** The job at each of its changes until it has ended; a cut connection is taken up again. */
export async function* changes(id, signal) {
  for (;;) {
    try {
      const answer = await send("GET", `/v1/videos/${id}/events`, { signal });
      for await (const { event, data } of serverSentEvents(answer.body)) {
        if (event === "deleted") return;
        yield data;
        if (event === "done" || event === "failed") return;
      }
    } catch (error) {
      if (signal.aborted || error.status !== 0) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { done, value } = await lost(reader.read());
    if (done) return;
    const blocks = (held + value).split("\n\n");
    held = blocks.pop();
    for (const block of blocks) {
      const found = /^event: (.+)\ndata: (.+)$/.exec(block);
      if (found) yield { event: found[1], data: JSON.parse(found[2]) };
    }
  }
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

function sentence(text) {
  const words = String(text || "something went wrong").trim();
  const end = /[.!?]$/.test(words) ? "" : ".";
  return words[0].toUpperCase() + words.slice(1) + end;
}
