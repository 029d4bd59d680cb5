// The strip of runs: the queue and what is finished, newest first; one click or arrow key selects.
import * as api from "./api.js";
import { el, setText, store, stored, when } from "./dom.js";
import { select } from "./jobs.js";
import { emit, ended, on, set, state } from "./state.js";

const items = new Map();
const STATES = { queued: "In the queue", running: "Running", pausing: "Pausing", paused: "Paused", stopping: "Stopping", stopped: "Stopped", done: "", failed: "Failed" };

export function stateText(job) {
  if (job.state === "queued") return job.position ? `${job.position + 1}. in the queue` : "Next in the queue";
  if (job.state === "running") return job.steps ? `${Math.floor((100 * job.step) / job.steps)} %` : "Running";
  return STATES[job.state] || when(job.ended ?? job.created);
}

function item(id) {
  const image = el("img", { alt: "", loading: "lazy" });
  const title = el("span", { class: "run-title" });
  const status = el("span", { class: "run-state number" });
  const bar = el("span", { class: "run-bar" });
  const node = el("button", { type: "button", class: "run-item", data: { testid: "run-item", run: id }, onclick: () => pick(id) },
    el("span", { class: "thumb" }, image, bar), title, status);
  image.addEventListener("error", () => (image.hidden = true));
  image.addEventListener("load", () => (image.hidden = false));
  return { row: el("li", {}, node), node, image, title, status, bar };
}

function pick(id) {
  toggleGrid(false);
  set("peek", null);
  select(id);
  emit("show", "picture");
}

function show(job, made) {
  const url = job.frame || job.has_result ? api.thumbnail(job) : api.preview(job.content);
  if (made.url !== url) made.image.src = made.url = url;
  made.node.dataset.state = job.state;
  setText(made.title, job.title);
  setText(made.status, stateText(job));
  made.bar.style.width = ended(job) || !job.steps ? "0" : `${(100 * job.step) / job.steps}%`;
  const current = job.id === state.selected;
  if (current) made.node.setAttribute("aria-current", "true");
  else made.node.removeAttribute("aria-current");
}

function render() {
  const list = document.getElementById("runs-list");
  const known = new Set(state.jobs.map((job) => job.id));
  for (const [id, made] of items) {
    if (known.has(id)) continue;
    made.row.remove();
    items.delete(id);
  }
  state.jobs.forEach((job, index) => {
    if (!items.has(job.id)) items.set(job.id, item(job.id));
    const made = items.get(job.id);
    if (list.children[index] !== made.row) list.insertBefore(made.row, list.children[index] ?? null);
    show(job, made);
  });
  rove();
  const going = state.jobs.filter((job) => !ended(job)).length;
  const count = state.jobs.length;
  setText(document.getElementById("runs-count"), count ? `${count} ${count === 1 ? "run" : "runs"}${going ? `, ${going} to do` : ""}` : "Runs appear here and stay.");
  document.getElementById("runs").classList.toggle("none", !count);
}

// One stop of the Tab key for the whole list; arrow keys go on from there.
function rove(active = document.activeElement?.dataset?.run) {
  const stop = items.has(active) ? active : items.has(state.selected) ? state.selected : state.jobs[0]?.id;
  for (const [id, { node }] of items) node.tabIndex = id === stop ? 0 : -1;
}

function arrows(event) {
  const id = event.target.dataset?.run;
  if (!id || event.ctrlKey || event.metaKey || event.altKey) return;
  const index = state.jobs.findIndex((job) => job.id === id);
  const to = { ArrowRight: index + 1, ArrowDown: index + 1, ArrowLeft: index - 1, ArrowUp: index - 1, Home: 0, End: state.jobs.length - 1 }[event.key];
  const next = state.jobs[to];
  if (!next) return;
  event.preventDefault();
  items.get(next.id).node.focus();
  rove(next.id);
}

export function toggleGrid(on) {
  const button = document.getElementById("runs-grid");
  const wanted = on ?? button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(wanted));
  setText(button.querySelector("span"), wanted ? "One row" : "Show all");
  document.body.classList.toggle("grid", wanted);
  store("grid", wanted ? "yes" : null);
}

export function startGallery() {
  document.getElementById("runs-list").addEventListener("keydown", arrows);
  document.getElementById("runs-grid").addEventListener("click", () => toggleGrid());
  toggleGrid(stored("grid") === "yes");
  on("jobs", render);
  on("selected", () => {
    render();
    items.get(state.selected)?.row.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  render();
}
