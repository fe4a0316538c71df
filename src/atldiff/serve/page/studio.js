// The page: from the fields to a job, its progress, its video.

import { Problem, changes, createVideo, deleteVideo, getPart, getVideo, keepToken, takeTokenFromAddress } from "./api.js";
import { LandmarkViews } from "./landmarks.js";
import { find, setProportions, show, showError } from "./page.js";
import { PortraitField } from "./portrait.js";
import { SpeechField } from "./speech.js";

const JOB = "atldiff-job";
const FIELDS = ["portrait", "speech", "emotion", "intensity", "mouth", "head_motion", "blink", "seed", "steps", "badge", "consent"];
const UNAUTHORIZED = 401;
const NOT_FOUND = 404;

const form = find("form");
const video = find("video");
const portrait = new PortraitField(withdrawConsent, showRefusal);
const speech = new SpeechField(withdrawConsent);
const views = new LandmarkViews();

let job = null;
let following = new AbortController();

/** Whoever changes the face or the voice agrees anew. */
function withdrawConsent() {
  find("consent").checked = false;
}

function announce(text) {
  find("announcer").textContent = text;
}

function showProblem(error, place = "form") {
  const field = error.field === "face" ? "portrait" : error.field;
  if (error.status === UNAUTHORIZED) {
    askForToken();
    find("token").focus();
  } else if (FIELDS.includes(field)) {
    showFault(field, error.message);
  } else {
    showError(place, error instanceof Problem ? error.message : `This page failed: ${error.message}`);
  }
}

/** Why a portrait that was just chosen cannot be used. */
function showRefusal(error) {
  if (error.status === UNAUTHORIZED) askForToken();
  else showError("portrait", error.message);
}

function askForToken() {
  show(find("token-field"), true);
  showError("token", "This service asks for a token; see where it was started.");
}

/** Show what is wrong with a field, and go there. */
function showFault(field, text) {
  showError(field, text);
  const details = find(`${field}-error`).closest("details");
  if (details) details.open = true;
  const places = [find(`${field}-drop`), find(`${field}-choose`), find(field), form.querySelector(`[name="${field}"]:checked`)];
  places.find((place) => place && !place.hidden)?.focus();
}

/** What cannot be sent, in the order of the page. */
function faults() {
  const found = [];
  if (!portrait.file) found.push(["portrait", "Choose a portrait first."]);
  if (!speech.file) found.push(["speech", "Choose or record some speech first."]);
  for (const id of ["seed", "steps"]) {
    const { min, max, validity } = find(id);
    if (!validity.valid) found.push([id, `Expected a whole number from ${min} to ${Number(max).toLocaleString("en")}.`]);
  }
  if (!find("consent").checked) found.push(["consent", "Tick this first: without consent nothing is made."]);
  return found;
}

function parts() {
  const badge = find("badge").checked ? "true" : "";
  const blink = find("blink").checked ? "auto" : "off";
  const given = { portrait: portrait.file, speech: speech.file, face: portrait.face, badge, blink };
  for (const id of ["intensity", "mouth", "head_motion", "seed", "steps"]) given[id] = find(id).value;
  return { ...given, emotion: form.elements.emotion.value };
}

async function generate() {
  clearErrors();
  const found = faults();
  for (const [field, text] of found) showError(field, text);
  if (found.length) {
    showFault(...found[0]);
    return;
  }
  if (!find("token-field").hidden) keepToken(find("token").value.trim());
  find("generate").disabled = true;
  showProgress("Sending …");
  try {
    const made = await createVideo(parts());
    show(find("token-field"), false);
    forgetJob();
    await follow(made.id);
  } catch (error) {
    show(find("progress"), false);
    showProblem(error);
  } finally {
    find("generate").disabled = false;
  }
}

function clearErrors() {
  for (const field of [...FIELDS, "form", "stage", "token"]) showError(field, "");
}

/** Remove the job before, of which the page has no more use. */
function forgetJob() {
  if (job) deleteVideo(job).catch(() => {});
  job = null;
}

/** Watch a job to its end. */
async function follow(id) {
  following.abort();
  job = id;
  sessionStorage.setItem(JOB, id);
  following = new AbortController();
  clearStage();
  goToStage();
  const { signal } = following;
  let hasPreview = false;
  try {
    for await (const state of changes(id, signal)) {
      showState(state);
      if (state.progress?.frames_done && !hasPreview) {
        hasPreview = true;
        showPreview(id, signal);
      }
      if (state.state === "failed") throw new Problem(state.problem);
      if (state.state === "done") await showVideo(state);
    }
  } catch (error) {
    if (signal.aborted) return;
    emptyStage();
    showProblem(error, "stage");
  }
}

function clearStage() {
  video.removeAttribute("src");
  video.load();
  for (const id of ["empty", "preview", "video", "overlay", "result", "tag"]) show(find(id), false);
  find("facts").textContent = "";
  announce("");
  showProgress("Waiting for a worker …");
}

function emptyStage() {
  following.abort();
  sessionStorage.removeItem(JOB);
  job = null;
  clearStage();
  show(find("progress"), false);
  show(find("screen"), false);
  show(find("empty"), true);
}

/** On a narrow screen the stage lies below the form. */
function goToStage() {
  const box = find("stage").getBoundingClientRect();
  if (box.top < window.innerHeight / 2 && box.top >= 0) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  find("stage").scrollIntoView({ behavior: isCalm ? "auto" : "smooth" });
}

