// The portrait: chosen, dropped, photographed or the example; and which of its faces.

import { findFaces, getExample } from "./api.js";
import { fileFault } from "./files.js";
import { acceptDrops, deviceFault, find, hasDevices, setProportions, show, showError, showList } from "./page.js";

const LARGEST_PHOTO = 1280;

export class PortraitField {
  file = null;
  face = null;
  #changed;
  #refused;
  #search = null;
  #searching = new AbortController();
  #address = "";

  /** `changed` is called when there is another portrait, or none; `refused` with why it cannot be used. */
  constructor(changed, refused) {
    this.#changed = changed;
    this.#refused = refused;
    const input = find("portrait-file");
    input.addEventListener("change", () => this.#takeFrom(input));
    for (const id of ["portrait-drop", "portrait-choose"]) find(id).addEventListener("click", () => input.click());
    find("portrait-example").addEventListener("click", () => this.takeExample());
    find("portrait-clear").addEventListener("click", () => this.clear());
    acceptDrops(find("portrait-frame"), (file) => this.take(file));
    show(find("portrait-camera"), hasDevices());
    new Camera((file) => this.take(file));
  }

  async takeExample() {
    try {
      await this.take(await getExample("portrait.jpg"));
    } catch (error) {
      this.#refused(error);
    }
  }

  clear() {
    this.#reset(null);
    find("portrait-drop").focus();
  }

  /** Show a file and ask the service for the faces in it. */
  async take(file) {
    this.#reset(file);
    this.#draw(file);
    await this.search();
  }

  /** Ask the service for the faces, unless it has answered; gives whether they are known. */
  async search() {
    const { signal } = this.#searching;
    this.#search ??= this.#look(this.file, signal);
    const isKnown = await this.#search;
    if (signal.aborted) return false;
    if (!isKnown) this.#search = null;
    return isKnown;
  }

  async #look(file, signal) {
    find("portrait-note").textContent = "Looking for faces …";
    try {
      const fault = await fileFault(file);
      if (fault) throw new Error(fault);
      const found = await findFaces(file, signal);
      if (!signal.aborted) this.#showFaces(found);
      return true;
    } catch (error) {
      if (signal.aborted) return false;
      find("portrait-note").textContent = "";
      this.#refused(error);
      return false;
    }
  }

  #takeFrom(input) {
    const [file] = input.files;
    input.value = "";
    if (file) this.take(file);
  }

  #reset(file) {
    this.#searching.abort();
    this.#searching = new AbortController();
    this.#search = null;
    this.file = file;
    this.face = null;
    showError("portrait", "");
    find("portrait-note").textContent = "";
    showList("portrait-warnings", []);
    find("portrait-picture").replaceChildren();
    URL.revokeObjectURL(this.#address);
    show(find("portrait-drop"), !file);
    show(find("portrait-picture"), file);
    show(find("portrait-choose"), file);
    show(find("portrait-example"), !file);
    show(find("portrait-clear"), file);
    this.#changed();
  }

  #draw(file) {
    const isVideo = file.type.startsWith("video/");
    const shown = document.createElement(isVideo ? "video" : "img");
    this.#address = URL.createObjectURL(file);
    shown.src = this.#address;
    if (isVideo) shown.muted = true;
    else shown.alt = "The portrait";
    const size = () => setProportions(this.#box, shown.naturalWidth || shown.videoWidth, shown.naturalHeight || shown.videoHeight);
    shown.addEventListener(isVideo ? "loadedmetadata" : "load", size);
    shown.addEventListener("error", () => {
      const words = document.createElement("p");
      words.textContent = "This browser cannot show the file.";
      shown.replaceWith(words);
    });
    setProportions(this.#box, 1, 1);
    this.#box.append(shown);
  }

  get #box() {
    return find("portrait-picture");
  }

  #showFaces({ width, height, faces, warnings }) {
    setProportions(this.#box, width, height);
    showList("portrait-warnings", warnings);
    if (faces.length < 2) {
      find("portrait-note").textContent = "One face found.";
      return;
    }
    const area = (face) => face.width * face.height;
    const largest = faces.reduce((best, face) => (area(face) > area(best) ? face : best));
    this.face = largest.number;
    const choice = document.createElement("fieldset");
    choice.className = "faces";
    const legend = document.createElement("legend");
    legend.className = "unseen";
    legend.textContent = "The face to animate";
    choice.append(legend, ...faces.map((face) => this.#faceBox(face, width, height)));
    this.#box.append(choice);
    find("portrait-note").textContent = `${faces.length} faces found. Choose the one to animate.`;
  }

  #faceBox(face, width, height) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    const number = document.createElement("span");
    Object.assign(input, { type: "radio", name: "face-choice", value: face.number, checked: face.number === this.face });
    input.setAttribute("aria-label", `Face ${face.number} from the left`);
    input.addEventListener("change", () => {
      this.face = face.number;
      this.#changed();
    });
    number.textContent = face.number;
    const grown = 0.12;
    const centre = (100 * (face.y + (0.5 - grown / 2) * face.height)) / height;
    label.style.left = `${(100 * (face.x + 0.5 * face.width)) / width}%`;
    label.style.top = `${centre}%`;
    label.style.setProperty("--centre", centre);
    label.style.width = `${(100 * (1 + 2 * grown) * face.width) / width}%`;
    label.style.height = `${(100 * (1 + 3 * grown) * face.height) / height}%`;
    label.append(input, number);
    return label;
  }
}

class Camera {
  #take;
  #stream = null;

  constructor(take) {
    this.#take = take;
    const dialog = find("camera");
    find("portrait-camera").addEventListener("click", () => this.#open());
    find("camera-close").addEventListener("click", () => dialog.close());
    find("camera-take").addEventListener("click", () => this.#photograph());
    dialog.addEventListener("close", () => this.#stop());
  }

  async #open() {
    showError("portrait", "");
    try {
      const wanted = { facingMode: "user", width: { ideal: LARGEST_PHOTO }, height: { ideal: LARGEST_PHOTO } };
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: wanted });
    } catch (error) {
      showError("portrait", deviceFault(error, "camera"));
      return;
    }
    find("camera-view").srcObject = this.#stream;
    find("camera").showModal();
  }

  #photograph() {
    const view = find("camera-view");
    if (!view.videoWidth) return;
    const canvas = document.createElement("canvas");
    canvas.width = view.videoWidth;
    canvas.height = view.videoHeight;
    canvas.getContext("2d").drawImage(view, 0, 0);
    canvas.toBlob((blob) => {
      find("camera").close();
      this.#take(new File([blob], "camera.jpg", { type: blob.type }));
    }, "image/jpeg", 0.95);
  }

  #stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    find("camera-view").srcObject = null;
  }
}
