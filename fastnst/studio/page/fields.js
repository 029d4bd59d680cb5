// One control for one setting, from its description. The set-up and the changes of a running run share it.
import { button, el, newId, setText } from "./dom.js";
import { state } from "./state.js";

const LABELS = {
  content_weight: "Photograph strength",
  style_weight: "Painting strength",
  tv_weight: "Smoothness",
  keep_color: "Keep the photograph's colors",
  match_color: "Match the painting's colors",
  init: "Start from",
  style_weights: "Shares of the paintings",
};
const HINTS = {
  preset: "A starting point for all settings; what you change stays changed.",
  size: "Longest side of the result.",
  steps: "More steps, closer to the painting; the time grows with them.",
  content_weight: "More keeps the shapes of the photograph.",
  style_weight: "More paint, less photograph.",
  tv_weight: "More makes smoother areas.",
  keep_color: "Take strokes from the painting and colors from the photograph.",
  seed: "Another number, another picture, where the start is noise.",
};
const SLIDERS = ["content_weight", "style_weight", "tv_weight"];
const SIZES = ["256", "512", "1024", "2048"];
const REACH = 6; // the slider goes from 1/64 of the preset's value to 64 times it

export const label = (name) => LABELS[name] ?? name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

export function matches(name, words) {
  const { help, choices, suggestions } = state.spec.settings[name];
  const text = `${name} ${label(name)} ${help} ${[...(choices ?? []), ...(suggestions ?? [])].join(" ")} ${HINTS[name] ?? ""}`.toLowerCase().replaceAll("_", " ");
  return words.every((word) => text.includes(word.replaceAll("_", " ")));
}

// Help with the names in backticks as code.
function helpText(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

const large = (value) => (value >= 1e7 ? value.toExponential(0).replace("e+", "e") : String(value));

function facts(spec, base) {
  const found = [`Default ${base === "none" ? "none" : base}`];
  if (spec.least !== null && spec.most !== null) found.push(`${large(spec.least)} to ${large(spec.most)}`);
  if (spec.unit) found.push(spec.unit);
  return found.join(" · ");
}

// What can be seen to be wrong without asking the server; it has the last word.
export function localError(spec, text) {
  const value = text.trim();
  if (value === "" || !["integer", "number"].includes(spec.kind)) return "";
  if (value === "none" || spec.name === "scale_factor") return spec.none || value !== "none" ? "" : "a number is needed";
  const whole = spec.kind === "integer";
  if (!(whole ? /^[+-]?\d+$/ : /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i).test(value)) {
    return `${whole ? "a whole number" : "a number"} is needed${spec.none ? ", or none" : ""}`;
  }
  const number = Number(value);
  if (spec.least !== null && number < spec.least) return `at least ${large(spec.least)}`;
  return spec.most !== null && number > spec.most ? `at most ${large(spec.most)}` : "";
}

function choiceOf(spec, presets) {
  const names = spec.name === "preset" ? Object.keys(presets) : spec.choices;
  return el("select", {}, names.map((name) => el("option", { value: name }, name)));
}

function textOf(spec) {
  const input = el("input", { type: "text", autocomplete: "off", spellcheck: false, class: "number" });
  if (["integer", "number"].includes(spec.kind) && !spec.none) input.inputMode = spec.kind === "integer" ? "numeric" : "decimal";
  const known = [...(spec.suggestions ?? []), ...(spec.none && spec.kind === "integer" ? ["none"] : [])];
  if (!known.length) return [input];
  const list = el("datalist", { id: newId("known") }, known.map((name) => el("option", { value: name })));
  input.setAttribute("list", list.id);
  return [input, list];
}

function sliderOf(name, get, base, change) {
  const slider = el("input", { type: "range", min: -REACH, max: REACH, step: 0.25, class: "weight", "aria-label": `${label(name)}, slider` });
  slider.addEventListener("input", () => change(String(Number((Number(base()) * 2 ** Number(slider.value)).toPrecision(3)))));
  const show = () => {
    const [value, start] = [Number(get()), Number(base())];
    slider.disabled = !(start > 0);
    const position = value > 0 && start > 0 ? Math.log2(value / start) : -REACH;
    slider.value = Math.max(-REACH, Math.min(REACH, Number.isFinite(position) ? position : 0));
    slider.setAttribute("aria-valuetext", get());
  };
  return { slider, show };
}

function extras(name, get, change) {
  if (name === "size") {
    const chips = SIZES.map((size) => button(size, { class: "chip number", data: { size }, "aria-label": `Size ${size}`, onclick: () => change(size) }));
    const show = () => chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.size === get())));
    return { node: el("div", { class: "row chips" }, chips), show };
  }
  if (name === "seed") {
    const roll = () => change(String(Math.floor(Math.random() * 1e6)));
    return { node: button("Another", { icon: "dice", class: "chip", onclick: roll }), show: () => {} };
  }
  return null;
}

// Options: get() the value as text, base() the text it goes back to, change(text), where: a prefix for ids.
export function field(spec, { get, base, change, where }) {
  const { name, kind } = spec;
  const id = `${where}-${name}`;
  const help = el("p", { class: "help", id: `${id}-help` }, helpText(HINTS[name] ?? spec.help));
  const range = el("p", { class: "help range", id: `${id}-range` });
  const error = el("p", { class: "error", id: `${id}-error`, role: "alert" });
  const controls = kind === "switch"
    ? [el("input", { type: "checkbox", role: "switch", class: "switch" })]
    : kind === "choice" || name === "preset" ? [choiceOf(spec, state.spec.presets)] : textOf(spec);
  const input = controls[0];
  Object.assign(input, { id });
  Object.assign(input.dataset, { testid: `${where}-${name}`, setting: name });
  input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  const undo = button(`Reset ${label(name)}`, { icon: "undo", iconOnly: true, class: "tool reset", onclick: () => { change(base()); input.focus(); } });
  const slider = SLIDERS.includes(name) ? sliderOf(name, get, base, change) : null;
  const extra = extras(name, get, change);
  const node = el(
    "div",
    { class: `field kind-${kind}`, data: { field: name } },
    el("div", { class: "field-head" }, el("label", { htmlFor: id, title: name }, label(name)), undo),
    slider ? el("div", { class: "paired" }, slider.slider, controls) : el("div", { class: "control" }, controls, extra?.node),
    error,
    help,
    range,
  );
  const say = (text) => {
    setText(error, text);
    if (text) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
  };
  const refresh = (told = "") => {
    const value = get();
    if (kind === "switch") input.checked = value === "on";
    else if (document.activeElement !== input) input.value = value;
    const changed = value !== base();
    node.classList.toggle("changed", changed);
    undo.hidden = !changed;
    setText(range, name === "preset" ? "" : facts(spec, base()));
    slider?.show();
    extra?.show();
    say(told || localError(spec, value));
  };
  if (kind === "switch") input.addEventListener("change", () => change(input.checked ? "on" : "off"));
  else {
    input.addEventListener("input", () => change(input.value));
    input.addEventListener("blur", () => (input.value = get()));
  }
  refresh();
  return { node, input, refresh };
}
