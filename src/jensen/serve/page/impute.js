// What is hidden, given the rest: a mask is painted over the picture in hand, and the model fills it in.

import { field, h, panel, since, task } from "./dom.js";
import { Painter } from "./mask.js";
import { blank, figure, given, image } from "./picture.js";
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
  const result = h("div", { class: "beside" });
  let example = null;

  const fill = task(owner, "Fill in", async (signal) => {
    if (!example) throw new Error("There is no picture yet: drop one above, choose a file, or click a sample.");
    if (!painter.count) throw new Error("Nothing is hidden: paint over a part of the picture.");
    const start = performance.now();
    const mask = Array.from({ length: model.shape[0] }, () => painter.seen); // the same for every channel
    const body = { x: given(example), mask, draws: 1, png: true };
    const masked = figure("", "Masked", model.shape, "What the model sees");
    masked.querySelector("img").src = painter.address;
    const draws = Array.from({ length: DRAWS }, (_, k) => blank(`Draw ${k + 1}`));
    result.replaceChildren(...(example.png ? [figure(example.png, "Original", model.shape)] : []), masked, ...draws);
    // One draw a request: the answer to a request for several is their mean, which need not look like any of them.
    for (const [k, place] of draws.entries()) {
      const { png } = await model.post("impute", { ...body, seed: seed.value() + k }, { signal });
      place.replaceWith(figure(png[0], `Draw ${k + 1}`, model.shape, `Filled in, draw ${k + 1}`));
    }
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
