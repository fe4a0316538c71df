// The page: from the fields to a job; the stage shows what becomes of it.

import { Problem, createVideo, deleteVideo, getLimits, hasToken, keepToken, states, takeTokenFromAddress } from "./api.js";
import { fileFault, sumFault } from "./files.js";
import { showGallery } from "./gallery.js";
import { find, show, showError } from "./page.js";
import { PortraitField } from "./portrait.js";
import { SpeechField } from "./speech.js";
import {
  announce, clearStage, goToStage, hideProgress, showPreview, showProgress, showState, showVideo, showViews,
} from "./stage.js";
import { Takes, describe } from "./takes.js";

const JOB = "atldiff-job";
const FIELDS = ["portrait", "dub", "speech", "emotion", "intensity", "mouth", "head_motion", "blink", "seed", "steps", "badge", "consent"];
const LOST = "The connection is lost; trying again …";
const GONE = "This video is no longer there: it was removed elsewhere, or the service keeps it no longer.";
const FORGOTTEN = "Loading the page anew forgets portrait and speech; choose them again for another video.";
const UNAUTHORIZED = 401;
const NOT_FOUND = 404;

const form = find("form");
const portrait = new PortraitField(takeChange, showRefusal);
const speech = new SpeechField(takeChange);
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
    if (state.state === "done") {
      await showVideo(state, takes.get(id));
      takes.draw();
    }
  }
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
