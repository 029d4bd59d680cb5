// The dialog in which a mask is painted over its dimmed picture.
import * as api from "./api.js";
import { MaskSurface } from "./brush.js";
import { announce, button, confirm, el, icon, newId, openDialog, setText } from "./dom.js";

const brush = { size: 12, softness: 40, erase: false }; // size in percent of the longest side; kept between dialogs

async function image(url) {
  const loaded = new Image();
  loaded.src = url;
  await loaded.decode();
  return loaded;
}

function slider(labelText, key, least, most, changed) {
  const id = newId("brush");
  const read = el("output", { class: "number" }, `${brush[key]}`);
  const input = el("input", { type: "range", id, min: least, max: most, value: brush[key], data: { testid: `mask-${key}` } });
  const show = () => {
    input.value = brush[key];
    setText(read, `${brush[key]}`);
    changed();
  };
  input.addEventListener("input", () => {
    brush[key] = Number(input.value);
    show();
  });
  return { node: el("div", { class: "brush-slider" }, el("label", { htmlFor: id }, labelText), input, read), show };
}

// The canvas with its cursor: pointer, touch and keys.
class Easel {
  constructor(picture, surface) {
    this.surface = surface;
    this.cursor = el("div", { class: "brush-cursor", "aria-hidden": "true" });
    const { canvas } = surface;
    canvas.className = "mask-paint";
    canvas.tabIndex = 0;
    canvas.dataset.testid = "mask-canvas";
    canvas.setAttribute("role", "application");
    canvas.setAttribute("aria-label", "Mask. Arrow keys move the brush, Space paints, E switches to the eraser.");
    this.frame = el("div", { class: "mask-frame" }, picture, canvas, this.cursor);
    this.node = el("div", { class: "mask-area" }, this.frame);
    this.at = { x: canvas.width / 2, y: canvas.height / 2 };
    this.strokes = new Map(); // pointer id: last position
    this.holding = false;
    this.listen(canvas);
  }

  get brush() {
    const { width, height } = this.surface.canvas;
    return { radius: Math.max(0.5, (Math.max(width, height) * brush.size) / 200), softness: brush.softness / 100, erase: brush.erase };
  }

  listen(canvas) {
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      event.preventDefault();
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      this.surface.keep();
      this.move(this.position(event));
      this.strokes.set(event.pointerId, this.at);
      this.surface.stamp(this.at.x, this.at.y, this.brush);
      this.surface.onchange();
    });
    canvas.addEventListener("pointermove", (event) => {
      const last = this.strokes.get(event.pointerId);
      const points = last && event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event];
      for (const point of points) this.extend(event.pointerId, this.position(point));
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.strokes.delete(event.pointerId));
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("keyup", (event) => event.key === " " && (this.holding = false));
    canvas.addEventListener("blur", () => (this.holding = false));
  }

  position(event) {
    const { canvas } = this.surface;
    const box = canvas.getBoundingClientRect();
    return { x: ((event.clientX - box.left) / box.width) * canvas.width, y: ((event.clientY - box.top) / box.height) * canvas.height };
  }

  extend(pointer, to) {
    const last = this.strokes.get(pointer);
    this.move(to);
    if (!last) return;
    this.surface.stroke(last, to, this.brush);
    this.strokes.set(pointer, to);
  }

  key(event) {
    const step = event.shiftKey ? 1 : Math.max(2, this.brush.radius / 2);
    const [dx, dy] = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key] ?? [0, 0];
    if (dx || dy) {
      const { width, height } = this.surface.canvas;
      const to = { x: Math.min(width, Math.max(0, this.at.x + dx)), y: Math.min(height, Math.max(0, this.at.y + dy)) };
      if (this.holding) this.surface.stroke(this.at, to, this.brush);
      this.move(to);
    } else if (event.key === " ") {
      if (!this.holding) {
        this.surface.keep();
        this.surface.stamp(this.at.x, this.at.y, this.brush);
        this.surface.onchange();
      }
      this.holding = true;
    } else return;
    event.preventDefault();
  }

  move(to) {
    this.at = to;
    this.show();
  }

  show() {
    const { canvas } = this.surface;
    const percent = (value, of) => `${(100 * value) / of}%`;
    const diameter = 2 * this.brush.radius;
    Object.assign(this.cursor.style, {
      left: percent(this.at.x, canvas.width),
      top: percent(this.at.y, canvas.height),
      width: percent(diameter, canvas.width),
    });
  }

  // As large as the room allows, in the picture's proportions.
  fit() {
    const { width, height } = this.surface.canvas;
    const scale = Math.min(this.node.clientWidth / width, this.node.clientHeight / height);
    Object.assign(this.frame.style, { width: `${Math.floor(width * scale)}px`, height: `${Math.floor(height * scale)}px` });
  }
}

