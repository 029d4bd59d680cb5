// The line above Start: time, memory and size of the run as the settings stand, or what is missing.
import * as api from "./api.js";
import { announce, button, bytes, duration, el, setText, size } from "./dom.js";
import { reveal } from "./settings.js";
import { emit, on, payload, ready, state } from "./state.js";

const WAIT = 400;
let timer = 0;
let pending = null;
let line, more, warnings, details, text, startButton;

function missing() {
  const { content, styles } = state.setup;
  if (state.uploads) return "Uploading…";
  if (!content && !styles.length) return "Add a photograph and a painting.";
  if (!content) return "Add a photograph.";
  return styles.length ? "" : "Add a painting.";
}

function showError(error) {
  const setting = error.setting && state.spec.settings[error.setting] ? error.setting : null;
  emit("errors", setting ? { setting, message: error.message } : {});
  line.classList.add("error");
  setText(line, error.message);
  more.replaceChildren(setting ? button("Show the setting", { class: "chip", onclick: () => reveal(setting) }) : "");
  warnings.replaceChildren();
  details.hidden = true;
}

function showPlan(plan) {
  emit("errors", {});
  line.classList.add("planned");
  line.classList.toggle("error", plan.fits === false);
  const parts = [size(...plan.size)];
  if (plan.seconds !== null) parts.unshift(`About ${duration(plan.seconds)}`);
  if (plan.scales.length > 1) parts.push(`${plan.scales.length}\u00a0scales`);
  parts.push(plan.free === null ? bytes(plan.memory) : `${bytes(plan.memory)} of ${bytes(plan.free)}`);
  setText(line, parts.join(" · "));
  more.replaceChildren();
  warnings.replaceChildren(...plan.warnings.map((warning) => el("li", {}, warning)));
  setText(text, plan.text);
  details.hidden = !plan.text;
}

function idle(words) {
  emit("errors", {});
  line.classList.remove("planned");
  line.classList.remove("error");
  setText(line, words);
  more.replaceChildren();
  warnings.replaceChildren();
  details.hidden = true;
}

async function ask() {
  pending?.abort();
  if (!ready()) return;
  const mine = (pending = new AbortController());
  try {
    const plan = await api.plan(payload(), mine.signal);
    if (pending === mine) showPlan(plan);
  } catch (error) {
    if (error.name !== "AbortError" && pending === mine && error.status) showError(error);
  } finally {
    if (pending === mine) line.classList.remove("waiting");
  }
}

function follow() {
  clearTimeout(timer);
  startButton.disabled = !ready();
  const words = missing();
  if (words) {
    pending?.abort();
    return idle(words);
  }
  if (!line.classList.contains("planned")) setText(line, "Planning…");
  line.classList.add("waiting");
  timer = setTimeout(ask, WAIT);
}

// Starts a run; calls back with it.
export async function start(started) {
  if (!ready() || startButton.dataset.busy) return announce(missing());
  startButton.dataset.busy = "yes";
  try {
    started(await api.startJob(payload()));
  } catch (error) {
    showError(error);
    announce(error.message);
  } finally {
    delete startButton.dataset.busy;
  }
}

export function startPlan(started) {
  startButton = document.getElementById("start");
  line = el("p", { id: "plan-line", class: "plan-line number", data: { testid: "plan-line" } });
  more = el("div", {});
  warnings = el("ul", { class: "warnings" });
  text = el("pre", { tabIndex: 0 });
  details = el("details", { class: "plan-details" }, el("summary", {}, "Whole plan"), text);
  document.getElementById("plan").append(line, more, warnings, details);
  startButton.addEventListener("click", () => start(started));
  on("setup uploads", follow);
  on("online", (online) => online && follow());
  follow();
}
