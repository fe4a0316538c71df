// The page "Live": a portrait that says at once what is spoken or typed.

import { ATLDiffFace } from "../atldiff-live.js";
import { getLimits, hasToken, keepToken, takeTokenFromAddress, token } from "./api.js";
import { deviceFault, find, hasDevices, sentence, show, showError } from "./page.js";
import { PortraitField } from "./portrait.js";

const UNAUTHORIZED = 401;

const portrait = new PortraitField(forgetConsent, (error) => (error.status === UNAUTHORIZED ? askForToken() : showError("portrait", error.message)));
let face = null;
let microphone = null;

function forgetConsent() {
  find("consent").checked = false;
  showError("live", "");
}

function askForToken() {
  show(find("token-field"), true);
  showError("token", `${hasToken() ? "The service does not take this token" : "This service asks for a token"}; see where it was started.`);
  find("token").focus();
}

function announce(text) {
  find("live-state").textContent = text;
}

function arrange(state) {
  for (const name of ["live-stop", "live-talk"]) show(find(name), state === "live");
  show(find("live-start"), state !== "live");
  find("live-start").disabled = state === "starting";
  show(find("empty"), state !== "live");
  show(find("live-screen"), state === "live");
  find("live-microphone").setAttribute("aria-pressed", String(microphone !== null));
}

async function start() {
  for (const name of ["portrait", "consent", "live"]) showError(name, "");
  if (!portrait.file) return fail("portrait", "Choose a portrait first.", "portrait-drop");
  if (!find("consent").checked) return fail("consent", "Tick this first: without consent nothing is made.", "consent");
  arrange("starting");
  announce("Loading the face …");
  const options = portrait.face ? { face: portrait.face } : {};
  const one = new ATLDiffFace(find("live-video"), { token: token(), portrait: portrait.file, options });
  face = one;
  one.addEventListener("close", () => one === face && stop());
  one.addEventListener("error", ({ detail }) => showError("live", sentence(detail.message)));
  try {
    await one.ready;
  } catch (error) {
    stop();
    if (error.status === UNAUTHORIZED) askForToken();
    else if (error.field === "portrait" || error.field === "face") fail("portrait", sentence(error.message), "portrait-choose");
    else showError("live", sentence(error.message));
    return null;
  }
  arrange("live");
  announce("Type something, or talk.");
  find("live-text").focus();
  return null;
}

function fail(field, text, target) {
  showError(field, text);
  find(target).focus();
  return null;
}

function stop() {
  const one = face;
  face = null;
  one?.close();
  stopMicrophone();
  announce("");
  arrange("off");
}

function stopMicrophone() {
  for (const track of microphone?.getTracks() ?? []) track.stop();
  microphone = null;
}

async function toggleMicrophone() {
  showError("live", "");
  if (microphone) {
    stopMicrophone();
    face.speak(null);
  } else {
    try {
      microphone = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: true } });
    } catch (error) {
      showError("live", deviceFault(error, "microphone"));
      return;
    }
    face.speak(microphone);
  }
  find("live-video").muted = microphone !== null; // one's own voice a moment later is no help
  arrange("live");
}

async function say(event) {
  event.preventDefault();
  const field = find("live-text");
  const text = field.value.trim();
  if (!text || !face) return;
  field.value = "";
  showError("live", "");
  find("live-video").muted = false;
  announce("Saying it …");
  try {
    await face.speak(text);
    announce("Said.");
  } catch (error) {
    showError("live", sentence(error.message));
  }
}

async function tryToken() {
  if (!keepToken(find("token").value.trim())) return;
  try {
    await getLimits();
  } catch {
    askForToken();
    return;
  }
  showError("token", "");
  show(find("token-field"), false);
  if (portrait.file) portrait.search();
}

takeTokenFromAddress();
arrange("off");
show(find("live-microphone"), hasDevices());
find("live-start").addEventListener("click", start);
find("live-stop").addEventListener("click", stop);
find("live-microphone").addEventListener("click", toggleMicrophone);
find("live-talk").addEventListener("submit", say);
find("live-interrupt").addEventListener("click", () => face?.interrupt());
find("token").addEventListener("change", tryToken);
find("try").addEventListener("click", () => portrait.takeExample());
getLimits().catch((error) => error.status === UNAUTHORIZED && askForToken());
