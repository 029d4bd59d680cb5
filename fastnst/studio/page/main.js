// Puts the page together.
import * as api from "./api.js";
import { announce, button, el, openDialog, setText, store, stored } from "./dom.js";
import { startGallery, toggleGrid } from "./gallery.js";
import { poll, select, startJobs, step, took } from "./jobs.js";
import { shortcut, showKeys, startKeys } from "./keys.js";
import { addDemo, startPictures } from "./pictures.js";
import { start, startPlan } from "./plan.js";
import { startRun } from "./run.js";
import { allShown, focusSearch, showAll, startSettings } from "./settings.js";
import { emit, on, recall, set, state } from "./state.js";
import { pauseOrResume, startTransport } from "./transport.js";
import { nextMode, startViewer, zoomKeys } from "./viewer.js";

const THEMES = ["system", "light", "dark"];

function theme(next) {
  const now = stored("theme", "system");
  const wanted = next ? THEMES[(THEMES.indexOf(now) + 1) % THEMES.length] : now;
  if (wanted === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = wanted;
  store("theme", wanted === "system" ? null : wanted);
  const name = wanted[0].toUpperCase() + wanted.slice(1);
  setText(document.getElementById("theme-name"), name);
  document.getElementById("theme-switch").setAttribute("aria-label", `Colors of the page: ${name}`);
  emit("theme");
}

// On a narrow screen one part is seen at a time.
function showView(name) {
  document.body.dataset.view = name;
  for (const tab of document.querySelectorAll(".views button")) {
    if (tab.dataset.view === name) tab.setAttribute("aria-current", "true");
    else tab.removeAttribute("aria-current");
  }
}

async function showLink() {
  const field = el("input", { type: "text", readOnly: true, class: "link", "aria-label": "Link" });
  const note = el("p", { class: "quiet-text", role: "status" }, "This link opens your gallery in another browser. Whoever has it sees your pictures.");
  const copy = button("Copy", { class: "primary", onclick: async () => {
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      setText(note, "Copied.");
    } catch {
      setText(note, "Press Ctrl+C to copy.");
    }
  } });
  openDialog("Open elsewhere", { id: "link-dialog", className: "small", body: [note, field], actions: [copy] });
  try {
    field.value = (await api.me()).link;
    field.select();
  } catch (error) {
    setText(note, error.message);
  }
}

function hello() {
  return el("div", { class: "hello" },
    el("p", { class: "hello-title" }, "A photograph, painted like a painting"),
    el("p", {}, "Drop a photograph anywhere here, then one or several paintings."),
    button("Try it with the demo's pictures", { class: "primary", data: { testid: "demo" }, onclick: addDemo }));
}

function started(job) {
  set("peek", null);
  took(job);
  select(job.id);
  showView("picture");
  announce(`${job.title} is in the queue`);
}

function keys() {
  shortcut("Ctrl+Enter", "Start", () => start(started));
  shortcut("p", "Pause or resume", pauseOrResume);
  shortcut("c", "Result, before and after, A and B", nextMode);
  for (const [key, action] of Object.entries(zoomKeys)) {
    if (key !== "=") shortcut(key === "+" ? "+ =" : key, { "+": "Zoom in", "-": "Zoom out", 0: "Whole picture", 1: "Pixel for pixel" }[key], action);
  }
  shortcut("j", "Older run", () => step(1));
  shortcut("k", "Newer run", () => step(-1));
  shortcut("g", "All runs", () => toggleGrid());
  shortcut("a", "All settings", () => showAll(!allShown()));
  shortcut("/", "Search settings", () => {
    showView("setup");
    focusSearch();
  });
  shortcut("t", "Light or dark", () => theme(true));
  shortcut("?", "These shortcuts", showKeys);
}

async function specification() {
  for (;;) {
    try {
      return await api.settings();
    } catch (error) {
      setText(document.getElementById("connection"), error.message);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

async function main() {
  theme(false);
  document.getElementById("theme-switch").addEventListener("click", () => theme(true));
  document.getElementById("open-link").addEventListener("click", showLink);
  for (const tab of document.querySelectorAll(".views button")) tab.addEventListener("click", () => showView(tab.dataset.view));
  on("show", showView);
  state.spec = await specification();
  await recall();
  startPictures();
  startSettings();
  startPlan(started);
  startViewer(hello());
  startTransport();
  startRun();
  startGallery();
  keys();
  startKeys();
  await startJobs();
  if (location.hash === "#demo") {
    history.replaceState(null, "", location.pathname);
    if (!state.setup.content && !state.setup.styles.length) await addDemo();
  }
  if (state.selected) showView("picture");
  document.body.dataset.ready = "yes";
  on("online", (online) => online && poll());
}

main();
