// A face that talks, in any page: see docs/assistants.md. One module, no build step, nothing else to load.

const GATHERING_MS = 2000;
const CONNECTING_MS = 30_000;

/** Events: "said" (a text has been said), "error" (`detail` says what), "close". */
export class ATLDiffFace extends EventTarget {
  /** Resolves when the face can be seen; rejects with what was wrong. */
  ready;
  #video;
  #peer = new RTCPeerConnection({ iceServers: [] });
  #channel = this.#peer.createDataChannel("atldiff");
  #sound;
  #context = null;
  #playing = new Set();
  #texts = [];
  #told;
  #isClosed = false;

  /**
   * @param {HTMLVideoElement} video shows the face.
   * @param {{url?: string, token?: string, portrait: Blob | string, options?: Object<string, string | number>}} settings
   *   where the service is (where this module is from), its token, the portrait or its address, and how the face moves.
   */
  constructor(video, { url = new URL(".", import.meta.url).href, token = "", portrait, options = {} }) {
    super();
    this.#video = video;
    this.#told = new Promise((tell) => this.#channel.addEventListener("message", ({ data }) => this.#hear(JSON.parse(data), tell)));
    this.#peer.addTransceiver("video", { direction: "recvonly" });
    this.#sound = this.#peer.addTransceiver("audio", { direction: "sendrecv" });
    this.#peer.addEventListener("track", ({ track }) => this.#show(track));
    this.#peer.addEventListener("connectionstatechange", () => {
      if (["failed", "closed"].includes(this.#peer.connectionState)) this.close();
    });
    this.#channel.addEventListener("close", () => this.close());
    this.ready = this.#start(url, token, portrait, options);
    this.ready.catch(() => this.close());
  }

  /** Say a text (resolves when it has been said), play an AudioBuffer (when it has ended), or follow a MediaStream. */
  async speak(what) {
    await this.ready;
    if (typeof what === "string") return this.#say(what);
    if (what instanceof AudioBuffer) return this.#play(what);
    return this.#sound.sender.replaceTrack(what?.getAudioTracks()[0] ?? null);
  }

  /** Be silent at once. */
  interrupt() {
    for (const source of this.#playing) source.stop();
    for (const { resolve } of this.#texts.splice(0)) resolve();
    if (this.#channel.readyState === "open") this.#channel.send(JSON.stringify({ type: "interrupt" }));
  }

  close() {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#peer.close();
    this.#context?.close();
    for (const { reject } of this.#texts.splice(0)) reject(new Error("the face is gone"));
    this.#video.srcObject = null;
    this.dispatchEvent(new Event("close"));
  }

  async #start(url, token, portrait, options) {
    const picture = typeof portrait === "string" ? await (await fetch(portrait)).blob() : portrait;
    await this.#peer.setLocalDescription();
    await this.#gathered();
    const form = new FormData();
    for (const [name, value] of Object.entries(options)) form.append(name, value);
    form.append("portrait", picture, "portrait");
    form.append("offer", new Blob([this.#peer.localDescription.sdp]), "offer");
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(new URL("v1/live/offer", url.endsWith("/") ? url : `${url}/`), { method: "POST", body: form, headers });
    const content = await answer.json();
    if (!answer.ok) throw Object.assign(new Error(content.detail), { status: answer.status, field: content.field });
    await this.#peer.setRemoteDescription(content);
    await within(CONNECTING_MS, this.#told, "the service cannot be reached over WebRTC");
  }

  /** The service wants all candidates at once. */
  async #gathered() {
    if (this.#peer.iceGatheringState === "complete") return;
    await Promise.race([
      new Promise((resolve) => setTimeout(resolve, GATHERING_MS)),
      new Promise((resolve) => {
        this.#peer.addEventListener("icegatheringstatechange", () => {
          if (this.#peer.iceGatheringState === "complete") resolve();
        });
      }),
    ]);
  }

  #show(track) {
    this.#video.srcObject ??= new MediaStream();
    this.#video.srcObject.addTrack(track);
    this.#video.play().catch(() => {}); // where the browser wants a click first
  }

  #hear(message, tell) {
    if (message.type === "ready") {
      tell();
    } else if (message.type === "said") {
      this.#texts.shift()?.resolve();
      this.dispatchEvent(new Event("said"));
    } else if (message.type === "error") {
      const error = new Error(message.problem.detail);
      if (message.problem.field === "text") this.#texts[0]?.reject(error);
      this.dispatchEvent(new CustomEvent("error", { detail: error }));
    }
  }

  #say(text) {
    this.#channel.send(JSON.stringify({ type: "say", text }));
    return new Promise((resolve, reject) => this.#texts.push({ resolve, reject }));
  }

  async #play(buffer) {
    this.#context ??= new AudioContext();
    const target = this.#context.createMediaStreamDestination();
    const source = new AudioBufferSourceNode(this.#context, { buffer });
    source.connect(target);
    await this.#sound.sender.replaceTrack(target.stream.getAudioTracks()[0]);
    this.#playing.add(source);
    const ended = new Promise((resolve) => source.addEventListener("ended", resolve));
    source.start();
    await ended;
    this.#playing.delete(source);
  }
}

async function within(milliseconds, promise, otherwise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(otherwise)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
