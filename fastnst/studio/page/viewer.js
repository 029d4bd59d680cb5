// The picture: live or finished, beside the photograph or another run.
import * as api from "./api.js";
import { button, el, icon, newId, setText, when } from "./dom.js";
import { Stage } from "./stage.js";
import { jobById, on, selectedJob, set, state } from "./state.js";

const MODES = { result: "Result", before: "Before and after", ab: "A and B" };
let mode = "result";
let other = null; // id of the run on side A
let split = 50; // percent of the visible picture that shows side A
let stage, sheet, mainLayer, otherLayer, handle, labels, empty, back, zoomBox, zoomText, modes, picker, pickerBox;

// Swaps a picture in when it is decoded, so that nothing flickers. One is loaded at a time: a slow connection shows fewer
// frames, never a queue of old ones.
class Layer {
  constructor(className) {
    this.node = el("div", { class: `layer ${className}` });
    this.wanted = { url: null };
    this.loading = false;
  }

  // owner: what the picture belongs to. A picture of another owner is not shown any more when it comes late.
  show(url, alt, owner, ready = () => {}) {
    if (this.wanted.url === url) return;
    this.wanted = { url, alt, owner, ready };
    if (!url) this.node.replaceChildren();
    else if (!this.loading) this.load();
  }

  async load() {
    this.loading = true;
    for (let done = null; this.wanted.url && this.wanted !== done; ) {
      const { url, alt, owner, ready } = (done = this.wanted);
      const image = Object.assign(new Image(), { alt, draggable: false, src: url });
      try {
        await image.decode();
      } catch {
        if (this.wanted === done) this.wanted = { url: "" }; // the next poll tries again
        continue;
      }
      if (this.wanted.owner !== owner) continue;
      ready(image);
      this.node.replaceChildren(image);
    }
    this.loading = false;
  }
}

function source(job) {
  if (job.has_result) return api.result(job);
  return job.frame > 0 ? api.live(job) : null;
}

const comparable = (job) => job.has_result || job.frame > 0;

// What is shown: a picture of the set-up that was asked for, else the run, else the photograph of the set-up.
const shownJob = () => (state.peek ? null : selectedJob());
const shownPicture = () => state.peek ?? (selectedJob() ? null : state.setup.content);

function draw() {
  const job = shownJob();
  const photograph = job ? job.content : (shownPicture()?.id ?? null);
  const url = (job && source(job)) ?? (photograph && api.preview(photograph));
  empty.hidden = Boolean(url);
  zoomBox.hidden = !url;
  const waiting = Boolean(job) && !source(job);
  mainLayer.node.classList.toggle("waiting", waiting);
  const picture = shownPicture();
  const alt = job ? (waiting ? "Photograph, waiting for the first picture" : `Result of ${job.title}`) : (picture?.name ?? "");
  mainLayer.show(url, alt, job?.id ?? "", (image) => {
    const [width, height] = (!waiting && job?.size) || (picture && [picture.width, picture.height]) || [image.naturalWidth, image.naturalHeight];
    stage.resize(width, height);
  });
  drawOther(job);
  drawBar(job);
}

function drawOther(job) {
  const against = mode === "ab" ? jobById(other) : null;
  const shown = Boolean(job && comparable(job) && (mode === "before" || (against && comparable(against))));
  otherLayer.node.hidden = handle.hidden = labels.hidden = !shown;
  otherLayer.node.classList.toggle("cover", mode === "before");
  otherLayer.show(shown ? (against ? source(against) : api.preview(job.content)) : null, against ? `Result of ${against.title}` : "Photograph", against?.id ?? job?.id ?? "");
  if (!shown) return;
  setText(labels.children[0], against ? `A: ${against.title}, ${when(against.created)}` : "Before");
  setText(labels.children[1], against ? `B: ${job.title}, ${when(job.created)}` : "After");
  place();
}

function drawBar(job) {
  for (const [name, node] of Object.entries(modes)) {
    node.setAttribute("aria-pressed", String(name === mode));
    node.disabled = name !== "result" && !(job && comparable(job) && (name !== "ab" || candidates(job).length));
  }
  back.hidden = !state.peek || !state.selected;
  pickerBox.hidden = mode !== "ab" || !job;
  if (pickerBox.hidden) return;
  const runs = candidates(job);
  const wanted = runs.map((run) => `${run.id} ${run.title}`).join("\n");
  if (picker.dataset.runs !== wanted) {
    picker.dataset.runs = wanted;
    picker.replaceChildren(...runs.map((run) => el("option", { value: run.id }, `${run.title}, ${when(run.created)}`)));
  }
  picker.value = other ?? "";
}

const candidates = (job) => state.jobs.filter((run) => run.id !== job.id && comparable(run));

