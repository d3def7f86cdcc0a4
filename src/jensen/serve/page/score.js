// One picture in hand: its score beside those of the test split, and its reconstruction.

import { h, panel, since, task, withError } from "./dom.js";
import { histogram, howUnusual, percent } from "./histogram.js";
import { Slot, blank, figure, given } from "./picture.js";

const REBUILT = "Its reconstruction";

/** The panel for one picture. `changed(example)` hears of every new picture; `choose` puts one in. */
export function scorePanel(model, changed) {
  const owner = panel("One picture", "Drop or paste a picture, choose a file, or click a sample.");
  const result = h("div", { class: model.can("score") ? "result score" : "result" });
  const rebuilt = model.can("reconstruct") ? h("div", { class: "result" }, blank(REBUILT)) : null;
  const words = [model.can("score") && "Score", rebuilt && "reconstruct"].filter(Boolean).join(" and ");
  const ask = task(owner, words || "Look", async (signal) => {
    const start = performance.now();
    const example = slot.example;
    if (!example) throw new Error("There is no picture yet: drop one, choose a file, or take an example.");
    const [scored, found] = await Promise.all([
      model.can("score") ? model.post("score", { x: given(example) }, { signal }) : null,
      model.can("reconstruct") ? model.post("reconstruct", { x: given(example), png: true }, { signal }) : null,
    ]);
    await model.refresh();
    result.replaceChildren(...(scored ? [scoreOf(scored, model)] : []));
    if (found?.png) rebuilt.replaceChildren(figure(found.png[0], REBUILT, model.shape));
    return `Answered in ${since(start)}.`;
  });
  const slot = new Slot(owner, model, "The picture", (example) => {
    changed(example);
    rebuilt?.replaceChildren(blank(REBUILT));
    if (words) ask.run();
  });
  const pasted = (event) => event.clipboardData?.files.length && slot.read(event.clipboardData.files);
  document.addEventListener("paste", pasted, { signal: model.left.signal });
  if (words) slot.buttons.prepend(ask.button);
  if (model.histogram) result.append(histogram(model.histogram, [], model.unit));
  owner.body.append(h("div", { class: "pair" }, slot.root, rebuilt), slot.buttons, result);
  return { root: owner.root, choose: (example) => slot.show(example) };
}

function scoreOf({ scores: [score], of }, model) {
  const { bound, error, unit, percentile } = score;
  const key = h("div", { class: "key" });
  const value = h("b", {}, withError(bound, error));
  key.append(h("div", {}, value, h("span", {}, `${unit}, ${of} ± its Monte-Carlo error`)));
  if (percentile !== null && percentile !== undefined) {
    const share = h("b", {}, percent(percentile));
    const words = `of the test examples score lower: ${howUnusual(percentile)}`;
    key.append(h("div", {}, share, h("span", {}, words)));
  }
  const shown = model.histogram
    ? histogram(model.histogram, [bound], unit)
    : h("p", { class: "small" }, "The server is still scoring the test split; ask again to see where this score lies.");
  return h("div", {}, key, shown);
}
