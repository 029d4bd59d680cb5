// Shortcuts: single keys outside of text, off on request; ? shows them.
import { button, el, openDialog, store, stored } from "./dom.js";

const shortcuts = []; // {keys, words, action}
let single = stored("keys") !== "off";

export function shortcut(keys, words, action) {
  shortcuts.push({ keys: keys.split(" "), words, action });
}

const typing = (node) => node.matches("input:not([type=range], [type=checkbox]), textarea, select, [contenteditable]");

function press(event) {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const strong = event.ctrlKey || event.metaKey;
  const name = strong ? `Ctrl+${event.key}` : event.key;
  const found = shortcuts.find(({ keys }) => keys.includes(name.length === 1 ? name.toLowerCase() : name));
  if (!found?.action || event.altKey) return;
  if (!strong && (typing(event.target) || !single)) return;
  event.preventDefault();
  found.action();
}

export function showKeys() {
  if (document.querySelector("#keys-dialog")) return;
  const rows = shortcuts.map(({ keys, words }) => [
    el("dt", {}, keys.slice(0, 2).flatMap((key, index) => [index ? " " : "", el("kbd", {}, key.length === 1 ? key.toUpperCase() : key)])),
    el("dd", {}, words),
  ]);
  const box = el("input", { type: "checkbox", role: "switch", class: "switch", id: "single-keys", checked: single });
  box.addEventListener("change", () => {
    single = box.checked;
    store("keys", single ? null : "off");
  });
  const close = button("Done", { class: "primary", onclick: () => dialog.close() });
  const { dialog } = openDialog("Shortcuts", {
    id: "keys-dialog",
    body: [el("dl", { class: "keys" }, rows), el("div", { class: "field-head" }, el("label", { htmlFor: "single-keys" }, "Shortcuts of a single key"), box)],
    actions: [close],
  });
}

export function startKeys() {
  document.addEventListener("keydown", press);
  document.getElementById("show-keys").addEventListener("click", showKeys);
}
