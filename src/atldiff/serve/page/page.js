// Small things that the parts of the page share.

export const find = (id) => document.getElementById(id);

/** Show what is wrong beside a field, or clear it with "". */
export function showError(field, text) {
  find(`${field}-error`).textContent = text;
  const input = find(field);
  if (input?.matches("input")) input.setAttribute("aria-invalid", String(text !== ""));
  find(`${field}-frame`)?.classList.toggle("faulty", text !== "");
}

export function show(element, isShown) {
  element.hidden = !isShown;
}

/** Fill a list with sentences; an empty one is not seen. */
export function showList(id, texts) {
  find(id).replaceChildren(...texts.map((text) => Object.assign(document.createElement("li"), { textContent: sentence(text) })));
}

/** What the service says, as a sentence. */
export function sentence(text) {
  const words = String(text || "something went wrong").trim();
  const end = /[.!?]$/.test(words) ? "" : ".";
  return words[0].toUpperCase() + words.slice(1) + end;
}

/** Give an element of class "picture" the proportions of what it holds. */
export function setProportions(element, width, height) {
  element.style.setProperty("--width", width);
  element.style.setProperty("--height", height);
}

/** Let files be dropped on an element. */
export function acceptDrops(element, take) {
  let depth = 0;
  const mark = (change) => {
    depth = change === 0 ? 0 : depth + change;
    element.classList.toggle("over", depth > 0);
  };
  element.addEventListener("dragenter", () => mark(1));
  element.addEventListener("dragleave", () => mark(-1));
  element.addEventListener("drop", (event) => {
    mark(0);
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}

/** What to say when a camera or a microphone cannot be used. */
export function deviceFault(error, device) {
  const reasons = {
    NotAllowedError: `The browser may not use the ${device}. Allow it in the address bar, then try again.`,
    NotFoundError: `There is no ${device} on this device.`,
    NotReadableError: `The ${device} is in use by another program.`,
  };
  return reasons[error.name] ?? `The ${device} cannot be used: ${error.message}`;
}

export const hasDevices = () => Boolean(navigator.mediaDevices?.getUserMedia);

export function minutes(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}
