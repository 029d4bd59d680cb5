// Beside the picture: the selected run, its curve, changes, files and what it was made from.
import * as api from "./api.js";
import { button, bytes, duration, el, setText, size, when } from "./dom.js";
import { Curve } from "./curve.js";
import { act, likeThis, remove, rename } from "./jobs.js";
import { LiveChanges } from "./live.js";
import { ended, on, selectedJob } from "./state.js";

let title, curve, curvePart, live, files, links, made, actions, rest, nothing;

function heading() {
  title = el("input", { type: "text", class: "run-name", "aria-label": "Name of the run", maxLength: 200, spellcheck: false, data: { testid: "run-name" } });
  title.addEventListener("change", () => rename(selectedJob(), title.value));
  title.addEventListener("keydown", (event) => {
    if (event.key === "Enter") title.blur();
    if (event.key === "Escape") {
      title.value = selectedJob()?.title ?? "";
      title.blur();
    }
  });
  const drop = button("Delete this run", { icon: "trash", iconOnly: true, class: "tool", data: { testid: "delete" }, onclick: () => remove(selectedJob()) });
  return el("div", { class: "run-head" }, title, drop);
}

function downloads() {
  const names = { png: "PNG", tiff: "TIFF", jpeg: "JPEG" };
  links = Object.entries(names).map(([format, name]) => el("a", { class: "plain", data: { testid: `download-${format}`, format }, download: "" }, name));
  links.push(el("a", { class: "plain", data: { testid: "download-settings", format: "settings" }, download: "" }, "Settings"));
  return el("section", { class: "run-part" }, el("h3", {}, "Download"), el("div", { class: "row files" }, links));
}

function verbs() {
  actions = {
    like: button("Like this one", { icon: "brush", data: { testid: "like" }, onclick: () => likeThis(selectedJob()) }),
    again: button("Same again", { icon: "again", data: { testid: "again-run" }, onclick: () => act(selectedJob(), "again") }),
  };
  return el("div", { class: "row run-actions" }, Object.values(actions));
}

function pictureFigure(id, words) {
  return el("figure", {}, el("span", { class: "thumb" }, el("img", { src: api.preview(id), alt: "", loading: "lazy" })), el("figcaption", {}, words));
}

function drawMade(job) {
  const shown = JSON.stringify([job.id, job.state, job.settings, job.changes, job.size]);
  if (made.dataset.shown === shown) return;
  made.dataset.shown = shown;
  const pictures = [pictureFigure(job.content, "Photograph"), ...job.styles.map((id, index) => pictureFigure(id, job.styles.length > 1 ? `Painting ${index + 1}` : "Painting"))];
  const facts = [
    job.size ? ["Size", size(...job.size)] : null,
    ["Queued", when(job.created)],
    job.ended ? ["Ended", when(job.ended)] : null,
    ended(job) && job.seconds ? ["Time", duration(job.seconds)] : null,
    job.memory ? ["Memory", bytes(job.memory)] : null,
    ...Object.entries(job.settings),
    ...job.changes.flatMap(({ step, settings }) => Object.entries(settings).map(([name, text]) => [`${name} from step ${step}`, text])),
  ].filter(Boolean);
  made.replaceChildren(
    el("h3", {}, "Made from"),
    el("div", { class: "row figures" }, pictures),
    el("dl", { class: "facts number" }, facts.flatMap(([name, text]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, text)])),
  );
}

function render() {
  const job = selectedJob();
  document.body.classList.toggle("has-run", Boolean(job));
  rest.hidden = !job;
  nothing.hidden = Boolean(job);
  if (!job) return;
  if (rest.dataset.run !== job.id) rest.scrollTop = 0;
  rest.dataset.run = job.id;
  if (document.activeElement !== title) title.value = job.title;
  files.hidden = !job.has_result;
  for (const link of links) {
    const { format } = link.dataset;
    const url = format === "settings" ? api.settingsFile(job) : api.download(job, format);
    if (link.getAttribute("href") !== url) link.setAttribute("href", url);
  }
  actions.again.hidden = !ended(job);
  curvePart.hidden = !job.step;
  curve.follow(job);
  live.follow(job);
  drawMade(job);
}

export function startRun() {
  curve = new Curve();
  curvePart = el("section", { class: "run-part" }, el("h3", {}, "Loss"), curve.node);
  live = new LiveChanges();
  files = downloads();
  made = el("section", { class: "run-part made" });
  rest = el("div", { class: "panel-body" }, heading(), files, verbs(), curvePart, live.node, made);
  nothing = el("p", { class: "quiet-text nothing" }, "Start a run, or pick one from the gallery.");
  document.getElementById("run").append(rest, nothing);
  on("jobs selected", render);
  render();
}
