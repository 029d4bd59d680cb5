// The photograph and the paintings: drop, pick, paste, previews, notes, shares, masks.
import * as api from "./api.js";
import { announce, bytes, button, confirm, el, icon, newId, openDialog, setText, size } from "./dom.js";
import { paintMask } from "./mask.js";
import { edit, emit, on, setAll, set, sharesText, state } from "./state.js";

const problems = { content: "", styles: "" };

function refused(file) {
  const { upload_bytes: most } = state.spec.limits;
  if (file.size > most) return `${file.name}: ${bytes(file.size)}; a picture may have ${bytes(most)}`;
  return file.size === 0 ? `${file.name}: the file is empty` : null;
}

async function upload(file) {
  const reason = refused(file);
  if (reason) throw new Error(reason);
  set("uploads", state.uploads + 1);
  try {
    return await api.upload(file);
  } finally {
    set("uploads", state.uploads - 1);
  }
}

function place(role, picture) {
  edit((setup) => {
    if (role === "content") {
      setup.content = picture;
      setup.contentMask = null; // masks on the photograph belong to the old one
      for (const style of setup.styles) style.mask = null;
      set("peek", picture);
    } else setup.styles.push({ picture, share: 50, mask: null, styleMask: null });
  });
  announce(`${picture.name} added`);
}

export async function addFiles(files, role) {
  problems.content = problems.styles = "";
  for (const file of files) {
    const target = role ?? (state.setup.content ? "styles" : "content");
    try {
      if (target === "styles") checkRoom();
      place(target, await upload(file));
    } catch (error) {
      problems[target] = error.message;
      announce(error.message);
    }
    if (role === "content") break; // one photograph
  }
  render();
}

function checkRoom() {
  const most = state.spec.limits.styles;
  if (state.setup.styles.length >= most) throw new Error(`${most} paintings at most`);
}

export async function addDemo() {
  problems.content = problems.styles = "";
  try {
    const { content, styles } = await api.demo();
    place("content", content);
    edit((setup) => (setup.styles = []));
    for (const style of styles) place("styles", style);
  } catch (error) {
    problems.content = error.message;
    render();
  }
}

async function pickEarlier(role) {
  const list = el("ul", { class: "earlier" });
  const empty = el("p", { class: "quiet-text" }, "Nothing yet.");
  const { dialog } = openDialog("Earlier pictures", { id: "earlier-dialog", body: [empty, list] });
  try {
    const found = await api.pictures();
    empty.hidden = found.length > 0;
    list.append(...found.map((picture) => earlierItem(picture, role, dialog)));
  } catch (error) {
    setText(empty, error.message);
  }
}

function earlierItem(picture, role, dialog) {
  const use = () => {
    dialog.close();
    try {
      if (role === "styles") checkRoom();
      place(role, picture);
    } catch (error) {
      problems[role] = error.message;
      render();
    }
  };
  const item = el("li", {});
  const remove = async () => {
    if (!(await confirm(`Delete “${picture.name}”?`, "The picture is deleted from the studio's folder.", "Delete"))) return;
    try {
      await api.removePicture(picture.id);
      item.remove();
      edit((setup) => {
        if (setup.content?.id === picture.id) setup.content = null;
        setup.styles = setup.styles.filter((style) => style.picture.id !== picture.id);
      });
    } catch (error) {
      setText(note, error.message);
    }
  };
  const note = el("p", { class: "error", role: "alert" });
  item.append(
    el("button", { type: "button", class: "earlier-pick", onclick: use }, thumb(picture), el("span", {}, picture.name)),
    button(`Delete ${picture.name}`, { icon: "trash", iconOnly: true, class: "tool", onclick: remove }),
    note,
  );
  return item;
}

const thumb = (picture) => el("span", { class: picture.has_alpha ? "thumb clear" : "thumb" }, el("img", { src: api.preview(picture.id), alt: "", loading: "lazy" }));

function zone(role, label, hint) {
  const input = el("input", { type: "file", class: "unseen", tabIndex: -1, accept: state.spec.limits.formats.join(","), "aria-label": label });
  input.multiple = role === "styles";
  input.dataset.testid = `${role}-file`;
  input.addEventListener("change", () => addFiles([...input.files], role));
  const node = el(
    "div",
    { class: "zone", data: { testid: `${role}-zone` } },
    icon("image"),
    el("p", {}, hint),
    el(
      "div",
      { class: "row" },
      button(label, { data: { testid: `${role}-choose` }, onclick: () => input.click() }),
      role === "content" ? button("Demo", { class: "quiet narrow-only", onclick: addDemo }) : null,
      button("Earlier", { quiet: true, data: { testid: `${role}-earlier` }, "aria-haspopup": "dialog", onclick: () => pickEarlier(role) }),
    ),
    input,
  );
  return dropTarget(node, role);
}

function dropTarget(node, role) {
  const hold = (over) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    node.classList.toggle("over", over);
  };
  node.addEventListener("dragenter", hold(true));
  node.addEventListener("dragover", hold(true));
  node.addEventListener("dragleave", hold(false));
  node.addEventListener("drop", (event) => {
    hold(false)(event);
    event.stopPropagation();
    addFiles([...event.dataTransfer.files], role);
  });
  return node;
}

function maskButton(label, set, title, picture, current, save) {
  const props = { icon: "mask", class: set ? "chip set" : "chip", "aria-haspopup": "dialog", "aria-pressed": String(Boolean(set)) };
  const open = async () => {
    const id = await paintMask({ title, picture, current: current() });
    if (id !== undefined) edit(() => save(id));
  };
  return button(label, { ...props, data: { testid: `mask-${label.toLowerCase().replaceAll(" ", "-")}` }, onclick: open });
}