function toolbar(easel) {
  const { surface } = easel;
  const paint = button("Brush", { icon: "brush", class: "chip", data: { testid: "mask-brush" }, onclick: () => pick(false) });
  const erase = button("Eraser", { icon: "eraser", class: "chip", data: { testid: "mask-eraser" }, onclick: () => pick(true) });
  const pick = (on) => {
    brush.erase = on;
    paint.setAttribute("aria-pressed", String(!on));
    erase.setAttribute("aria-pressed", String(on));
  };
  pick(brush.erase);
  const sizes = slider("Size", "size", 1, 60, () => easel.show());
  const softness = slider("Softness", "softness", 0, 100, () => {});
  const tool = (label, action, testid, name) => button(label, { icon: name, class: "chip", data: { testid }, onclick: action });
  const undo = tool("Undo", () => surface.undo(), "mask-undo", "undo");
  const redo = tool("Redo", () => surface.redo(), "mask-redo", "redo");
  const file = el("input", { type: "file", class: "unseen", tabIndex: -1, accept: "image/*", "aria-label": "Mask file", data: { testid: "mask-file" } });
  const node = el("div", { class: "mask-tools" }, el("div", { class: "row" }, paint, erase), sizes.node, softness.node,
    el("div", { class: "row" }, undo, redo,
      tool("Fill", () => surface.fill(), "mask-fill"), tool("Clear", () => surface.clear(), "mask-clear"),
      tool("Invert", () => surface.invert(), "mask-invert"), tool("Open a mask", () => file.click(), "mask-open"), file));
  const history = () => {
    undo.disabled = !surface.past.length;
    redo.disabled = !surface.future.length;
  };
  return { node, pick, file, history, sizes };
}

function shortcuts(event, easel, tools) {
  const { surface } = easel;
  const key = event.key.toLowerCase();
  if (event.target.matches("input:not([type=range])")) return;
  if ((event.ctrlKey || event.metaKey) && key === "z") (event.shiftKey ? surface.redo() : surface.undo());
  else if ((event.ctrlKey || event.metaKey) && key === "y") surface.redo();
  else if (event.ctrlKey || event.metaKey || event.altKey) return;
  else if (key === "b" || key === "e") tools.pick(key === "e");
  else if (key === "x") surface.invert();
  else if (key === "[" || key === "]") {
    brush.size = Math.min(60, Math.max(1, Math.round(brush.size * (key === "[" ? 0.8 : 1.25)) + (key === "]" ? 1 : 0)));
    tools.sizes.show();
  } else return;
  event.preventDefault();
}

async function openFile(file, surface, error) {
  if (!file) return;
  let uploaded = null;
  try {
    uploaded = await api.upload(file, "mask"); // the server reads every format and says what is wrong
    surface.load(await image(api.preview(uploaded.id)));
    setText(error, "");
  } catch (problem) {
    setText(error, problem.message);
  } finally {
    if (uploaded) api.removePicture(uploaded.id).catch(() => {});
  }
}

// Resolves to the id of the new mask, null for no mask, or undefined where nothing changes.
export async function paintMask({ title, picture, current }) {
  let ground;
  try {
    ground = await image(api.preview(picture.id));
  } catch {
    announce("The picture cannot be shown.");
    return undefined;
  }
  ground.alt = "";
  ground.className = "mask-ground";
  const surface = new MaskSurface(ground.naturalWidth, ground.naturalHeight);
  const easel = new Easel(ground, surface);
  const tools = toolbar(easel);
  const error = el("p", { class: "error", role: "alert" });
  const hint = el("p", { class: "quiet-text" }, icon("mask"), "Bright counts, dark does not.");
  let answer;
  let changed = false;
  const save = async () => {
    use.disabled = true;
    try {
      answer = (await api.upload(await surface.png(), "mask", "mask.png")).id;
      dialog.close("use");
    } catch (problem) {
      setText(error, problem.message);
      use.disabled = false;
    }
  };
  const use = button("Use the mask", { class: "primary", data: { testid: "mask-use" }, onclick: save });
  const none = button("No mask", { data: { testid: "mask-none" }, onclick: () => { answer = null; dialog.close(""); } });
  const cancel = button("Cancel", { data: { testid: "mask-cancel" }, onclick: () => leave() });
  const { dialog, done } = openDialog(title, { id: "mask-dialog", className: "mask", body: [tools.node, easel.node], actions: [hint, error, none, cancel, use] });
  const leave = async () => {
    if (!changed || (await confirm("Leave without the mask?", "What you painted is lost.", "Leave"))) dialog.close("");
  };
  none.hidden = !current;
  tools.file.addEventListener("change", () => openFile(tools.file.files[0], surface, error));
  dialog.addEventListener("keydown", (event) => shortcuts(event, easel, tools));
  dialog.addEventListener("cancel", (event) => {
    if (event.target !== dialog || !changed) return;
    event.preventDefault();
    leave();
  });
  const sized = new ResizeObserver(() => easel.fit());
  sized.observe(easel.node);
  if (current) await image(api.preview(current)).then((old) => surface.load(old), () => {});
  surface.past = [];
  surface.onchange = () => {
    changed = true;
    tools.history();
    use.disabled = surface.isBlack();
  };
  tools.history();
  use.disabled = !current;
  easel.fit();
  easel.show();
  surface.canvas.focus();
  await done;
  sized.disconnect();
  return answer;
}
