// The form of the settings: a few first, all of them by groups on demand, with search.
import { button, confirm, el, newId, setText, store, stored } from "./dom.js";
import { field, matches } from "./fields.js";
import { baseOf, edit, isChanged, on, setAll, setValue, sharesText, state, valueOf } from "./state.js";

const fields = new Map();
let all = stored("settings") === "all";
let told = {}; // the server's error: {setting, message}

function ownPresets() {
  try {
    const found = JSON.parse(stored("presets", "{}"));
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

function makeField(spec) {
  const { name } = spec;
  const made = field(spec, {
    get: () => valueOf(name),
    base: () => baseOf(name),
    change: (text) => setValue(name, text),
    where: "setting",
  });
  if (name === "preset") made.node.append(presetTools());
  fields.set(name, made);
}

// Own presets stay in this browser.
function presetTools() {
  const name = el("input", { type: "text", placeholder: "Name", "aria-label": "Name of the preset", maxLength: 60, id: "own-preset-name" });
  const list = el("div", { class: "row own-presets", id: "own-presets" });
  const draw = () => {
    const own = ownPresets();
    list.replaceChildren(...Object.keys(own).map((title) => el("span", { class: "own-preset" },
      button(title, { class: "chip", onclick: () => setAll(own[title]) }),
      button(`Delete preset ${title}`, { icon: "close", iconOnly: true, class: "tool", onclick: async () => {
        if (await confirm("Delete this preset?", title, "Delete")) {
          const rest = ownPresets();
          delete rest[title];
          store("presets", JSON.stringify(rest));
          draw();
        }
      } }))));
  };
  const save = () => {
    const title = name.value.trim();
    if (!title) return name.focus();
    store("presets", JSON.stringify({ ...ownPresets(), [title]: { ...state.setup.values } }));
    name.value = "";
    draw();
  };
  name.addEventListener("keydown", (event) => event.key === "Enter" && save());
  draw();
  const summary = el("summary", {}, "Own presets");
  return el("details", { class: "own" }, summary, list, el("div", { class: "row" }, name, button("Save these settings", { onclick: save })));
}

const simpleList = () => document.getElementById("settings-simple");
const allList = () => document.getElementById("settings-all");
const groups = [];
let search, found;

function buildAll() {
  const id = newId("search");
  search = el("input", { type: "search", id, placeholder: "Search settings", "aria-label": "Search settings", data: { testid: "settings-search" } });
  found = el("p", { class: "quiet-text", role: "status" });
  search.addEventListener("input", filter);
  for (const { title, settings } of state.spec.groups) {
    const count = el("span", { class: "group-count" });
    const body = el("div", { class: "group-body" });
    const node = el("details", { class: "group" }, el("summary", {}, el("span", {}, title), count), body);
    groups.push({ node, body, count, settings: settings.filter((name) => state.spec.settings[name]) });
  }
  groups[0].node.open = true;
  allList().append(search, found, ...groups.map((group) => group.node));
}

function arrange() {
  allList().hidden = !all;
  simpleList().hidden = all;
  const more = document.getElementById("settings-more");
  setText(more, all ? "Fewer settings" : "All settings");
  more.setAttribute("aria-expanded", String(all));
  if (all) for (const { body, settings } of groups) body.append(...settings.map((name) => fields.get(name).node));
  else simpleList().append(...state.spec.simple.filter((name) => fields.has(name)).map((name) => fields.get(name).node));
  filter();
}

function filter() {
  const words = all ? search.value.toLowerCase().split(/\s+/).filter(Boolean) : [];
  let count = 0;
  for (const [name, { node }] of fields) {
    const shown = !words.length || matches(name, words);
    node.hidden = !shown || (name === "style_weights" && Boolean(sharesText(state.setup.styles)));
    count += shown;
  }
  for (const group of groups) {
    const any = group.settings.some((name) => !fields.get(name).node.hidden);
    group.node.hidden = !any;
    if (words.length) group.node.open = any;
  }
  setText(found, words.length ? (count ? `${count} found` : "No such setting") : "");
}

export function showAll(on) {
  all = on;
  store("settings", all ? "all" : "simple");
  arrange();
}
export const allShown = () => all;

export function focusSearch() {
  showAll(true);
  search.focus();
}

// Brings a setting into view, whatever is hidden.
export function reveal(name) {
  const made = fields.get(name);
  if (!made) return;
  if (!all && !state.spec.simple.includes(name)) showAll(true);
  if (all) {
    search.value = "";
    filter();
    groups.find((group) => group.settings.includes(name)).node.open = true;
  }
  made.input.scrollIntoView({ block: "center" });
  made.input.focus();
}

function refresh() {
  for (const [name, made] of fields) made.refresh(told.setting === name ? told.message : "");
  for (const { count, settings } of groups) {
    const changed = settings.filter(isChanged).length;
    setText(count, changed ? `${changed} changed` : "");
  }
  document.getElementById("reset-all").hidden = !Object.keys(state.setup.values).length;
}

export function startSettings() {
  for (const spec of Object.values(state.spec.settings)) makeField(spec);
  buildAll();
  arrange();
  document.getElementById("settings-more").addEventListener("click", () => showAll(!all));
  document.getElementById("reset-all").addEventListener("click", () => edit((setup) => (setup.values = {})));
  on("setup", () => {
    refresh();
    filter();
  });
  on("errors", (error) => {
    told = error ?? {};
    refresh();
  });
  refresh();
}
