// The speech: chosen, dropped, recorded or the example.

import { getExample } from "./api.js";
import { fileFault } from "./files.js";
import { acceptDrops, deviceFault, find, hasDevices, minutes, show, showError } from "./page.js";
import { SpeechPlayer } from "./player.js";

export class SpeechField {
  file = null;
  isWriting = false;
  #changed;
  #recorder;
  #player;

  /** `changed` is called when there is another recording, or none. */
  constructor(changed) {
    this.#changed = changed;
    this.#player = new SpeechPlayer(changed);
    const input = find("speech-file");
    input.addEventListener("change", () => this.#takeFrom(input));
    for (const id of ["speech-drop", "speech-choose"]) find(id).addEventListener("click", () => input.click());
    find("speech-example").addEventListener("click", () => this.takeExample());
    find("speech-write").addEventListener("click", () => this.#write());
    find("speech-text").addEventListener("input", () => this.#takeText());
    find("speech-clear").addEventListener("click", () => this.clear());
    acceptDrops(find("speech-frame"), (file) => this.take(file));
    show(find("speech-record"), hasDevices() && window.MediaRecorder);
    this.#recorder = new Recorder((file) => this.take(file));
    find("speech-record").addEventListener("click", () => this.#record());
    find("speech-stop").addEventListener("click", () => this.#recorder.stop());
  }

  async takeExample() {
    try {
      this.take(await getExample("speech.flac"));
    } catch (error) {
      showError("speech", error.message);
    }
  }

  clear() {
    this.take(null);
    find("speech-drop").focus();
  }

  get isRecording() {
    return this.#recorder.isRecording;
  }

  /** The part of the recording that is to be said, as a file; null where there is none. */
  part() {
    return this.#player.part();
  }

  /** Which part that is, in words; "" for all of it. */
  get partWords() {
    return this.#player.words;
  }

  /** Say a text. */
  takeText(text) {
    this.#write();
    find("speech-text").value = text;
    this.#takeText();
  }

  /** What is to be said, where it is typed. */
  get text() {
    return this.isWriting ? find("speech-text").value.trim() : "";
  }

  #write() {
    this.take(null);
    this.isWriting = true;
    this.#arrange(false);
    find("speech-text").focus();
  }

  #takeText() {
    showError("speech", "");
    this.#changed();
  }

  take(file) {
    this.#recorder.discard();
    this.isWriting = false;
    this.file = file;
    showError("speech", "");
    this.#player.take(file);
    find("speech-name").textContent = file?.name ?? "";
    this.#arrange(false);
    this.#changed();
    if (file) this.#check(file);
  }

  async #check(file) {
    const fault = await fileFault(file);
    if (file === this.file) showError("speech", fault);
  }

  #takeFrom(input) {
    const [file] = input.files;
    input.value = "";
    if (file) this.take(file);
  }

  async #record() {
    showError("speech", "");
    this.#player.pause();
    try {
      await this.#recorder.start();
    } catch (error) {
      showError("speech", deviceFault(error, "microphone"));
      return;
    }
    this.isWriting = false;
    this.#arrange(true);
    find("speech-stop").focus();
  }

  #arrange(isRecording) {
    show(find("speech-recording"), isRecording);
    show(find("speech-row"), !isRecording);
    const isEmpty = !this.file && !this.isWriting;
    show(find("speech-writing"), !isRecording && this.isWriting);
    show(find("speech-drop"), !isRecording && isEmpty);
    show(find("speech-sound"), !isRecording && this.file);
    show(find("speech-choose"), !isEmpty);
    show(find("speech-write"), !this.isWriting);
    show(find("speech-example"), !this.file);
    show(find("speech-clear"), !isRecording && !isEmpty);
  }
}

class Recorder {
  #take;
  #recorder = null;

  constructor(take) {
    this.#take = take;
  }

  async start() {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const recorder = new MediaRecorder(stream);
    const pieces = [];
    const stopMeter = showLevel(stream);
    recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
    recorder.addEventListener("stop", () => {
      stopMeter();
      for (const track of stream.getTracks()) track.stop();
      if (recorder !== this.#recorder) return;
      this.#recorder = null;
      this.#take(new File(pieces, "Your recording", { type: recorder.mimeType }));
    });
    recorder.start();
    this.#recorder = recorder;
  }

  get isRecording() {
    return this.#recorder !== null;
  }

  stop() {
    if (this.#recorder?.state === "recording") this.#recorder.stop();
  }

  /** Stop, and take nothing of it. */
  discard() {
    const recorder = this.#recorder;
    this.#recorder = null;
    if (recorder?.state === "recording") recorder.stop();
  }
}

/** Show time and loudness of a recording; gives what ends that. */
function showLevel(stream) {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const began = performance.now();
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
    find("speech-level").value = Math.min(1, 4 * Math.sqrt(power));
    find("speech-time").textContent = minutes((performance.now() - began) / 1000);
  }, 100);
  find("speech-time").textContent = "0:00";
  return () => {
    clearInterval(timer);
    context.close();
  };
}
