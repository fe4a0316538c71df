// The stage: how far a job is, its first frame, its video.

import { getPart } from "./api.js";
import { LandmarkViews } from "./landmarks.js";
import { find, setProportions, show, showError, showList } from "./page.js";
import { fileName } from "./takes.js";

const video = find("video");
const views = new LandmarkViews();

export function announce(text) {
  if (find("announcer").textContent !== text) find("announcer").textContent = text;
}

export function clearStage() {
  video.removeAttribute("src");
  video.load();
  for (const id of ["empty", "preview", "video", "overlay", "result", "tag"]) show(find(id), false);
  find("facts").textContent = "";
  announce("");
  showProgress("Waiting for a worker …");
}

/** On a narrow screen one may have scrolled away from the stage, which lies on top as long as there is something in it. */
export function goToStage() {
  const box = find("stage").getBoundingClientRect();
  if (box.top < window.innerHeight / 2 && box.top >= 0) return;
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  find("stage").scrollIntoView({ behavior: isCalm ? "auto" : "smooth" });
}

export function showProgress(text, share) {
  show(find("progress"), true);
  find("progress-text").textContent = text;
  if (share === undefined) find("progress-bar").removeAttribute("value");
  else find("progress-bar").value = share;
}

/** Whoever stands on its button goes on to another place. */
export function hideProgress(next) {
  const isHere = document.activeElement === find("cancel");
  show(find("progress"), false);
  if (isHere) next.focus({ preventScroll: true });
}

export function showState({ state, position, progress, started_at: startedAt }) {
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

export async function showPreview(id, signal) {
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

/** Show a finished video; `take` says what it was made from, where that is known. */
export async function showVideo({ id, result, options }, take) {
  const [content, points] = await Promise.all([getPart(id, "content"), getPart(id, "landmarks")]);
  const [file, landmarks] = await Promise.all([content.blob(), points.json()]);
  URL.revokeObjectURL(find("download").href);
  const address = URL.createObjectURL(file);
  find("download").href = address;
  find("download").download = take ? fileName(take) : "atldiff.mp4";
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
  find("facts").textContent = [take?.title, facts(result, options, landmarks)].filter(Boolean).join(" · ");
  showList("result-warnings", result.warnings);
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

export function showViews() {
  const isPressed = (id) => find(id).getAttribute("aria-pressed") === "true";
  views.showPoints(isPressed("show-landmarks"));
  show(find("mouth-plot"), isPressed("show-mouth"));
}
