// Pictures: shown, chosen from a file, dropped, pasted, taken from the test split, or drawn by the model.
//
// An example is { png, x, npy, from }: a PNG in base64 to look at, the numbers where the server gave them, a file of
// NumPy in base64, and words that say where it is from; all but the words may be absent. The server gets the numbers
// back if they are known, so nothing is lost on the way.

import { Refused } from "./api.js";
import { h, task } from "./dom.js";

const SMALL = 96; // pixels; smaller pictures are enlarged without smoothing

/** What the server gets of an example. */
export function given(example) {
  if (example.x !== undefined) return [example.x];
  return example.npy ? { npy: example.npy } : { png: example.png };
}

/** An image element for a PNG in base64. */
export function image(png, alt, shape) {
  const small = Math.max(...shape.slice(-2)) <= SMALL;
  return h("img", { src: `data:image/png;base64,${png}`, alt, class: small ? "pixels" : null, draggable: "false" });
}

/** A picture with a caption. */
export function figure(png, caption, shape, alt = caption) {
  return h("figure", {}, image(png, alt, shape), h("figcaption", {}, caption));
}

/** The place of a picture that is not there yet. */
export function blank(caption) {
  return h("figure", {}, h("span", { class: "blank" }), h("figcaption", {}, caption));
}

/** What is to be seen of an example: its picture, or its words. */
export function view(example, alt, shape) {
  return example.png ? image(example.png, alt, shape) : h("span", {}, example.from);
}

/** The examples of an answer { x, png }, with words for each place. */
export function examplesOf(answer, words) {
  return answer.x.map((x, place) => ({ png: answer.png?.[place], x, from: words(place) }));
}

/** A file as an example: a picture is cropped to the model's shape and scaled, and becomes the model's numbers. */
async function fromFile(file, model) {
  const name = file.name || "a pasted picture";
  if (name.endsWith(".npy")) return { npy: await base64(file), from: name };
  if (!model.paints) throw new Refused(`${name}: expected an array, as the model knows no such pictures; give a .npy file`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Refused(`${name}: expected a picture that this browser can read; give a PNG or JPEG`);
  }
  const [, height, width] = model.shape;
  const fits = bitmap.width === width && bitmap.height === height;
  // A canvas has 8 bits for a colour, so a PNG of 16 bits goes to the server as it is.
  if (fits && model.levels > 256 && file.type === "image/png") return { png: await base64(file), from: name };
  const canvas = await fitted(bitmap, model.shape);
  const png = canvas.toDataURL("image/png").split(",")[1];
  const sizes = `${bitmap.width} × ${bitmap.height} to ${width} × ${height}`;
  return { png, x: numbers(canvas, model), from: fits ? name : `${name}, scaled from ${sizes}` };
}

/** The middle of a picture as a canvas of the shape (channels, height, width). */
async function fitted(bitmap, [channels, height, width]) {
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [wide, high] = [width * scale, height * scale];
  const part = [(bitmap.width - wide) / 2, (bitmap.height - high) / 2, wide, high].map(Math.round);
  const size = { resizeWidth: width, resizeHeight: height, resizeQuality: "high" };
  const scaled = await createImageBitmap(bitmap, ...part, size);
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (channels !== 4) context.fillRect(0, 0, width, height); // transparent pixels become black
  if (channels === 1) context.filter = "grayscale(1)";
  context.drawImage(scaled, 0, 0);
  return canvas;
}

/** The pixels of a canvas in the units of the data, (channels, height, width). */
function numbers(canvas, { shape: [channels, height, width], levels, minimum, maximum }) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const value = (share) => (levels ? Math.round(share * (levels - 1)) : minimum + share * (maximum - minimum));
  const at = (c, y, x) => value(data[4 * (y * width + x) + c] / 255);
  const row = (c, y) => Array.from({ length: width }, (_, x) => at(c, y, x));
  const channel = (c) => Array.from({ length: height }, (_, y) => row(c, y));
  return Array.from({ length: channels }, (_, c) => channel(c));
}

async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}

/** A place for one picture, which is dropped, chosen, taken from the test split or drawn by the model. */
export class Slot {
  constructor(owner, model, title, onchange) {
    Object.assign(this, { owner, model, title, onchange, example: null });
    this.input = h("input", { type: "file", accept: model.paints ? "image/*,.npy" : ".npy", class: "unseen", "aria-label": `${title}: choose a file` });
    this.view = h("span", { class: "view" });
    this.drop = h("label", { class: "drop" }, this.input, this.view);
    this.caption = h("figcaption", {});
    const buttons = h("div", { class: "buttons" });
    if (model.examples) buttons.append(task(owner, "Test example", (signal) => this.take(signal), quiet).button);
    if (model.can("sample")) buttons.append(task(owner, "Sample", (signal) => this.draw(signal), quiet).button);
    this.root = h("figure", { class: "slot" }, this.drop, this.caption);
    this.buttons = buttons;
    this.input.addEventListener("change", () => this.read(this.input.files));
    this.drop.addEventListener("dragover", (event) => {
      event.preventDefault();
      this.drop.classList.add("over");
    });
    this.drop.addEventListener("dragleave", () => this.drop.classList.remove("over"));
    this.drop.addEventListener("drop", (event) => {
      event.preventDefault();
      this.drop.classList.remove("over");
      this.read(event.dataTransfer.files);
    });
    this.show(null);
  }

  /** Put an example into the place. */
  show(example) {
    this.example = example;
    this.view.replaceChildren(
      example
        ? view(example, `${this.title}: ${example.from}`, this.model.shape)
        : h("span", {}, `Drop ${this.model.paints ? "a picture" : "a .npy file"}, or `, h("u", {}, "choose a file")),
    );
    this.drop.classList.toggle("filled", Boolean(example));
    this.caption.textContent = example?.from ?? "";
    if (example) this.onchange(example);
  }

  /** Read the first of some files. */
  async read(files) {
    const [file] = files;
    this.input.value = "";
    if (!file) return;
    try {
      this.show(await fromFile(file, this.model));
    } catch (error) {
      this.owner.fail(error.message);
    }
  }

  /** The next example of the test split. */
  async take(signal) {
    this.show((await this.model.take(1, signal))[0]);
  }

  /** A new sample of the model. */
  async draw(signal) {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const answer = await this.model.post("sample", { n: 1, seed, png: true }, { signal });
    this.show(examplesOf(answer, () => `a sample, seed ${seed}`)[0]);
  }
}

const quiet = { primary: false };
