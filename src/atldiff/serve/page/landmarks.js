// What the landmarks of a video show: the points on the playing picture, and how far the mouth is open.

import { find, show } from "./page.js";

const CONTOURS = [
  { first: 0, last: 16 },
  { first: 17, last: 21 },
  { first: 22, last: 26 },
  { first: 27, last: 30 },
  { first: 31, last: 35 },
  { first: 36, last: 41, isClosed: true },
  { first: 42, last: 47, isClosed: true },
  { first: 48, last: 59, isClosed: true },
  { first: 60, last: 67, isClosed: true },
];
const INNER_LIP_PAIRS = [[61, 67], [62, 66], [63, 65]];
const OUTER_EYE_CORNERS = [36, 45];
const LEAST_SPAN = 0.1;

/** Inner-lip gap over the distance of the outer eye corners. */
export function mouthOpening(points) {
  if (!points.length) return 0;
  const distance = ([a, b]) => Math.hypot(points[a][0] - points[b][0], points[a][1] - points[b][1]);
  const gap = INNER_LIP_PAIRS.reduce((sum, pair) => sum + distance(pair), 0) / INNER_LIP_PAIRS.length;
  return gap / distance(OUTER_EYE_CORNERS);
}

export class LandmarkViews {
  #video = find("video");
  #canvas = find("overlay");
  #landmarks = [];
  #openings = [];
  #fps = 25;
  #run = 0;

  constructor() {
    new ResizeObserver(() => this.#draw(this.#video.currentTime)).observe(this.#video);
    this.#video.addEventListener("seeked", () => this.#draw(this.#video.currentTime));
    find("mouth-graph").addEventListener("click", (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      this.#video.currentTime = ((event.clientX - box.left) / box.width) * this.#video.duration;
    });
  }

  /** Take the landmarks of another video. */
  take({ landmarks, fps }) {
    this.#landmarks = landmarks;
    this.#fps = fps;
    this.#openings = landmarks.map(mouthOpening);
    this.#plot();
    this.#run += 1;
    this.#follow(this.#run);
    this.#draw(this.#video.currentTime);
  }

  /** Show or hide the points. */
  showPoints(isShown) {
    show(this.#canvas, isShown);
    this.#draw(this.#video.currentTime);
  }

  #follow(run) {
    this.#video.requestVideoFrameCallback((_, { mediaTime }) => {
      if (run !== this.#run) return;
      this.#draw(mediaTime);
      this.#follow(run);
    });
  }

  #draw(time) {
    if (!this.#landmarks.length) return;
    const frame = Math.min(this.#landmarks.length - 1, Math.max(0, Math.floor(time * this.#fps + 1e-3)));
    this.#movePlayhead(frame);
    if (this.#canvas.hidden || !this.#video.videoWidth) return;
    const box = this.#video.getBoundingClientRect();
    const density = window.devicePixelRatio;
    this.#canvas.width = Math.round(box.width * density);
    this.#canvas.height = Math.round(box.height * density);
    const context = this.#canvas.getContext("2d");
    const scale = this.#canvas.width / this.#video.videoWidth;
    drawPoints(context, this.#landmarks[frame].map(([x, y]) => [x * scale, y * scale]), density);
  }

  #plot() {
    const count = this.#openings.length;
    const widest = this.#openings.reduce((best, opening) => Math.max(best, opening), 0);
    const most = Math.max(LEAST_SPAN, widest);
    const places = this.#openings.map((opening, index) => {
      const x = (1000 * (index + 0.5)) / count;
      return `${x.toFixed(1)} ${(98 - (94 * opening) / most).toFixed(1)}`;
    });
    const line = `M${places.join("L")}`;
    const graph = find("mouth-graph");
    graph.querySelector(".line").setAttribute("d", line);
    graph.querySelector(".area").setAttribute("d", `${line}L1000 100L0 100Z`);
    const seconds = count / this.#fps;
    const widestAt = this.#openings.indexOf(widest) / this.#fps;
    find("mouth-end").textContent = `${seconds.toFixed(1)} s`;
    const words = `Mouth opening over ${seconds.toFixed(1)} seconds; widest at ${widestAt.toFixed(1)} seconds.`;
    graph.setAttribute("aria-label", words);
  }

  #movePlayhead(frame) {
    const now = find("mouth-graph").querySelector(".now");
    const x = (1000 * (frame + 0.5)) / this.#openings.length;
    now.setAttribute("x1", x);
    now.setAttribute("x2", x);
    find("mouth-value").textContent = `${Math.round(100 * this.#openings[frame])} % of the eyes’ distance`;
  }
}

function drawPoints(context, points, density) {
  if (!points.length) return;
  const [right, left] = OUTER_EYE_CORNERS.map((corner) => points[corner]);
  const unit = Math.min(1.25 * density, Math.hypot(right[0] - left[0], right[1] - left[1]) / 60);
  context.lineJoin = "round";
  for (const [width, colour] of [[2.75, "rgb(0 0 0 / 40%)"], [1.25, "#7df3de"]]) {
    context.lineWidth = width * unit;
    context.strokeStyle = colour;
    for (const { first, last, isClosed } of CONTOURS) {
      context.beginPath();
      for (const point of points.slice(first, last + 1)) context.lineTo(...point);
      if (isClosed) context.closePath();
      context.stroke();
    }
  }
  context.fillStyle = "#fff";
  for (const [x, y] of points) {
    context.beginPath();
    context.arc(x, y, 1.5 * unit, 0, 2 * Math.PI);
    context.fill();
  }
}