// The handle stands in the part of the picture that is seen, at any zoom.
function place() {
  setText(zoomText, `${Math.round(stage.zoom * 100)} %`);
  if (handle.hidden) return;
  const left = Math.max(0, stage.x);
  const right = Math.min(stage.node.clientWidth, stage.x + stage.width * stage.zoom);
  const x = left + ((right - left) * split) / 100;
  const cut = stage.width - (x - stage.x) / stage.zoom;
  otherLayer.node.style.clipPath = `inset(0 ${Math.min(stage.width, Math.max(0, cut))}px 0 0)`;
  const top = Math.max(0, stage.y);
  const room = stage.node.clientHeight;
  const bottom = Math.max(0, room - stage.y - stage.height * stage.zoom);
  Object.assign(handle.style, { left: `${x}px`, top: `${top}px`, bottom: `${bottom}px` });
  Object.assign(labels.style, { left: `${left}px`, right: `${stage.node.clientWidth - right}px`, bottom: `${bottom}px` });
  handle.setAttribute("aria-valuenow", String(Math.round(split)));
  handle.setAttribute("aria-valuetext", `${Math.round(split)} % ${labels.children[0].textContent}`);
}

function setSplit(percent) {
  split = Math.min(100, Math.max(0, percent));
  place();
}

function compareHandle() {
  const node = el("div", { class: "compare-handle", tabIndex: 0, role: "slider", "aria-label": "Compare", "aria-valuemin": 0, "aria-valuemax": 100, "aria-orientation": "horizontal", data: { testid: "compare-handle" } }, el("span", { class: "grip" }, icon("handle")));
  let dragged = false;
  node.addEventListener("pointerdown", (event) => {
    dragged = true;
    node.setPointerCapture(event.pointerId);
    event.stopPropagation();
  });
  node.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const left = Math.max(0, stage.x);
    const right = Math.min(stage.node.clientWidth, stage.x + stage.width * stage.zoom);
    setSplit((100 * (event.clientX - stage.node.getBoundingClientRect().left - left)) / Math.max(1, right - left));
  });
  for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, () => (dragged = false));
  node.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 2;
    const to = { ArrowLeft: split - step, ArrowDown: split - step, ArrowRight: split + step, ArrowUp: split + step, PageDown: split - 20, PageUp: split + 20, Home: 0, End: 100 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    setSplit(to);
  });
  return node;
}

function viewerBar() {
  const group = el("div", { class: "segments", role: "group", "aria-label": "View" });
  modes = Object.fromEntries(Object.entries(MODES).map(([name, label]) => [name, button(label, { class: "segment", data: { testid: `view-${name}` }, onclick: () => show(name) })]));
  group.append(...Object.values(modes));
  back = button("Back to the run", { icon: "undo", data: { testid: "back" }, onclick: () => set("peek", null) });
  const id = newId("side-a");
  picker = el("select", { id, data: { testid: "side-a" } });
  picker.addEventListener("change", () => {
    other = picker.value;
    draw();
  });
  pickerBox = el("div", { class: "side-a" }, el("label", { htmlFor: id }, "A"), picker);
  zoomText = el("output", { class: "number zoom-text", data: { testid: "zoom" } });
  zoomBox = el("div", { class: "zoom", role: "group", "aria-label": "Zoom" },
    button("−", { class: "tool", "aria-label": "Zoom out", onclick: () => stage.zoomBy(1 / 1.5) }), zoomText,
    button("+", { class: "tool", "aria-label": "Zoom in", onclick: () => stage.zoomBy(1.5) }),
    button("Fit", { class: "tool", data: { testid: "zoom-fit" }, onclick: () => stage.fit() }),
    button("1:1", { class: "tool number", "aria-label": "Pixel for pixel", data: { testid: "zoom-pixels" }, onclick: () => stage.zoomTo(1) }));
  document.getElementById("viewer-bar").append(group, back, pickerBox, zoomBox);
}

function show(name) {
  const job = shownJob();
  mode = name;
  if (name === "ab" && job) {
    const runs = candidates(job);
    if (!runs.some((run) => run.id === other)) other = runs[0]?.id ?? null;
  }
  draw();
}

// Goes round: result, before and after, A and B where there is another run.
export function nextMode() {
  const names = Object.keys(MODES).filter((name) => !modes[name].disabled);
  show(names[(names.indexOf(mode) + 1) % names.length]);
}

export const zoomKeys = {
  "+": () => stage.zoomBy(1.5),
  "=": () => stage.zoomBy(1.5),
  "-": () => stage.zoomBy(1 / 1.5),
  0: () => stage.fit(),
  1: () => stage.zoomTo(1),
};

export function startViewer(hello) {
  mainLayer = new Layer("main");
  otherLayer = new Layer("other");
  sheet = el("div", { class: "sheet" }, mainLayer.node, otherLayer.node);
  handle = compareHandle();
  labels = el("div", { class: "side-labels", "aria-hidden": "true" }, el("span"), el("span"));
  empty = hello;
  const node = document.getElementById("stage");
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "Picture. Plus and minus zoom, 0 fits, 1 shows pixels, arrow keys move it.");
  viewerBar();
  node.append(sheet, handle, labels, empty);
  stage = new Stage(node, sheet);
  stage.onchange = place;
  on("selected", () => set("peek", null));
  on("jobs selected setup peek", () => {
    const job = shownJob();
    if (mode !== "result" && (!job || (mode === "ab" && other === job.id))) show(job ? "ab" : "result");
    else draw();
  });
  draw();
}
