// A mask as an opaque gray canvas: white counts fully, black not at all. Brush strokes take the lighter of two values,
// the eraser the darker, so that passing twice over a place changes nothing and edges stay soft.

const MOST_UNDO = 30;

export class MaskSurface {
  constructor(width, height) {
    this.canvas = document.createElement("canvas");
    Object.assign(this.canvas, { width, height });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.past = [];
    this.future = [];
    this.onchange = () => {};
    this.fillWith("#000");
  }

  fillWith(color) {
    this.context.globalCompositeOperation = "source-over";
    this.context.fillStyle = color;
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  // One byte a pixel is enough for gray.
  snapshot() {
    const { data } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const gray = new Uint8Array(data.length / 4);
    for (let i = 0; i < gray.length; i += 1) gray[i] = data[4 * i];
    return gray;
  }

  show(gray) {
    const image = this.context.createImageData(this.canvas.width, this.canvas.height);
    for (let i = 0; i < gray.length; i += 1) {
      image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = gray[i];
      image.data[4 * i + 3] = 255;
    }
    this.context.putImageData(image, 0, 0);
  }

  // Call before a change.
  keep() {
    this.past.push(this.snapshot());
    if (this.past.length > MOST_UNDO) this.past.shift();
    this.future = [];
  }

  travel(from, to) {
    if (!from.length) return false;
    to.push(this.snapshot());
    this.show(from.pop());
    this.onchange();
    return true;
  }

  undo() {
    return this.travel(this.past, this.future);
  }

  redo() {
    return this.travel(this.future, this.past);
  }

  change(action) {
    this.keep();
    action();
    this.onchange();
  }

  fill() {
    this.change(() => this.fillWith("#fff"));
  }

  clear() {
    this.change(() => this.fillWith("#000"));
  }

  invert() {
    this.change(() => {
      this.context.globalCompositeOperation = "difference";
      this.context.fillStyle = "#fff";
      this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    });
  }

  // Lays a picture over the whole mask; transparent parts are black.
  load(image) {
    this.change(() => {
      this.fillWith("#000");
      this.context.filter = "grayscale(1)";
      this.context.drawImage(image, 0, 0, this.canvas.width, this.canvas.height);
      this.context.filter = "none";
    });
  }

  // brush: {radius in pixels, softness 0..1, erase}
  stamp(x, y, { radius, softness, erase }) {
    const { context } = this;
    const [full, none] = erase ? ["#000", "#fff"] : ["#fff", "#000"];
    const gradient = context.createRadialGradient(x, y, 0, x, y, radius);
    gradient.addColorStop(0, full);
    gradient.addColorStop(Math.min(1 - softness, 0.999), full);
    gradient.addColorStop(1, softness > 0.01 ? none : full);
    context.globalCompositeOperation = erase ? "darken" : "lighten";
    context.fillStyle = gradient;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.fill();
  }

  stroke(from, to, brush) {
    const length = Math.hypot(to.x - from.x, to.y - from.y);
    const count = Math.max(1, Math.ceil(length / Math.max(1, brush.radius * 0.2)));
    for (let i = 1; i <= count; i += 1) {
      const t = i / count;
      this.stamp(from.x + (to.x - from.x) * t, from.y + (to.y - from.y) * t, brush);
    }
  }

  isBlack() {
    return this.snapshot().every((value) => value === 0);
  }

  png() {
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }
}
