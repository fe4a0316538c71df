// The speech as a waveform that can be played.

import { find, minutes } from "./page.js";
import { Trim } from "./trim.js";

const LARGEST_DRAWN = 16e6;
const BARS = 64;

export class SpeechPlayer {
  #audio = find("speech-player");
  #seek = find("speech-seek");
  #button = find("speech-play");
  #seconds = 0;
  #trim;

  /** `changed` is called when another part of the recording is to be said. */
  constructor(changed) {
    this.#trim = new Trim(() => {
      this.pause();
      this.#audio.currentTime = this.#trim.begin;
      changed();
    });
    this.#button.addEventListener("click", () => (this.#audio.paused ? this.#play() : this.pause()));
    this.#seek.addEventListener("input", () => {
      this.#audio.currentTime = this.#seek.value * this.#seconds;
    });
    for (const name of ["play", "pause", "ended", "timeupdate", "durationchange"]) {
      this.#audio.addEventListener(name, () => this.#show());
    }
  }

  /** Another recording, or none. */
  take(file) {
    URL.revokeObjectURL(this.#audio.src);
    this.#seconds = 0;
    this.#trim.take(file, 0);
    find("speech-wave").firstElementChild.setAttribute("d", "");
    if (file) {
      this.#audio.src = URL.createObjectURL(file);
      this.#draw(file, this.#audio.src);
    } else {
      this.#audio.removeAttribute("src");
      this.#audio.load();
    }
    this.#show();
  }

  pause() {
    this.#audio.pause();
  }

  /** Which part is to be said, in words; "" for all of it. */
  get words() {
    return this.#trim.words;
  }

  /** The file with what is to be said. */
  part() {
    return this.#trim.part();
  }

  #play() {
    const { currentTime } = this.#audio;
    const isOutside = currentTime < this.#trim.begin || currentTime >= this.#trim.end - 0.05;
    if (!this.#trim.isWhole && isOutside) this.#audio.currentTime = this.#trim.begin;
    this.#audio.play();
  }

  #show() {
    const { currentTime, duration, paused } = this.#audio;
    if (!paused && !this.#trim.isWhole && currentTime >= this.#trim.end) this.pause();
    if (Number.isFinite(duration)) this.#seconds = duration;
    this.#seek.value = this.#seconds ? currentTime / this.#seconds : 0;
    this.#seek.setAttribute("aria-valuetext", minutes(currentTime));
    const all = this.#trim.words || minutes(Math.round(this.#seconds));
    find("speech-place").textContent = this.#seconds ? `${minutes(currentTime)} / ${all}` : "";
    this.#button.setAttribute("aria-label", paused ? "Play the speech" : "Pause the speech");
    this.#button.classList.toggle("playing", !paused);
  }

  /** What this browser cannot decode is not drawn; the service may well read it. */
  async #draw(file, address) {
    if (file.size > LARGEST_DRAWN) return;
    let sound;
    try {
      const context = new OfflineAudioContext(1, 1, 16000);
      sound = await context.decodeAudioData(await file.arrayBuffer());
    } catch {
      return;
    }
    if (this.#audio.src !== address) return;
    this.#seconds = sound.duration; // recordings do not say their length
    this.#trim.take(file, sound.duration);
    find("speech-wave").firstElementChild.setAttribute("d", bars(sound.getChannelData(0)));
    this.#show();
  }
}

/** Loudness over time as upright strokes. */
function bars(samples) {
  const step = Math.max(1, Math.floor(samples.length / BARS));
  const heights = Array.from({ length: BARS }, (_, bar) => {
    const part = samples.subarray(bar * step, (bar + 1) * step);
    return Math.sqrt(part.reduce((sum, sample) => sum + sample * sample, 0) / Math.max(1, part.length));
  });
  const most = Math.max(1e-4, ...heights);
  return heights
    .map((height, bar) => {
      const half = Math.max(1, (44 * height) / most);
      return `M${((100 * (bar + 0.5)) / BARS).toFixed(2)} ${(50 - half).toFixed(1)}v${(2 * half).toFixed(1)}`;
    })
    .join("");
}
