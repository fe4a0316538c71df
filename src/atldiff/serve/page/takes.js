// The videos of this page, kept side by side with names that say what they are.

import { deleteVideo, getPart } from "./api.js";
import { find, show } from "./page.js";

const TAKES = "atldiff-takes";
const MOST = 6;
const NOT_FOUND = 404;

/** What a take is called: its expression, and what else was chosen. */
export function describe({ mode, emotion, intensity, mouth, head_motion: head, blink, seed, steps, portrait, speech, text, words }) {
  const percent = (value) => `${Math.round(100 * value)} %`;
  const label = mode === "dub" ? "Dubbed" : document.querySelector(`[name="emotion"][value="${emotion}"] + span`).textContent.trim();
  const title = ["neutral", "auto", undefined].includes(emotion) ? label : `${label} ${percent(intensity)}`;
  const said = text ? `“${text.slice(0, 40)}${text.length > 40 ? "…" : ""}”` : [speech.name, words].filter(Boolean).join(" ");
  const more = [
    Number(mouth) !== 1 && `mouth ${percent(mouth)}`,
    head !== undefined && Number(head) !== 0.5 && `head ${percent(head)}`,
    blink === "off" && "no blinks",
    seed && `seed ${seed}`,
    steps && `${steps} steps`,
  ];
  return { title, about: [portrait.name, said, ...more.filter(Boolean)].join(" · ") };
}

/** A name for the file of a take. */
export function fileName({ title, about }) {
  const stem = `${about.split(" · ").slice(0, 2).map((name) => name.replace(/\.\w+(?= |$)/, "")).join(" ")} ${title}`;
  const plain = stem.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-+|-+$/g, "");
  return `${plain.slice(0, 80) || "atldiff"}.mp4`;
}

export class Takes {
  #takes = JSON.parse(sessionStorage.getItem(TAKES) ?? "[]");
  #chosen = null;
  #choose;
  #pictures = new Map();

  /** `choose` is called with the number of a job whose card was pressed. */
  constructor(choose) {
    this.#choose = choose;
  }

  /** The take of a job, if it is one. */
  get(id) {
    return this.#takes.find((take) => take.id === id);
  }

  /** The one that came before or after another. */
  beside(id) {
    const place = this.#takes.findIndex((take) => take.id === id);
    return (this.#takes[place - 1] ?? this.#takes[place + 1])?.id ?? null;
  }

  add(id, { title, about }) {
    const same = this.#takes.filter((take) => take.about === about && take.title.startsWith(title)).length;
    this.#takes.push({ id, title: same ? `${title} (${same + 1})` : title, about });
    while (this.#takes.length > MOST) {
      const old = this.#takes.shift();
      deleteVideo(old.id).catch(() => {});
    }
    this.#keep();
  }

  remove(id) {
    this.#takes = this.#takes.filter((take) => take.id !== id);
    URL.revokeObjectURL(this.#pictures.get(id));
    this.#pictures.delete(id);
    this.#keep();
  }

  /** Mark the one that is shown. */
  mark(id) {
    this.#chosen = id;
    this.draw();
  }

  #keep() {
    sessionStorage.setItem(TAKES, JSON.stringify(this.#takes));
    this.draw();
  }

  draw() {
    show(find("takes"), this.#takes.length > 1);
    find("take-list").replaceChildren(...this.#takes.map((take) => this.#card(take)));
  }

  #card({ id, title, about }) {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.take = id;
    button.title = about;
    button.setAttribute("aria-pressed", String(id === this.#chosen));
    const [name, note] = [document.createElement("strong"), document.createElement("span")];
    name.textContent = title;
    note.textContent = about;
    button.append(this.#picture(id), name, note);
    button.addEventListener("click", () => this.#choose(id));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  #picture(id) {
    const picture = Object.assign(document.createElement("img"), { alt: "" });
    if (this.#pictures.has(id)) picture.src = this.#pictures.get(id);
    else this.#fetch(id, picture);
    return picture;
  }

  /** The first frame; a take that the service no longer has is no take. */
  async #fetch(id, picture) {
    try {
      const address = URL.createObjectURL(await (await getPart(id, "preview")).blob());
      this.#pictures.set(id, address);
      picture.src = address;
    } catch (error) {
      if (error.status === NOT_FOUND && id !== this.#chosen) this.remove(id);
    }
  }
}
