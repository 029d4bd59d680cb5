// The loss over the steps, on a logarithmic scale, with the scales and the changes marked.
import * as api from "./api.js";
import { compact, el, setText } from "./dom.js";
import { on, selectedJob } from "./state.js";

const LINES = ["total", "style", "content", "tv"];
const NAMES = { total: "Total", style: "Painting", content: "Photograph", tv: "Smoothness" };
const MARGIN = { left: 44, right: 8, top: 8, bottom: 20 };

export class Curve {
  constructor() {
    this.run = null;
    this.asking = false;
    this.at = null; // step that is read
    this.canvas = el("canvas", { class: "curve", tabIndex: 0, role: "img", data: { testid: "curve" } });
    this.reading = el("p", { class: "quiet-text number", "aria-live": "polite" });
    this.values = Object.fromEntries(LINES.map((name) => [name, el("span", { class: "number" })]));
    const legend = LINES.map((name) => el("li", { class: `line-${name}` }, el("span", {}, NAMES[name]), this.values[name]));
    this.node = el("div", { class: "curve-box" }, this.canvas, this.reading, el("ul", { class: "legend" }, legend));
    this.reset(null);
    this.canvas.addEventListener("pointermove", (event) => this.readAt(event));
    this.canvas.addEventListener("pointerleave", () => this.read(null));
    this.canvas.addEventListener("blur", () => this.read(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    on("theme", () => this.draw());
  }

  reset(id) {
    this.run = id;
    this.at = null;
    this.trace = Object.fromEntries(LINES.map((name) => [name, []]));
  }

  get length() {
    return this.trace.total.length;
  }

  async follow(job) {
    if (this.run !== job.id) this.reset(job.id);
    this.draw();
    if (this.asking || this.length >= job.step) return;
    this.asking = true;
    try {
      const part = await api.trace(job.id, this.length);
      if (this.run === job.id && part.start === this.length) for (const name of LINES) this.trace[name].push(...part[name]);
    } catch {
      // The next poll asks again.
    }
    this.asking = false;
    this.draw();
  }

  geometry(job) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const shown = Math.max(2, job.steps, this.length);
    let [low, high] = [Infinity, 0];
    for (const name of LINES) {
      for (const value of this.trace[name]) {
        if (value > 0 && value < Infinity) [low, high] = [Math.min(low, value), Math.max(high, value)];
      }
    }
    if (!(high > 0)) return null;
    low = Math.max(low, high / 1e6);
    const [bottom, top] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high * 1.0001))];
    const x = (step) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * step) / (shown - 1);
    const y = (value) => MARGIN.top + ((height - MARGIN.top - MARGIN.bottom) * (top - Math.log10(Math.max(value, 10 ** bottom)))) / (top - bottom);
    return { width, height, shown, bottom, top, x, y };
  }

  draw() {
    const job = selectedJob();
    const { canvas } = this;
    if (!job || job.id !== this.run || !canvas.clientWidth) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(`--${name}`).trim();
    context.font = `11px ${style.fontFamily}`;
    const place = this.geometry(job);
    canvas.setAttribute("aria-label", this.length ? `Loss curve, ${this.length} steps. Arrow keys read it.` : "Loss curve, nothing yet");
    if (place) {
      this.drawGrid(context, place, color, job);
      for (const name of [...LINES].reverse()) this.drawLine(context, place, this.trace[name], color(`line-${name}`), name === "total" ? 2 : 1.25);
      if (this.at !== null) this.drawCursor(context, place, color);
    }
    this.tell(job);
  }

  drawGrid(context, { width, height, shown, bottom, top, x, y }, color, job) {
    context.lineWidth = 1;
    context.fillStyle = color("muted");
    context.strokeStyle = color("line");
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (let power = bottom; power <= top; power += Math.ceil((top - bottom) / 4)) {
      this.segment(context, MARGIN.left, y(10 ** power), width - MARGIN.right, y(10 ** power));
      context.fillText(power >= 0 && power < 4 ? String(10 ** power) : `1e${power}`, MARGIN.left - 6, y(10 ** power));
    }
    context.textBaseline = "alphabetic";
    context.fillText(String(shown), width - MARGIN.right, height - 4);
    context.textAlign = "left";
    context.fillText("1", MARGIN.left, height - 4);
    context.strokeStyle = color("muted");
    context.setLineDash([2, 3]);
    for (const step of job.scale_starts.slice(1)) this.segment(context, x(step), MARGIN.top, x(step), height - MARGIN.bottom);
    context.setLineDash([]);
    context.fillStyle = color("accent");
    for (const { step } of job.changes) {
      const at = x(Math.max(0, step - 1));
      context.beginPath();
      context.moveTo(at, height - MARGIN.bottom - 1);
      context.lineTo(at - 5, height - MARGIN.bottom + 8);
      context.lineTo(at + 5, height - MARGIN.bottom + 8);
      context.fill();
    }
  }

  segment(context, x1, y1, x2, y2) {
    context.beginPath();
    context.moveTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
    context.lineTo(Math.round(x2) + 0.5, Math.round(y2) + 0.5);
    context.stroke();
  }

  drawLine(context, { x, y }, values, stroke, width) {
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.lineJoin = "round";
    context.beginPath();
    const every = Math.max(1, Math.floor(values.length / 2000));
    let drawing = false;
    for (let i = 0; i < values.length; i += every) {
      if (!(values[i] > 0)) drawing = false;
      else if (drawing) context.lineTo(x(i), y(values[i]));
      else {
        context.moveTo(x(i), y(values[i]));
        drawing = true;
      }
    }
    context.stroke();
  }

  drawCursor(context, { height, x, y }, color) {
    context.strokeStyle = color("text");
    context.lineWidth = 1;
    this.segment(context, x(this.at), MARGIN.top, x(this.at), height - MARGIN.bottom);
    for (const name of LINES) {
      const value = this.trace[name][this.at];
      if (!(value > 0)) continue;
      context.fillStyle = color(`line-${name}`);
      context.beginPath();
      context.arc(x(this.at), y(value), 3, 0, 2 * Math.PI);
      context.fill();
    }
  }

  tell(job) {
    const at = this.at ?? this.length - 1;
    for (const name of LINES) setText(this.values[name], at >= 0 ? compact(this.trace[name][at]) : "–");
    const change = job.changes.filter(({ step }) => Math.abs(step - 1 - at) < Math.max(1, job.steps / 100));
    const words = change.flatMap(({ settings }) => Object.entries(settings).map(([name, text]) => `${name} ${text}`));
    setText(this.reading, this.at === null ? "" : `Step ${at + 1}${words.length ? `: ${words.join(", ")}` : ""}`);
  }

  readAt(event) {
    const job = selectedJob();
    const place = job && this.geometry(job);
    if (!place) return;
    const left = event.clientX - this.canvas.getBoundingClientRect().left - MARGIN.left;
    this.read(Math.round((left / (place.width - MARGIN.left - MARGIN.right)) * (place.shown - 1)));
  }

  read(step) {
    this.at = step === null || !this.length ? null : Math.min(this.length - 1, Math.max(0, step));
    this.draw();
  }

  key(event) {
    const by = event.shiftKey ? 10 : 1;
    const at = this.at ?? this.length - 1;
    const to = { ArrowLeft: at - by, ArrowRight: at + by, Home: 0, End: this.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.read(to);
  }
}
