// Changes for a run that is going: strengths, shares, layers, steps. It goes on from its picture with them.
import * as api from "./api.js";
import { announce, button, el, setText } from "./dom.js";
import { field } from "./fields.js";
import { took } from "./jobs.js";
import { changeable, runValues, selectedJob, state } from "./state.js";

const FIRST = ["content_weight", "style_weight", "tv_weight", "style_weights", "steps"];

export class LiveChanges {
  constructor() {
    this.run = null;
    this.edits = {};
    this.told = {};
    const names = Object.values(state.spec.settings).filter((spec) => spec.live).map((spec) => spec.name);
    this.fields = new Map(names.map((name) => [name, this.make(name)]));
    const nodes = (some) => some.map((name) => this.fields.get(name).node);
    this.error = el("p", { class: "error", role: "alert" });
    this.apply = button("Apply", { class: "primary", data: { testid: "apply" }, onclick: () => this.send() });
    this.drop = button("Discard", { data: { testid: "discard" }, onclick: () => this.clear() });
    this.node = el("details", { class: "group live", data: { testid: "live" }, open: true },
      el("summary", {}, el("span", {}, "Change while it runs")),
      el("div", { class: "group-body" },
        nodes(FIRST.filter((name) => this.fields.has(name))),
        el("details", { class: "own" }, el("summary", {}, "More"), nodes(names.filter((name) => !FIRST.includes(name)))),
        this.error,
        el("div", { class: "row apply-row" }, this.drop, this.apply)));
  }

  make(name) {
    return field(state.spec.settings[name], {
      get: () => this.edits[name] ?? this.base(name),
      base: () => this.base(name),
      change: (text) => this.edit(name, text.trim()),
      where: "live",
    });
  }

  base(name) {
    const job = selectedJob();
    return job ? (runValues(job)[name] ?? state.spec.settings[name].default) : state.spec.settings[name].default;
  }

  edit(name, text) {
    if (text === "" || text === this.base(name)) delete this.edits[name];
    else this.edits[name] = text;
    this.told = {};
    this.refresh();
  }

  clear() {
    this.edits = {};
    this.told = {};
    this.refresh();
  }

  follow(job) {
    if (this.run !== job.id) {
      this.run = job.id;
      this.clear();
    }
    this.node.hidden = !changeable(job);
    setText(this.node.querySelector("summary span"), job.state === "queued" ? "Change before it runs" : "Change while it runs");
    this.fields.get("style_weights")?.node.toggleAttribute("hidden", job.styles.length < 2);
    this.refresh();
  }

  refresh() {
    for (const [name, made] of this.fields) made.refresh(this.told.setting === name ? this.told.message : "");
    const any = Object.keys(this.edits).length > 0;
    this.apply.disabled = this.drop.disabled = !any;
    setText(this.error, this.told.message && !this.fields.has(this.told.setting) ? this.told.message : "");
  }

  async send() {
    const job = selectedJob();
    if (!job || !Object.keys(this.edits).length) return;
    // A run in the queue takes all its settings anew; one that is going takes the changes.
    const settings = job.state === "queued" ? { ...job.settings, ...this.edits } : this.edits;
    try {
      const answer = await api.change(job.id, { settings });
      this.clear();
      took(answer);
      announce("Changed");
    } catch (error) {
      this.told = { setting: error.setting, message: error.message };
      this.refresh();
      announce(error.message);
    }
  }
}
