// A path through latent space between two pictures, by a slider.

import { h, panel, since, task } from "./dom.js";
import { Slot, given, image } from "./picture.js";

const PLACES = 13;

/** The panel that goes from one picture to another. */
export function interpolatePanel(model) {
  const owner = panel("From one picture to another", "Every place between is decoded from latent space.");
  const start = new Slot(owner, model, "From", ready);
  const end = new Slot(owner, model, "To", ready);
  const slider = h("input", { type: "range", min: 0, max: PLACES - 1, value: 0, disabled: true, "aria-label": "Place on the path" });
  const strip = h("div", { class: "strip", "aria-hidden": "true" });
  const shown = h("figure", {}, h("span", { class: "blank" }));
  let path = [];

  const go = task(owner, "Draw the path", async (signal) => {
    const begun = performance.now();
    const body = { a: given(start.example), b: given(end.example), n: PLACES };
    path = (await model.post("interpolate", body, { signal })).png;
    slider.max = path.length - 1;
    slider.value = Math.floor(path.length / 2);
    strip.replaceChildren(...path.map((png) => image(png, "", model.shape)));
    slider.disabled = false;
    show();
    return `${path.length} pictures in ${since(begun)}.`;
  });
  go.button.disabled = true;

  function ready() {
    go.button.disabled = !(start.example && end.example);
    if (start.example && end.example) go.run();
  }

  function show() {
    const place = Number(slider.value);
    const share = `${Math.round((100 * place) / (path.length - 1))} %`;
    slider.setAttribute("aria-valuetext", `${share} of the way`);
    const picture = image(path[place], `The picture ${share} of the way`, model.shape);
    shown.replaceChildren(picture, h("figcaption", {}, `${share} of the way`));
    strip.querySelectorAll("img").forEach((one, k) => one.classList.toggle("here", k === place));
  }

  slider.addEventListener("input", show);
  owner.body.append(
    h(
      "div",
      { class: "ends" },
      titled("From", start),
      h("div", { class: "shown" }, h("h3", {}, "Between"), shown, h("div", { class: "buttons" }, go.button)),
      titled("To", end),
    ),
    h("div", { class: "along" }, slider, strip),
  );
  return owner.root;
}

function titled(words, slot) {
  slot.root.prepend(h("h3", {}, words));
  slot.root.append(slot.buttons);
  return slot.root;
}