function showProgress(text, share) {
  show(find("progress"), true);
  find("progress-text").textContent = text;
  if (share === undefined) find("progress-bar").removeAttribute("value");
  else find("progress-bar").value = share;
}

function showState({ state, position, progress, started_at: startedAt }) {
  if (state === "queued") {
    showProgress(position > 1 ? `Waiting: place ${position} in the queue` : "Waiting for a worker …");
  } else if (progress) {
    const { frames_done: done, frames } = progress;
    const left = ((Date.now() - Date.parse(startedAt)) / done) * (frames - done);
    const rest = done > 10 && left > 2000 ? ` · about ${Math.ceil(left / 1000)} s left` : "";
    showProgress(`Frame ${done} of ${frames}${rest}`, done / frames);
  } else if (state === "running") {
    showProgress("Listening to the speech …");
    announce("The work has begun.");
  }
}

async function showPreview(id, signal) {
  try {
    const picture = await (await getPart(id, "preview")).blob();
    const shown = find("preview");
    shown.src = URL.createObjectURL(picture);
    await shown.decode();
    URL.revokeObjectURL(shown.src);
    if (signal.aborted || !video.hidden) return;
    setProportions(find("screen"), shown.naturalWidth, shown.naturalHeight);
    show(find("screen"), true);
    show(shown, true);
    announce("The first frame is there.");
  } catch {
    // the video itself comes anyway
  }
}

async function showVideo({ id, result, options }) {
  const [content, points] = await Promise.all([getPart(id, "content"), getPart(id, "landmarks")]);
  const [file, landmarks] = await Promise.all([content.blob(), points.json()]);
  URL.revokeObjectURL(find("download").href);
  const address = URL.createObjectURL(file);
  find("download").href = address;
  video.src = address;
  const isPlayable = await new Promise((resolve) => {
    video.addEventListener("loadeddata", () => resolve(true), { once: true });
    video.addEventListener("error", () => resolve(false), { once: true });
  });
  if (!isPlayable) showError("stage", "This browser cannot play H.264 video. The download works.");
  setProportions(find("screen"), video.videoWidth || landmarks.width, video.videoHeight || landmarks.height);
  for (const name of ["screen", "video", "result", "tag"]) show(find(name), true);
  for (const name of ["preview", "progress"]) show(find(name), false);
  views.take(landmarks);
  showViews();
  find("facts").textContent = facts(result, options, landmarks);
  announce("The video is ready.");
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
}

function facts(result, options, { width, height }) {
  const heard = options.emotion === "auto" ? [`the voice sounds ${result.emotion}`] : [];
  const size = result.bytes > 1e6 ? `${(result.bytes / 1e6).toFixed(1)} MB` : `${Math.round(result.bytes / 1e3)} kB`;
  return [
    `${result.duration_s.toFixed(1)} s`,
    `${video.videoWidth || width} × ${video.videoHeight || height}`,
    `${Number(result.fps.toFixed(2))} frames/s`,
    size,
    `made in ${result.seconds.toFixed(1)} s`,
    ...heard,
  ].join(" · ");
}

function showViews() {
  const isPressed = (id) => find(id).getAttribute("aria-pressed") === "true";
  views.showPoints(isPressed("show-landmarks"));
  show(find("mouth-plot"), isPressed("show-mouth"));
}

async function removeJob(words) {
  const id = job;
  emptyStage();
  find("video-title").focus({ preventScroll: true });
  try {
    await deleteVideo(id);
    announce(words);
  } catch (error) {
    if (error.status === NOT_FOUND) announce(words);
    else showProblem(error, "stage");
  }
}

function showOutputs() {
  for (const input of form.querySelectorAll(".slider input")) {
    const share = (input.value - input.min) / (input.max - input.min);
    input.style.setProperty("--share", share);
    input.parentElement.querySelector("output").textContent = `${Math.round(100 * input.value)} %`;
  }
  find("intensity").disabled = form.elements.emotion.value === "neutral";
}

/** After a reload the page goes on with its job. */
async function restore() {
  const id = sessionStorage.getItem(JOB);
  if (!id) return;
  try {
    await getVideo(id);
    await follow(id);
  } catch (error) {
    sessionStorage.removeItem(JOB);
    if (error.status !== NOT_FOUND) showProblem(error);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  generate();
});
form.addEventListener("input", (event) => {
  showOutputs();
  if (FIELDS.includes(event.target.id)) showError(event.target.id, "");
});
form.addEventListener("reset", (event) => {
  event.preventDefault();
  for (const input of find("expression").querySelectorAll("input")) {
    input.value = input.defaultValue;
    input.checked = input.defaultChecked;
  }
  for (const field of FIELDS.slice(2, -2)) showError(field, "");
  showOutputs();
});
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
for (const id of ["show-landmarks", "show-mouth"]) {
  find(id).addEventListener("click", ({ currentTarget }) => {
    currentTarget.setAttribute("aria-pressed", currentTarget.getAttribute("aria-pressed") !== "true");
    showViews();
  });
}
find("try").addEventListener("click", async () => {
  await Promise.all([portrait.takeExample(), speech.takeExample()]);
  find("consent").focus();
});
find("cancel").addEventListener("click", () => removeJob("Stopped, and removed."));
find("delete").addEventListener("click", () => removeJob("Removed from the service."));

takeTokenFromAddress();
if (!["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) {
  find("place").textContent = `Everything stays on ${location.hostname}`;
}
show(find("no-devices"), !navigator.mediaDevices);
showOutputs();
restore();
