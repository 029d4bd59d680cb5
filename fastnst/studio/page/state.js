// What the page knows, and who hears when it changes.
import * as api from "./api.js";

const listeners = new Map();

export const state = {
  spec: null, // GET /api/settings
  setup: { content: null, contentMask: null, styles: [], values: {} },
  uploads: 0, // uploads under way
  jobs: [],
  jobsKnown: false, // the list was read once
  selected: null, // id of the run that is shown
  peek: null, // a picture of the set-up that is shown large instead of the run
  online: true,
};

// Names: setup, uploads, jobs, selected, peek, online; and errors, problem, show, theme for news without a value here.
export function on(names, listener) {
  for (const name of names.split(" ")) {
    if (!listeners.has(name)) listeners.set(name, new Set());
    listeners.get(name).add(listener);
  }
}

export function emit(name, detail) {
  for (const listener of listeners.get(name) ?? []) listener(detail);
}

export function set(name, value) {
  if (state[name] === value) return;
  state[name] = value;
  emit(name, value);
}

export const selectedJob = () => state.jobs.find((job) => job.id === state.selected) ?? null;
export const jobById = (id) => state.jobs.find((job) => job.id === id) ?? null;
export const ended = (job) => ["done", "stopped", "failed"].includes(job.state);
export const changeable = (job) => ["queued", "running", "paused", "pausing"].includes(job.state);

// The values of a preset, and those of a run with the changes made while it ran.
export const presetValues = (name) => state.spec.presets[name] ?? state.spec.presets.default;
export function runValues(job) {
  const changes = job.changes.map((change) => change.settings);
  return Object.assign({}, presetValues(job.settings.preset ?? "default"), job.settings, ...changes);
}

// --- the set-up of the next run ---

export function edit(change) {
  change(state.setup);
  remember();
  emit("setup");
}

export const valueOf = (name) => state.setup.values[name] ?? baseOf(name);
export function baseOf(name) {
  if (name === "preset") return "default";
  return presetValues(state.setup.values.preset ?? "default")[name] ?? state.spec.settings[name].default;
}
export const isChanged = (name) => name in state.setup.values;

export function setValue(name, text) {
  edit(({ values }) => {
    const value = text.trim();
    if (name === "preset") {
      if (value === "default") delete values.preset;
      else values.preset = value;
      for (const other of Object.keys(values)) {
        if (other !== "preset" && values[other] === baseOf(other)) delete values[other];
      }
    } else if (value === "" || value === baseOf(name)) delete values[name];
    else values[name] = value;
  });
}

export function setAll(values) {
  edit((setup) => {
    setup.values = {};
    const preset = values.preset ?? "default";
    if (preset !== "default" && state.spec.presets[preset]) setup.values.preset = preset;
    for (const [name, text] of Object.entries(values)) {
      if (name in state.spec.settings && name !== "preset" && text !== baseOf(name)) setup.values[name] = text;
    }
  });
}

export function sharesText(styles) {
  const shares = styles.map((style) => style.share);
  if (styles.length < 2 || shares.every((share) => share === shares[0] && share > 0)) return null;
  const total = shares.reduce((sum, share) => sum + share, 0);
  return shares.map((share) => (total ? Number((share / total).toFixed(4)) : 0)).join(",");
}

export const ready = () => Boolean(state.setup.content && state.setup.styles.length && !state.uploads);

// The body of a plan and of a new run.
export function payload() {
  const { content, contentMask, styles, values } = state.setup;
  const settings = { ...values };
  delete settings.style_weights;
  const shares = sharesText(styles);
  if (shares) settings.style_weights = shares;
  return {
    content: content.id,
    styles: styles.map((style) => style.picture.id),
    masks: styles.map((style) => style.mask),
    style_masks: styles.map((style) => style.styleMask),
    content_mask: contentMask,
    settings,
  };
}

const KEY = "fastnst.setup"; // per tab: two tabs are two set-ups
function remember() {
  const { content, contentMask, styles, values } = state.setup;
  const plain = {
    content: content?.id ?? null,
    contentMask,
    styles: styles.map((style) => ({ ...style, picture: style.picture.id })),
    values,
  };
  try {
    sessionStorage.setItem(KEY, JSON.stringify(plain));
  } catch {
    // The set-up then lasts as long as the page.
  }
}

async function known(id) {
  if (!id) return null;
  try {
    return await api.picture(id);
  } catch {
    return null; // deleted meanwhile
  }
}

// Takes ids of pictures and settings, from a reload or an earlier run, and drops what is not there any more.
export async function restore({ content, contentMask, styles, values }) {
  const mask = async (id) => (await known(id))?.id ?? null;
  const found = await Promise.all(
    styles.map(async (style) => ({
      picture: await known(style.picture),
      share: style.share ?? 50,
      mask: await mask(style.mask),
      styleMask: await mask(style.styleMask),
    })),
  );
  const [photograph, held] = await Promise.all([known(content), mask(contentMask)]);
  state.setup.content = photograph;
  state.setup.contentMask = photograph ? held : null;
  state.setup.styles = found.filter((style) => style.picture);
  setAll(values);
  return Boolean(photograph) && state.setup.styles.length === styles.length;
}

export async function recall() {
  try {
    const plain = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    if (plain) await restore(plain);
  } catch {
    // A set-up of another version: start afresh.
  }
}
