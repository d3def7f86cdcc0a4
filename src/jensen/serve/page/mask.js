// A mask, painted over a picture with mouse, finger or keys.

import { h } from "./dom.js";

const SIDE = 320; // pixels of the canvas, at least
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** Shapes of a hidden part by name: (column, row, width, height) => whether the pixel is hidden. */
const PARTS = {
  "Lower half": (x, y, w, height) => y >= height / 2,
  "Right half": (x, y, width) => x >= width / 2,
  Centre: (x, y, w, h) => Math.abs(x + 0.5 - w / 2) <= w / 4 && Math.abs(y + 0.5 - h / 2) <= h / 4,
  "Half at random": () => Math.random() < 0.5,
  Everything: () => true,
  Nothing: () => false,
};

/** A canvas of height x width pixels on which the visitor paints what the model shall not see. */
export class Painter {
  constructor(height, width) {
    Object.assign(this, { height, width, hidden: new Uint8Array(height * width), picture: null });
    this.scale = Math.max(1, Math.ceil(SIDE / Math.max(height, width)));
    this.brush = [Math.floor(width / 2), Math.floor(height / 2)];
    this.stroke = null; // what a stroke does: 1 hides, 0 shows
    this.canvas = h("canvas", {
      width: width * this.scale,
      height: height * this.scale,
      tabindex: 0,
      role: "application",
      "aria-roledescription": "mask",
      "aria-label": "Mask: arrow keys move the brush, the space bar hides or shows, Shift and arrows go on painting",
    });
    const most = Math.max(2, Math.round(Math.max(height, width) / 3));
    const first = Math.max(1, Math.round(Math.max(height, width) / 8));
    this.size = h("input", { type: "range", min: 1, max: most, value: first });
    this.words = h("span", { class: "small", "aria-live": "polite" });
    this.presets = Object.entries(PARTS).map(([name, inside]) =>
      h("button", { type: "button", class: "quiet", onclick: () => this.fill(inside) }, name),
    );
    this.listen();
    this.fill(PARTS["Lower half"]);
  }

  /** The mask as rows of truth values; true is what the model sees. */
  get seen() {
    const row = (y) => Array.from({ length: this.width }, (_, x) => !this.hidden[y * this.width + x]);
    return Array.from({ length: this.height }, (_, y) => row(y));
  }

  /** The number of hidden pixels. */
  get count() {
    return this.hidden.reduce((sum, one) => sum + one, 0);
  }

  /** Show the mask over another picture, an image element, or over none. */
  async over(picture) {
    await picture?.decode();
    this.picture = picture;
    this.draw();
  }

  fill(inside) {
    for (let y = 0; y < this.height; y++) {
      for (let x = 0; x < this.width; x++) this.hidden[y * this.width + x] = inside(x, y, this.width, this.height);
    }
    this.draw();
    this.tell();
  }

  listen() {
    const { canvas } = this;
    const at = ({ clientX, clientY }) => {
      const box = canvas.getBoundingClientRect();
      const place = (value, start, length, pixels) => Math.floor(((value - start) / length) * pixels);
      return [place(clientX, box.left, box.width, this.width), place(clientY, box.top, box.height, this.height)];
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      canvas.setPointerCapture(event.pointerId);
      this.brush = this.inside(at(event));
      this.stroke = this.under() ? 0 : 1;
      this.paint(this.brush);
    });
    canvas.addEventListener("pointermove", (event) => {
      const next = this.inside(at(event));
      if (this.stroke !== null) this.line(this.brush, next);
      this.brush = next;
      this.draw();
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, () => {
        this.stroke = null;
        this.tell();
      });
    }
    canvas.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["focus", "blur"]) canvas.addEventListener(name, () => this.draw());
  }

  key(event) {
    if (event.key === " ") {
      this.stroke = this.under() ? 0 : 1;
    } else if (event.key in KEYS) {
      if (event.shiftKey) this.stroke ??= this.under() ? 0 : 1;
      const [x, y] = KEYS[event.key];
      this.brush = this.inside([this.brush[0] + x, this.brush[1] + y]);
    } else return;
    event.preventDefault();
    if (event.key === " " || event.shiftKey) this.paint(this.brush);
    this.draw();
    this.tell(true);
    if (event.key !== " " && !event.shiftKey) this.stroke = null;
  }

  inside([x, y]) {
    return [Math.min(this.width - 1, Math.max(0, x)), Math.min(this.height - 1, Math.max(0, y))];
  }

  under([x, y] = this.brush) {
    return this.hidden[y * this.width + x];
  }

  /** Paint a square of the brush's size around a pixel. */
  paint([x, y]) {
    const size = Number(this.size.value);
    const [left, top] = [x - Math.floor((size - 1) / 2), y - Math.floor((size - 1) / 2)];
    for (let row = Math.max(0, top); row < Math.min(this.height, top + size); row++) {
      for (let column = Math.max(0, left); column < Math.min(this.width, left + size); column++) {
        this.hidden[row * this.width + column] = this.stroke;
      }
    }
    this.draw();
  }

  line([x0, y0], [x1, y1]) {
    const steps = Math.max(1, Math.abs(x1 - x0), Math.abs(y1 - y0));
    for (let k = 1; k <= steps; k++) {
      this.paint([Math.round(x0 + ((x1 - x0) * k) / steps), Math.round(y0 + ((y1 - y0) * k) / steps)]);
    }
  }

  /** Say how much is hidden, and to those who paint by keys where the brush is. */
  tell(byKeys = false) {
    const [x, y] = this.brush;
    const place = `Row ${y + 1}, column ${x + 1}: ${this.under() ? "hidden" : "shown"}. `;
    this.words.textContent = `${byKeys ? place : ""}${this.count} of ${this.hidden.length} pixels hidden.`;
  }

  /** What the model sees, as the address of a picture. */
  get address() {
    this.cover(1);
    const address = this.canvas.toDataURL();
    this.draw();
    return address;
  }

  /** Draw the picture, and colour over what is hidden. */
  cover(opacity) {
    const { canvas, scale } = this;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = scale < 4;
    if (this.picture) context.drawImage(this.picture, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = opacity;
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--hidden");
    this.hidden.forEach((hidden, place) => {
      if (!hidden) return;
      context.fillRect((place % this.width) * scale, Math.floor(place / this.width) * scale, scale, scale);
    });
    context.globalAlpha = 1;
  }

  draw() {
    const { canvas, scale } = this;
    const context = canvas.getContext("2d");
    this.cover(0.85);
    if (document.activeElement !== canvas && this.stroke === null) return;
    const size = Number(this.size.value);
    const [x, y] = this.brush.map((value) => (value - Math.floor((size - 1) / 2)) * scale);
    for (const [colour, wide] of [["#fff", 5], ["#000", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = wide;
      context.strokeRect(x, y, size * scale, size * scale);
    }
  }
}