function card(picture, remove, masks, extra = []) {
  const notes = picture.notes.map((note) => el("li", {}, note));
  const own = picture.settings && state.spec
    ? button("Use its settings", { class: "chip", onclick: () => setAll(picture.settings) })
    : null;
  return el(
    "div",
    { class: "picture-card" },
    el("button", { type: "button", class: "large", "aria-label": `Show ${picture.name} large`, onclick: () => showLarge(picture) }, thumb(picture)),
    el(
      "div",
      { class: "picture-facts" },
      el("p", { class: "picture-name", title: picture.name }, picture.name),
      el("p", { class: "quiet-text" }, `${size(picture.width, picture.height)}, ${picture.format}, ${bytes(picture.bytes)}`),
      notes.length ? el("ul", { class: "notes" }, notes) : null,
    ),
    button(`Remove ${picture.name}`, { icon: "close", iconOnly: true, class: "tool", onclick: () => { unpeek(picture); remove(); } }),
    el("div", { class: "row picture-actions" }, masks, own),
    extra,
  );
}

function showLarge(picture) {
  set("peek", picture);
  emit("show", "picture");
}

const unpeek = (picture) => state.peek?.id === picture.id && set("peek", null);

function contentCard({ content, contentMask }) {
  const mask = maskButton(
    "Area to hold", contentMask, "Where the photograph is held", content,
    () => state.setup.contentMask, (id) => (state.setup.contentMask = id),
  );
  const remove = () => edit((setup) => Object.assign(setup, { content: null, contentMask: null }));
  return dropTarget(card(content, remove, [mask]), "content");
}

function styleCard(style, index, styles) {
  const { picture } = style;
  const now = () => state.setup.styles[index]; // the card outlives the object it was made from
  const masks = [
    state.setup.content
      ? maskButton("Area to paint", style.mask, `Where ${picture.name} is painted`, state.setup.content, () => now().mask, (id) => (now().mask = id))
      : null,
    maskButton("Part to use", style.styleMask, `Which part of ${picture.name} is used`, picture, () => now().styleMask, (id) => (now().styleMask = id)),
  ];
  const remove = () => edit((setup) => setup.styles.splice(index, 1));
  return card(picture, remove, masks, styles.length > 1 ? [share(index)] : []);
}

function share(index) {
  const id = newId("share");
  const read = el("output", { class: "number", for: id });
  const slider = el("input", { type: "range", id, min: 0, max: 100, step: 1, data: { testid: `share-${index}` } });
  const show = () => {
    const { styles } = state.setup;
    const own = styles[index].share;
    const total = styles.reduce((sum, one) => sum + one.share, 0);
    const text = total ? `${Math.round((100 * own) / total)} %` : "0 %";
    slider.value = own;
    setText(read, text);
    slider.setAttribute("aria-valuetext", text);
  };
  slider.addEventListener("input", () => {
    edit((setup) => (setup.styles[index].share = Number(slider.value)));
  });
  shows.push(show);
  show();
  return el("div", { class: "share" }, el("label", { htmlFor: id }, "Share"), slider, read);
}

// What a change of a share alone leaves as it is: the cards stay, so that the slider keeps its focus.
let drawn = "";
let shows = [];
function render() {
  const { setup } = state;
  const shape = JSON.stringify([setup.content?.id, setup.contentMask, setup.styles.map((s) => [s.picture.id, s.mask, s.styleMask]), problems]);
  if (shape === drawn) return shows.forEach((show) => show());
  drawn = shape;
  shows = [];
  const focused = document.activeElement?.dataset?.testid;
  const slot = document.activeElement?.closest("#content-slot, #style-slots");
  const problem = (text) => (text ? el("p", { class: "error", role: "alert" }, text) : null);
  const contentSlot = document.getElementById("content-slot");
  const first = setup.content ? contentCard(setup) : zone("content", "Choose a photograph", "Drop or paste a photograph");
  contentSlot.replaceChildren(first, problem(problems.content) ?? "");
  const cards = setup.styles.map(styleCard);
  const full = cards.length >= state.spec.limits.styles;
  const add = full ? "" : zone("styles", cards.length ? "Add a painting" : "Choose paintings", cards.length ? "One more to blend in" : "Drop or paste one or several");
  if (add && cards.length) add.classList.add("slim");
  document.getElementById("style-slots").replaceChildren(...cards, add, problem(problems.styles) ?? "");
  // A control that had the focus may be gone; the same one, or the first in its place, takes it.
  if (slot && !slot.contains(document.activeElement)) (slot.querySelector(`[data-testid="${focused}"]`) ?? slot.querySelector("button"))?.focus();
}

export function startPictures() {
  on("setup", render);
  on("errors", ({ setting, message } = {}) => {
    setText(document.getElementById("share-error"), setting === "style_weights" && sharesText(state.setup.styles) ? message : "");
  });
  render();
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (!files.length || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    addFiles(files);
  });
  // A picture that misses its zone is taken all the same; without this the browser would leave the page.
  const mark = (over) => document.getElementById("stage").classList.toggle("over", over);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(Boolean(event.dataTransfer?.types.includes("Files")) && !event.target.closest?.(".zone, .picture-card"));
  });
  document.addEventListener("dragleave", (event) => !event.relatedTarget && mark(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    if (!document.querySelector("dialog[open]")) addFiles([...(event.dataTransfer?.files ?? [])]);
  });
}
