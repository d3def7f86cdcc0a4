// The film of a sample: every picture on the way from noise to data, while the server computes it.

import { events } from "./api.js";
import { h, panel, since, task } from "./dom.js";
import { blank, figure } from "./picture.js";
import { labelField, seedField } from "./sample.js";

const FRAMES = 60; // the most that are sent
const SIDES = ["The sample", "Its end, as the model sees it now"];
const PERIOD = 60; // milliseconds between two frames when the film is shown again

/** The panel with the film of denoising. */
export function filmPanel(model) {
  const owner = panel("From noise to data", "One sample, as the model computes it.");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const seed = seedField();
  const label = labelField(model);
  const screen = h("div", { class: "pair screen" }, ...SIDES.map((words) => blank(words)));
  const slider = h("input", { type: "range", min: 0, max: 0, value: 0, disabled: true, "aria-label": "Step of the film" });
  const again = h("button", { type: "button", class: "quiet", disabled: true }, "Play again");
  let frames = [];
  let timer = null;

  const draw = task(owner, "Start the film", async (signal) => {
    const start = performance.now();
    pause();
    frames = [];
    slider.disabled = again.disabled = true;
    const query = { run: model.name, seed: seed.value(), frames: FRAMES, ...label.value() };
    try {
      for await (const frame of events("film", { query, signal: model.until(signal) })) {
        frames.push(frame);
        slider.max = frame.of;
        if (!calm.matches) show(frames.length - 1);
        else if (frames.length % 15 === 1) owner.say(`Step ${frame.step} of ${frame.of}`);
      }
    } finally {
      slider.max = Math.max(0, frames.length - 1);
      slider.disabled = again.disabled = frames.length < 2;
      if (frames.length) show(frames.length - 1);
    }
    return `${frames.length} pictures in ${since(start)}.${calm.matches ? " The slider shows them one by one." : ""}`;
  });

  function show(place) {
    const { step, of, png, estimate } = frames[place];
    slider.value = slider.disabled ? step : place;
    slider.setAttribute("aria-valuetext", `step ${step} of ${of}`);
    const [state, guess] = SIDES;
    screen.replaceChildren(
      figure(png, `${state}, step ${step} of ${of}`, model.shape),
      figure(estimate, guess, model.shape),
    );
  }

  function pause() {
    clearInterval(timer);
    timer = null;
    again.textContent = "Play again";
  }

  function play() {
    let place = 0;
    again.textContent = "Pause";
    timer = setInterval(() => {
      show(place++);
      if (place === frames.length || !again.isConnected) pause();
    }, PERIOD);
  }

  again.addEventListener("click", () => (timer ? pause() : play()));
  slider.addEventListener("input", () => {
    pause();
    show(Number(slider.value));
  });
  owner.body.append(
    h("div", { class: "fields" }, label.field, seed.field),
    h("div", { class: "buttons" }, draw.button, again),
    h("div", { class: "film" }, screen, slider),
  );
  return owner.root;
}
