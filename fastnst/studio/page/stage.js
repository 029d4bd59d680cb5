// Geometry of the viewer: a sheet of width × height picture pixels, zoomed and moved under a fixed window.
// Wheel and pinch zoom about the pointer, a drag pans, a double click goes from the whole to pixels and back.

const MOST = 32;

export class Stage {
  constructor(node, sheet) {
    this.node = node;
    this.sheet = sheet;
    this.width = this.height = 1;
    this.zoom = 1;
    this.x = this.y = 0;
    this.fitted = true;
    this.pointers = new Map();
    this.onchange = () => {};
    new ResizeObserver(() => (this.fitted ? this.fit() : this.place())).observe(node);
    node.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    node.addEventListener("pointerdown", (event) => this.down(event));
    node.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    node.addEventListener("dblclick", (event) => this.fromEvent(event, (x, y) => (this.fitted ? this.zoomTo(1, x, y) : this.fit())));
    node.addEventListener("keydown", (event) => this.key(event));
  }

  resize(width, height) {
    if (width === this.width && height === this.height) return;
    Object.assign(this, { width, height });
    this.fit();
  }

  get fitZoom() {
    const { clientWidth, clientHeight } = this.node;
    return Math.min(clientWidth / this.width, clientHeight / this.height) || 1;
  }

  fit() {
    this.fitted = true;
    this.zoom = this.fitZoom;
    this.place();
  }

  zoomTo(zoom, x = this.node.clientWidth / 2, y = this.node.clientHeight / 2) {
    const next = Math.min(MOST, Math.max(Math.min(this.fitZoom, 1) / 2, zoom));
    this.x = x - ((x - this.x) * next) / this.zoom;
    this.y = y - ((y - this.y) * next) / this.zoom;
    this.zoom = next;
    this.fitted = false;
    this.place();
  }

  zoomBy(factor, x, y) {
    this.zoomTo(this.zoom * factor, x, y);
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.place();
  }

  // Centered where there is room, else without a gap at the sides.
  place() {
    const { clientWidth, clientHeight } = this.node;
    const kept = (offset, length, room) => (length <= room ? (room - length) / 2 : Math.min(0, Math.max(room - length, offset)));
    this.x = kept(this.x, this.width * this.zoom, clientWidth);
    this.y = kept(this.y, this.height * this.zoom, clientHeight);
    Object.assign(this.sheet.style, {
      width: `${this.width}px`,
      height: `${this.height}px`,
      transform: `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`,
    });
    this.sheet.classList.toggle("pixels", this.zoom * devicePixelRatio > 2);
    this.onchange();
  }

  fromEvent(event, action) {
    if (event.type !== "wheel" && event.target.closest(".compare-handle, button")) return;
    const box = this.node.getBoundingClientRect();
    action(event.clientX - box.left, event.clientY - box.top);
  }

  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 20 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002;
    this.fromEvent(event, (x, y) => this.zoomBy(Math.exp(-event.deltaY * lines * speed), x, y));
  }

  down(event) {
    if (event.button > 0) return;
    this.fromEvent(event, (x, y) => {
      this.pointers.set(event.pointerId, { x, y });
      this.node.setPointerCapture(event.pointerId);
    });
  }

  drag(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const box = this.node.getBoundingClientRect();
    const now = { x: event.clientX - box.left, y: event.clientY - box.top };
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (!other) return this.pan(now.x - last.x, now.y - last.y);
    const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
    this.zoomBy(distance(now) / distance(last), (now.x + other.x) / 2, (now.y + other.y) / 2);
    this.pan((now.x - last.x) / 2, (now.y - last.y) / 2);
  }

  key(event) {
    if (event.target !== this.node || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = event.shiftKey ? 200 : 50;
    const move = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
    if (!move) return;
    event.preventDefault();
    this.pan(...move);
  }
}
