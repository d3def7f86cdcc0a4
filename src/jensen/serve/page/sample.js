// Samples of pictures by label, number and seed.

import { counted, field, h, panel, since, task, wholeNumber } from "./dom.js";
import { examplesOf, view } from "./picture.js";

const MOST = 256;

/** The panel that draws samples; a click on a sample hands it to `choose`. */
export function samplePanel(model, choose) {
  const owner = panel("Samples");
  const tiles = h("div", { class: "tiles" });
  const number = wholeNumber("Number", 16, { low: 1, high: MOST });
  const seed = seedField();
  const label = labelField(model, "each in turn");
  const steps = wholeNumber("Steps", "", { low: 1, placeholder: "default" });
  const mean = h("input", { type: "checkbox" });
  const noise = h("label", { class: "check" }, mean, "means, without the noise of p(x|z)");
  const draw = task(owner, "Draw samples", async (signal) => {
    const start = performance.now();
    const asked = { n: number.input.valueAsNumber, seed: seed.value(), ...label.value() };
    if (mean.checked) asked.mean = true;
    const body = { ...asked, ...(steps.input.value && { steps: steps.input.valueAsNumber }), png: true };
    const answer = await model.post("sample", body, { signal });
    const names = answer.labels;
    const found = examplesOf(answer, (place) => `sample ${place} of seed ${body.seed}${names ? `, ${names[place]}` : ""}`);
    tiles.replaceChildren(...found.map((one) => tile(one, model, choose)));
    return `${counted(found.length, "sample")} in ${since(start)}${choose ? ". Choose one to ask more about it." : ""}`;
  });
  tiles.append(...Array.from({ length: 16 }, () => h("span", { class: "blank" })));
  owner.body.append(
    h("div", { class: "fields" }, label.field, number.field, seed.field, model.can("film") ? steps.field : null),
    h("div", { class: "buttons" }, draw.button, model.noisy ? noise : null),
    tiles,
  );
  return owner.root;
}

function tile(example, model, choose) {
  const picture = view(example, example.from, model.shape);
  if (!choose) return picture;
  return h("button", { type: "button", class: "tile", title: example.from, onclick: () => choose(example) }, picture);
}

/** A field for the seed, with a button for another one. */
export function seedField() {
  const { input, field: shown } = wholeNumber("Seed", 0);
  const another = h("button", { type: "button", class: "inside", "aria-label": "Another seed", title: "Another seed" }, "↻");
  another.addEventListener("click", () => (input.value = Math.floor(Math.random() * 1e6)));
  return { value: () => input.valueAsNumber, field: h("div", { class: "with" }, shown, another) };
}

/** A field for the label of samples, if the model knows labels. */
export function labelField(model, none = "any") {
  if (!model.labels?.length) return { value: () => ({}), field: null };
  const options = model.labels.map((name) => h("option", { value: name }, name));
  const select = h("select", {}, h("option", { value: "" }, none), ...options);
  return { value: () => (select.value === "" ? {} : { label: select.value }), field: field("Label", select) };
}
