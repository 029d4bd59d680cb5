// Under the picture: how far the run is, and pause, resume, stop.
import { button, compact, duration, el, setText } from "./dom.js";
import { act, remove } from "./jobs.js";
import { stateText } from "./gallery.js";
import { ended, on, selectedJob } from "./state.js";

let bar, line, problem, buttons;

const OFFERS = {
  queued: ["cancel"],
  running: ["pause", "stop"],
  pausing: ["stop"],
  paused: ["resume", "stop"],
  failed: ["resume", "again"],
};

function facts(job) {
  if (job.state === "queued") return [stateText(job)];
  const parts = [];
  if (!ended(job)) parts.push({ running: "Running", pausing: "Pausing…", paused: "Paused", stopping: "Stopping…" }[job.state]);
  else parts.push({ done: "Finished", stopped: "Stopped", failed: "Failed" }[job.state]);
  if (job.steps) parts.push(`step ${job.step} of ${job.steps}`);
  if (job.scales > 1 && job.scale && !ended(job)) parts.push(`scale ${job.scale} of ${job.scales}`);
  if (job.state === "running" && job.remaining !== null) parts.push(`${duration(job.remaining)} left`);
  else if (job.seconds) parts.push(ended(job) ? `took ${duration(job.seconds)}` : `${duration(job.seconds)} so far`);
  if (job.losses && !ended(job)) parts.push(`loss ${compact(job.losses.total)}`);
  return parts;
}

function render() {
  const job = selectedJob();
  document.getElementById("transport").hidden = !job;
  if (!job) return setText(problem, "");
  bar.hidden = ended(job) || job.state === "queued";
  bar.max = Math.max(1, job.steps);
  bar.value = job.step;
  setText(line, facts(job).join(" · "));
  if (job.error) setText(problem, job.error);
  else if (problem.dataset.run !== `${job.id} ${job.state}`) setText(problem, "");
  problem.dataset.run = `${job.id} ${job.state}`;
  const offered = OFFERS[job.state] ?? [];
  const focused = Object.values(buttons).find((node) => node === document.activeElement);
  for (const [verb, node] of Object.entries(buttons)) node.hidden = !offered.includes(verb);
  // The button that had the focus may be gone; its successor takes it.
  if (focused?.hidden) (Object.values(buttons).find((node) => !node.hidden) ?? document.getElementById("stage")).focus();
}

export function pauseOrResume() {
  const job = selectedJob();
  if (job?.state === "running") act(job, "pause");
  else if (job?.state === "paused") act(job, "resume");
}

export function startTransport() {
  bar = el("progress", { "aria-label": "Progress", data: { testid: "progress" } });
  line = el("p", { class: "run-line number", data: { testid: "run-line" } });
  problem = el("p", { class: "error", role: "alert", data: { testid: "run-error" } });
  const make = (verb, label, name) => button(label, { icon: name, data: { testid: verb }, onclick: () => (verb === "cancel" ? remove(selectedJob()) : act(selectedJob(), verb)) });
  buttons = {
    resume: make("resume", "Resume", "play"),
    pause: make("pause", "Pause", "pause"),
    stop: make("stop", "Stop and keep", "stop"),
    cancel: make("cancel", "Take out of the queue", "close"),
    again: make("again", "Try again", "again"),
  };
  document.getElementById("transport").append(bar, el("div", { class: "transport-row" }, el("div", { class: "transport-text" }, line, problem), el("div", { class: "row" }, Object.values(buttons))));
  on("jobs selected", render);
  on("problem", (message) => setText(problem, message));
  render();
}
