// Building blocks: elements, icons, numbers for people, messages for screen readers, small dialogs.
// Text always goes in as text nodes, so a hostile file name is only ever a name.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key in node && !key.includes("-") && !["list", "form"].includes(key)) node[key] = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function button(label, { icon: name, quiet, iconOnly, ...props } = {}) {
  const content = [name ? icon(name) : null, iconOnly ? null : el("span", {}, label)];
  const kind = props.class ?? (quiet ? "quiet" : "plain");
  return el("button", { type: "button", ...props, class: kind, ...(iconOnly ? { "aria-label": label, title: label } : {}) }, content);
}

let number = 0;
export const newId = (prefix) => `${prefix}-${++number}`;

export function announce(text) {
  document.getElementById("announce").textContent = text;
}

// Sets text only where it differs: nothing is announced twice and selections survive.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  if (seconds < 1) return "under 1\u00a0s";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole}\u00a0s`;
  if (whole < 3600) return `${Math.floor(whole / 60)}\u00a0min ${whole % 60 ? `${whole % 60}\u00a0s` : ""}`.trim();
  const minutes = Math.round(whole / 60);
  return `${Math.floor(minutes / 60)}\u00a0h ${minutes % 60 ? `${minutes % 60}\u00a0min` : ""}`.trim();
}

export function bytes(count) {
  if (count === null || count === undefined) return "";
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (count >= 1000 && index < units.length - 1) {
    count /= 1000;
    index += 1;
  }
  return `${index && count < 10 ? count.toFixed(1) : Math.round(count)}\u00a0${units[index]}`;
}

export const size = (width, height) => `${width}\u00a0×\u00a0${height}`;

export function compact(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  if (magnitude >= 1e5 || magnitude < 1e-3) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

export function when(seconds) {
  const date = new Date(seconds * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return today ? time : `${date.toLocaleDateString([], { day: "numeric", month: "short" })}, ${time}`;
}

export function stored(key, fallback = null) {
  try {
    return localStorage.getItem(`fastnst.${key}`) ?? fallback;
  } catch {
    return fallback;
  }
}

export function store(key, value) {
  try {
    if (value === null) localStorage.removeItem(`fastnst.${key}`);
    else localStorage.setItem(`fastnst.${key}`, value);
  } catch {
    // Storage may be off or full; the choice then lasts as long as the page.
  }
}

// A modal dialog that is removed when it closes. Resolves to its return value.
export function openDialog(title, { id, className = "", body, actions = [] }) {
  const heading = newId("dialog");
  const dialog = el("dialog", { id, class: `dialog ${className}`, "aria-labelledby": heading });
  // As Escape does: whoever listens may hold the dialog open.
  const leave = () => dialog.dispatchEvent(new Event("cancel", { cancelable: true })) && dialog.close("");
  const close = button("Close", { icon: "close", iconOnly: true, class: "tool", onclick: leave });
  dialog.append(
    el("div", { class: "dialog-head" }, el("h2", { id: heading }, title), close),
    el("div", { class: "dialog-body" }, body),
  );
  if (actions.length) dialog.append(el("div", { class: "dialog-actions" }, actions));
  document.body.append(dialog);
  dialog.showModal();
  const done = new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
  return { dialog, done };
}

export async function confirm(title, text, verb) {
  const keep = button("Cancel", { onclick: () => dialog.close("") });
  const go = button(verb, { class: "danger", data: { testid: "confirm" }, onclick: () => dialog.close("yes") });
  const { dialog, done } = openDialog(title, { className: "small", body: [el("p", {}, text)], actions: [keep, go] });
  keep.focus();
  return (await done) === "yes";
}
