// The page: from the fields to a job, its progress, its video.

import {
  Problem, createVideo, deleteVideo, getLimits, getPart, hasToken, keepToken, states, takeTokenFromAddress,
} from "./api.js";
import { fileFault, sumFault } from "./files.js";
import { showGallery } from "./gallery.js";
import { LandmarkViews } from "./landmarks.js";
import { find, setProportions, show, showError, showList } from "./page.js";
import { PortraitField } from "./portrait.js";
import { SpeechField } from "./speech.js";
import { Takes, describe, fileName } from "./takes.js";

const JOB = "atldiff-job";
const FIELDS = ["portrait", "dub", "speech", "emotion", "intensity", "mouth", "head_motion", "blink", "seed", "steps", "badge", "consent"];
const LOST = "The connection is lost; trying again …";
const GONE = "This video is no longer there: it was removed elsewhere, or the service keeps it no longer.";
const FORGOTTEN = "Loading the page anew forgets portrait and speech; choose them again for another video.";
const UNAUTHORIZED = 401;
const NOT_FOUND = 404;

const form = find("form");
const video = find("video");
const portrait = new PortraitField(takeChange, showRefusal);
const speech = new SpeechField(takeChange);
const views = new LandmarkViews();
const takes = new Takes(showTake);

let sending = null;
let following = new AbortController();
let tokenTrial = null;

/** Whoever changes the face or the voice agrees anew. */
function takeChange() {
  const isFilm = portrait.file?.type.startsWith("video/") ?? false;
  show(find("dub-field"), isFilm);
  if (!isFilm) find("dub").checked = false;
  find("consent").checked = false;
  showError("form", "");
}

function announce(text) {
  if (find("announcer").textContent !== text) find("announcer").textContent = text;
}

