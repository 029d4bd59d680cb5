// The runs: polled while the page is seen, selected by the address, and acted on.
import * as api from "./api.js";
import { announce, confirm, setText } from "./dom.js";
import { emit, ended, jobById, on, restore, runValues, set, setAll, state } from "./state.js";

const FAST = 500;
const SLOW = 3000;
let timer = 0;
let text = "";
let asking = false;

const busy = () => state.jobs.some((job) => ["running", "pausing", "stopping"].includes(job.state));

export async function poll() {
  clearTimeout(timer);
  if (asking) return;
  asking = true;
  try {
    take(await api.jobsText());
  } catch {
    // The line in the bar says that the connection is lost; the next poll finds it again.
  }
  asking = false;
  clearTimeout(timer);
  timer = setTimeout(poll, busy() && !document.hidden ? FAST : SLOW);
}

function take(answer) {
  if (answer === text) return;
  const before = new Map(state.jobs.map((job) => [job.id, job.state]));
  text = answer;
  state.jobs = JSON.parse(answer).jobs;
  state.jobsKnown = true;
  if (state.selected && !jobById(state.selected)) select(null);
  for (const job of state.jobs) if (before.has(job.id) && before.get(job.id) !== job.state) tell(job);
  emit("jobs");
}

const WORDS = { running: "started", paused: "is paused", stopped: "is stopped, its picture is kept", done: "is finished", failed: "failed" };

function tell(job) {
  if (WORDS[job.state]) announce(`${job.title} ${WORDS[job.state]}${job.error ? `: ${job.error}` : ""}`);
}

// Puts one run's news in at once; the next poll confirms them.
export function took(job) {
  const index = state.jobs.findIndex((one) => one.id === job.id);
  if (index < 0) state.jobs = [job, ...state.jobs];
  else state.jobs = state.jobs.with(index, job);
  text = "";
  emit("jobs");
  poll();
}

export function select(id, { replace = false } = {}) {
  const hash = id ? `#run=${id}` : "#";
  if (location.hash !== hash && (id || location.hash)) history[replace ? "replaceState" : "pushState"](null, "", id ? hash : location.pathname);
  set("selected", id);
}

function fromAddress() {
  const id = /^#run=([a-z0-9]{1,64})$/.exec(location.hash)?.[1] ?? null;
  if (!id || !state.jobsKnown || jobById(id)) set("selected", id);
}

// Next or previous run in the gallery, newest first.
export function step(by) {
  const index = state.jobs.findIndex((job) => job.id === state.selected);
  const next = state.jobs[index < 0 ? 0 : Math.min(state.jobs.length - 1, Math.max(0, index + by))];
  if (next) select(next.id, { replace: true });
}

export async function act(job, verb) {
  try {
    const answer = await api.act(job.id, verb);
    took(answer);
    if (verb === "again") select(answer.id);
  } catch (error) {
    failed(error);
  }
}

export async function rename(job, title) {
  const name = title.trim();
  if (!name || name === job.title) return;
  try {
    took(await api.change(job.id, { title: name }));
  } catch (error) {
    failed(error);
  }
}

export async function remove(job) {
  const words = ended(job) ? "Its picture and settings are deleted from the disk." : "The run ends; its picture and settings are deleted.";
  if (!(await confirm(`Delete “${job.title}”?`, words, "Delete"))) return;
  try {
    await api.removeJob(job.id);
    const index = state.jobs.findIndex((one) => one.id === job.id);
    state.jobs = state.jobs.filter((one) => one.id !== job.id);
    text = "";
    if (state.selected === job.id) select((state.jobs[index] ?? state.jobs[index - 1])?.id ?? null, { replace: true });
    announce("Deleted");
    emit("jobs");
    poll();
  } catch (error) {
    failed(error);
  }
}

// Pictures, masks and settings of an earlier run become the set-up.
export async function likeThis(job) {
  const values = runValues(job);
  const shares = (values.style_weights ?? "none").split(",").map(Number);
  const total = shares.reduce((sum, share) => sum + share, 0);
  const several = shares.length === job.styles.length && total > 0;
  const complete = await restore({
    content: job.content,
    contentMask: job.content_mask,
    styles: job.styles.map((picture, index) => ({
      picture,
      share: several ? Math.round((100 * shares[index]) / total) : 50,
      mask: job.masks?.[index] ?? null,
      styleMask: job.style_masks?.[index] ?? null,
    })),
    values: { ...values, style_weights: "none" },
  });
  announce(complete ? "Set up like this run" : "Set up like this run; some of its pictures are gone");
  emit("show", "setup");
}

function failed(error) {
  announce(error.message);
  emit("problem", error.message);
  poll();
}

function showConnection(reached, status) {
  const words = reached ? "" : status === 401 ? "Open the link that the terminal shows." : "Connection lost. Trying again…";
  setText(document.getElementById("connection"), words);
  document.body.classList.toggle("offline", !reached);
  set("online", reached);
}

export function startJobs() {
  api.watchConnection(showConnection);
  addEventListener("hashchange", fromAddress);
  addEventListener("popstate", fromAddress);
  document.addEventListener("visibilitychange", () => !document.hidden && poll());
  addEventListener("online", poll);
  fromAddress();
  on("selected", () => {
    const job = jobById(state.selected);
    document.title = job ? `${job.title} – fastnst studio` : "fastnst studio";
  });
  return poll();
}
