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

/** What is to be seen of an example: its picture, or its words. */
export function view(example, alt, shape) {
  return example.png ? image(example.png, alt, shape) : h("span", {}, example.from);
}

/** The examples of an answer { x, png }, with words for each place. */
export function examplesOf(answer, words) {
  return answer.x.map((x, place) => ({ png: answer.png?.[place], x, from: words(place) }));
}

/** A file as an example: a PNG of the model's size goes as it is; others are cropped to its shape and scaled. */
async function fromFile(file, shape) {
  if (file.name.endsWith(".npy")) return { npy: await base64(file), from: file.name };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Refused(`${file.name || "the file"}: expected a picture that this browser can read; give a PNG or JPEG`);
  }
  const [channels, height, width] = [shape.at(-3) ?? 1, ...shape.slice(-2)];
  const fits = bitmap.width === width && bitmap.height === height;
  const name = file.name || "a pasted picture";
  if (fits && file.type === "image/png") return { png: await base64(file), from: name };
  const scale = Math.min(bitmap.width / width, bitmap.height / height);
  const [wide, high] = [width * scale, height * scale];
  const part = [(bitmap.width - wide) / 2, (bitmap.height - high) / 2, wide, high].map(Math.round);
  const scaled = await createImageBitmap(bitmap, ...part, {
    resizeWidth: width,
    resizeHeight: height,
    resizeQuality: "high",
  });
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  if (channels !== 4) context.fillRect(0, 0, width, height); // transparent pixels become black
  context.drawImage(scaled, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  const sizes = `${bitmap.width} × ${bitmap.height} to ${width} × ${height}`;
  return { png: await base64(blob), from: fits ? name : `${name}, scaled from ${sizes}` };
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
    this.input = h("input", { type: "file", accept: "image/*,.npy", class: "unseen", "aria-label": `${title}: choose a file` });
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
        : h("span", {}, "Drop a picture, or ", h("u", {}, "choose a file")),
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
      this.show(await fromFile(file, this.model.shape));
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