function showProblem(error, place = "form") {
  const field = { face: "portrait", mode: "dub", text: "speech", voice: "speech" }[error.field] ?? error.field;
  if (error.status === UNAUTHORIZED) {
    askForToken();
    goTo("token");
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
  const fault = hasToken() ? "The service does not take this token" : "This service asks for a token";
  showError("token", `${fault}; see where it was started.`);
}

/** With a new token, do what had to wait for it. */
async function tryToken() {
  try {
    await getLimits();
  } catch (error) {
    if (error.status === UNAUTHORIZED) askForToken();
    else showError("token", error.message);
    return;
  }
  showError("token", "");
  show(find("token-field"), false);
  if (portrait.file) portrait.search();
  restore();
}

/** Show what is wrong with a field, and go there. */
function showFault(field, text) {
  showError(field, text);
  goTo(field);
}

function goTo(field) {
  const details = find(`${field}-error`).closest("details");
  if (details) details.open = true;
  const places = [...["-stop", "-text", "-drop", "-choose", ""].map((part) => find(field + part)), checked(field)];
  places.find((place) => place?.checkVisibility())?.focus();
}

const checked = (name) => form.querySelector(`[name="${name}"]:checked`);

/** What cannot be sent, in the order of the page. */
async function faults() {
  const { file: picture } = portrait;
  const { isRecording, isWriting } = speech;
  const sound = await speech.part();
  const pictureFault = picture ? await fileFault(picture) : "Choose a portrait first.";
  let soundFault = sound ? await fileFault(sound) : "Choose or record some speech first.";
  if (isWriting) soundFault = speech.text ? "" : "Type what is to be said first.";
  if (isRecording) soundFault = "Stop the recording first.";
  const found = [["portrait", pictureFault], ["speech", soundFault]].filter(([, text]) => text);
  if (!found.length) {
    const text = await sumFault(sound ? [picture, sound] : [picture]);
    if (text) found.push([picture.size > (sound?.size ?? 0) ? "portrait" : "speech", text]);
  }
  for (const id of ["seed", "steps"]) {
    const { min, max, validity } = find(id);
    if (!validity.valid) found.push([id, `Expected a whole number from ${min} to ${Number(max).toLocaleString("en")}.`]);
  }
  if (!find("consent").checked) found.push(["consent", "Tick this first: without consent nothing is made."]);
  return found;
}

async function parts() {
  const badge = find("badge").checked ? "true" : "";
  const blink = find("blink").checked ? "auto" : "off";
  const said = { portrait: portrait.file, speech: await speech.part(), text: speech.text, face: portrait.face, badge };
  if (find("dub").checked) return { ...said, mode: "dub", mouth: find("mouth").value };
  const given = { ...said, blink };
  for (const id of ["intensity", "mouth", "head_motion", "seed", "steps"]) given[id] = find(id).value;
  return { ...given, emotion: form.elements.emotion.value };
}

async function generate() {
  clearErrors();
  setBusy(true);
  try {
    if (!(await isReady())) return;
    const id = await submit();
    if (id) await follow(id);
  } finally {
    setBusy(false);
  }
}

function setBusy(isBusy) {
  find("generate").disabled = isBusy;
}

/** Whether all of it can be sent; shows what cannot. */
async function isReady() {
  await tokenTrial;
  if (!find("token-field").hidden) {
    if (!find("token-error").textContent) askForToken();
    goTo("token");
    return false;
  }
  const before = portrait.face;
  const isKnown = !portrait.file || (await portrait.search());
  const found = await faults();
  for (const [field, text] of found) showError(field, text);
  if (found.length) goTo(found[0][0]);
  else if (!isKnown) goTo(find("token-field").hidden ? "portrait" : "token");
  else if (portrait.face !== before) checked("face-choice").focus();
  else return true;
  return false;
}

/** Send everything; gives the number of the job, or nothing if there is none. */
async function submit() {
  sending = new AbortController();
  const { signal } = sending;
  find("delete").disabled = true;
  showProgress("Sending …");
  if ([find("generate"), document.body].includes(document.activeElement)) find("cancel").focus({ preventScroll: true });
  try {
    const given = await parts();
    const id = await createVideo(given, signal);
    if (signal.aborted) await deleteVideo(id);
    else takes.add(id, describe({ ...given, words: speech.partWords }));
    if (!signal.aborted) return id;
  } catch (error) {
    if (!signal.aborted) {
      stopSending();
      showProblem(error);
      return null;
    }
  } finally {
    sending = null;
    find("delete").disabled = false;
  }
  stopSending();
  announce("Stopped; no video is made.");
  return null;
}

function stopSending() {
  setBusy(false);
  hideProgress(find("generate"));
}

function clearErrors() {
  for (const field of [...FIELDS, "form", "stage"]) showError(field, "");
}

/** Show another take; not while one is being made. */
function showTake(id) {
  if (!find("generate").disabled && id !== sessionStorage.getItem(JOB)) follow(id);
}

/** Watch a job to its end. */
async function follow(id) {
  following.abort();
  sessionStorage.setItem(JOB, id);
  takes.mark(id);
  following = new AbortController();
  const { signal } = following;
  setBusy(true);
  clearStage();
  goToStage();
  try {
    await showStates(id, signal);
  } catch (error) {
    if (signal.aborted) return;
    emptyStage();
    if (error.status === NOT_FOUND) {
      forget(id);
      showError("stage", GONE);
    } else {
      showProblem(error, "stage");
    }
  }
  if (!signal.aborted) setBusy(false);
}

async function showStates(id, signal) {
  let hasPreview = false;
  for await (const state of states(id, signal)) {
    if (!state) {
      showProgress(LOST);
      announce(LOST);
      continue;
    }
    showState(state);
    if (state.progress?.frames_done && !hasPreview) {
      hasPreview = true;
      showPreview(id, signal);
    }
    if (state.state === "failed") {
      forget(id);
      throw new Problem(state.problem);
    }
    if (state.state === "done") await showVideo(state);
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
  setBusy(false);
  clearStage();
  hideProgress(find("video-title"));
  show(find("screen"), false);
  show(find("empty"), true);
}

/** There is no such job any more. */
function forget(id) {
  sessionStorage.removeItem(JOB);
  takes.remove(id);
}

/** On a narrow screen one may have scrolled away from the stage, which lies on top as long as there is something in it. */
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

/** Whoever stands on its button goes on to another place. */
function hideProgress(next) {
  const isHere = document.activeElement === find("cancel");
  show(find("progress"), false);
  if (isHere) next.focus({ preventScroll: true });
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
  find("download").download = takes.get(id) ? fileName(takes.get(id)) : "atldiff.mp4";
  video.src = address;
  const isPlayable = await new Promise((resolve) => {
    video.addEventListener("loadeddata", () => resolve(true), { once: true });
    video.addEventListener("error", () => resolve(false), { once: true });
  });
  if (!isPlayable) showError("stage", "This browser cannot play H.264 video. The download works.");
  setProportions(find("screen"), video.videoWidth || landmarks.width, video.videoHeight || landmarks.height);
  for (const name of ["screen", "video", "result", "tag"]) show(find(name), true);
  show(find("preview"), false);
  hideProgress(video);
  views.take(landmarks);
  showViews();
  find("facts").textContent = [takes.get(id)?.title, facts(result, options, landmarks)].filter(Boolean).join(" · ");
  showList("result-warnings", result.warnings);
  takes.draw();
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

/** Remove the job that is shown; another take, if there is one, is shown in its place. */
async function removeJob(words) {
  const id = sessionStorage.getItem(JOB);
  const next = takes.beside(id);
  forget(id);
  emptyStage();
  find("video-title").focus({ preventScroll: true });
  try {
    await deleteVideo(id);
  } catch (error) {
    if (error.status !== NOT_FOUND) showProblem(error, "stage");
  }
  if (next) await follow(next);
  announce(words);
}

async function takeExample({ emotion, intensity, text }) {
  form.elements.emotion.value = emotion;
  find("intensity").value = intensity;
  showOutputs();
  if (text) speech.takeText(text);
  await Promise.all([portrait.takeExample(), text || speech.takeExample()]);
  find("consent").focus();
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
function restore() {
  const id = sessionStorage.getItem(JOB);
  if (!id || find("empty").hidden) return;
  if (!portrait.file) find("portrait-note").textContent = FORGOTTEN;
  follow(id);
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
showGallery(takeExample);
find("cancel").addEventListener("click", () => {
  if (sending) sending.abort();
  else removeJob("Stopped, and removed.");
});
find("delete").addEventListener("click", () => removeJob("Removed from the service."));

find("token").addEventListener("change", ({ target }) => {
  if (keepToken(target.value.trim())) tokenTrial = tryToken();
  else showError("token", "A token has letters a to z, digits and signs only.");
});
window.addEventListener("hashchange", () => {
  if (takeTokenFromAddress()) tokenTrial = tryToken();
});

takeTokenFromAddress();
if (!["localhost", "127.0.0.1", "[::1]"].includes(location.hostname)) {
  find("place").textContent = `Everything stays on ${location.hostname}`;
}
show(find("no-devices"), !navigator.mediaDevices);
showOutputs();
takes.draw();
restore();
