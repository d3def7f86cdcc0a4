// What is hidden, given the rest: a mask is painted over the picture in hand, and the model fills it in.

import { field, h, panel, since, task } from "./dom.js";
import { Painter } from "./mask.js";
import { figure, given, image } from "./picture.js";
import { seedField } from "./sample.js";

const DRAWS = 3;

/** The panel that fills in what is hidden of the picture in hand. `take(example)` tells it of another picture. */
export function imputePanel(model) {
  const owner = panel(
    "Fill in what is hidden",
    "Paint over the picture in hand with mouse, finger, or arrow keys and space bar; painting again uncovers.",
  );
  const painter = new Painter(...model.shape.slice(-2));
  const seed = seedField();
  const result = h("div", { class: "beside result" });
  let example = null;

  const fill = task(owner, "Fill in", async (signal) => {
    if (!example) throw new Error("There is no picture yet: drop one above, choose a file, or click a sample.");
    if (!painter.count) throw new Error("Nothing is hidden: paint over a part of the picture.");
    const start = performance.now();
    const mask = Array.from({ length: model.shape[0] }, () => painter.seen); // the same for every channel
    const body = { x: given(example), mask, draws: 1, png: true };
    const masked = painter.address;
    // One draw a request: the answer to a request for several is their mean, which need not look like any of them.
    const seeds = Array.from({ length: DRAWS }, (_, k) => seed.value() + k);
    const answers = await Promise.all(seeds.map((one) => model.post("impute", { ...body, seed: one }, { signal })));
    const hidden = figure("", "What the model sees", model.shape);
    hidden.querySelector("img").src = masked;
    result.replaceChildren(
      ...(example.png ? [figure(example.png, "Original", model.shape)] : []),
      hidden,
      ...answers.map(({ png: [png] }, k) => figure(png, `Draw ${k + 1}`, model.shape, `Filled in, draw ${k + 1}`)),
    );
    return `Filled in ${DRAWS} times in ${since(start)}: every draw is one possibility.`;
  });

  owner.body.append(
    h(
      "div",
      { class: "hand" },
      h("div", { class: "paint" }, painter.canvas, painter.words),
      h(
        "div",
        {},
        h("div", { class: "buttons", role: "group", "aria-label": "Hide" }, ...painter.presets),
        h("div", { class: "fields" }, field("Brush", painter.size), seed.field),
        h("div", { class: "buttons" }, fill.button),
      ),
    ),
    result,
  );
  return {
    root: owner.root,
    take(next) {
      example = next;
      result.replaceChildren();
      painter.over(next.png ? image(next.png, "", model.shape) : null);
    },
  };
}
