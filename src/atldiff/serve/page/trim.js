// The part of the speech that is said, between two handles on the waveform.

import { find, minutes, show } from "./page.js";

const SAMPLE_RATE = 48_000;
const LEAST_S = 0.3;
const HEADER_BYTES = 44;

export class Trim {
  #file = null;
  #seconds = 0;
  #changed;
  #made = null;

  /** `changed` is called when a handle was moved. */
  constructor(changed) {
    this.#changed = changed;
    for (const id of ["trim-begin", "trim-end"]) find(id).addEventListener("input", () => this.#move(id));
  }

  /** Another recording, or one that cannot be cut (`seconds` is 0). */
  take(file, seconds) {
    this.#file = file;
    this.#seconds = seconds;
    this.#made = null;
    find("trim-begin").value = 0;
    find("trim-end").value = 1;
    show(find("speech-trim"), seconds > LEAST_S);
    this.#show();
  }

  get begin() {
    return Number(find("trim-begin").value) * this.#seconds;
  }

  get end() {
    return Number(find("trim-end").value) * this.#seconds;
  }

  get isWhole() {
    return !this.#seconds || (this.begin <= 0 && this.end >= this.#seconds);
  }

  /** How much is said, in words; "" for all of it. */
  get words() {
    return this.isWhole ? "" : `${minutes(this.begin)}–${minutes(this.end)}`;
  }

  /** The file with what is to be said: the one that was given, or a WAV with a part of it. */
  async part() {
    if (this.isWhole) return this.#file;
    const { begin, end } = this;
    if (this.#made?.begin !== begin || this.#made?.end !== end) this.#made = { begin, end, file: await cut(this.#file, begin, end) };
    return this.#made.file;
  }

  #move(id) {
    const least = LEAST_S / this.#seconds;
    const [begin, end] = [find("trim-begin"), find("trim-end")];
    if (id === "trim-begin") begin.value = Math.min(begin.value, Number(end.value) - least);
    else end.value = Math.max(end.value, Number(begin.value) + least);
    this.#show();
    this.#changed();
  }

  #show() {
    const wave = find("speech-wave").parentElement;
    for (const [id, name] of [["trim-begin", "--from"], ["trim-end", "--to"]]) {
      wave.style.setProperty(name, find(id).value);
      find(id).setAttribute("aria-valuetext", `${(find(id).value * this.#seconds).toFixed(1)} s`);
    }
  }
}

async function cut(file, begin, end) {
  const sound = await new OfflineAudioContext(1, 1, SAMPLE_RATE).decodeAudioData(await file.arrayBuffer());
  const places = [begin, end].map((seconds) => Math.round(seconds * SAMPLE_RATE));
  const count = Math.min(2, sound.numberOfChannels);
  const channels = Array.from({ length: count }, (_, index) => sound.getChannelData(index).subarray(...places));
  return new File([wav(channels)], `${file.name.replace(/\.\w+$/, "")}.wav`, { type: "audio/wav" });
}

/** 16-bit PCM. */
function wav(channels) {
  const frames = channels[0].length;
  const width = 2 * channels.length;
  const view = new DataView(new ArrayBuffer(HEADER_BYTES + frames * width));
  const text = (place, words) => [...words].forEach((letter, index) => view.setUint8(place + index, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, HEADER_BYTES - 8 + frames * width, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, channels.length, true);
  view.setUint32(24, SAMPLE_RATE, true);
  view.setUint32(28, SAMPLE_RATE * width, true);
  view.setUint16(32, width, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, frames * width, true);
  channels.forEach((samples, channel) => {
    samples.forEach((sample, frame) => {
      const level = Math.round(Math.min(1, Math.max(-1, sample)) * 32767);
      view.setInt16(HEADER_BYTES + frame * width + 2 * channel, level, true);
    });
  });
  return view.buffer;
}
