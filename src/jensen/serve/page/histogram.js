// Scores beside the histogram of the test split. Bars stretch with the page; words beside them do not.

import { h, signed } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** How unusual a score is, in words; `percentile` is the share of test examples that score lower, from 0 to 1. */
export function howUnusual(percentile) {
  if (percentile < 0.01) return "very unusual";
  if (percentile < 0.05) return "unusual";
  if (percentile < 0.25) return "less usual than most";
  return "usual";
}

/** A share as a percentage: "< 1 %", "12 %". */
export function percent(share) {
  if (share > 0 && share < 0.01) return "< 1 %";
  if (share < 1 && share > 0.99) return "> 99 %";
  return `${Math.round(100 * share)} %`;
}

/** A histogram { edges, counts } with marks at the scores. `unit` stands below its axis. */
export function histogram({ edges, counts }, scores, unit) {
  const [low, high] = reach(edges, scores);
  const place = (value) => Math.min(1, Math.max(0, (value - low) / (high - low)));
  const most = Math.max(...counts);
  const bars = counts.map((count, k) => {
    const [left, right] = [1000 * place(edges[k]), 1000 * place(edges[k + 1])];
    const height = (100 * count) / most;
    return svg("rect", { x: left, width: Math.max(0, right - left - 1.5), y: 100 - height, height, class: "bar" });
  });
  const marks = scores.map((score) => {
    const x = 1000 * place(score);
    return svg("line", { x1: x, x2: x, y1: 0, y2: 100, class: "mark", "vector-effect": "non-scaling-stroke" });
  });
  const total = counts.reduce((sum, count) => sum + count, 0);
  const words = `Histogram of ${total} test scores from ${signed(edges[0], 1)} to ${signed(edges.at(-1), 1)} ${unit}`;
  const at = scores.length === 1 ? `, with a mark at ${signed(scores[0], 1)}` : "";
  return h(
    "div",
    { class: "histogram" },
    svg(
      "svg",
      { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": words + at },
      ...bars,
      ...marks,
    ),
    axis(low, high, place),
    h("p", { class: "small" }, `${unit}; higher is more likely. Grey: ${total} examples of the test split.`),
  );
}

/** The ends of the axis: those of the histogram, widened to the scores, but not beyond two more of its widths. */
function reach(edges, scores) {
  const [first, last] = [edges[0], edges.at(-1)];
  const width = last - first || 1;
  const low = Math.max(Math.min(first, ...scores), first - 2 * width);
  const high = Math.min(Math.max(last, ...scores), last + 2 * width);
  return [low - 0.02 * width, high + 0.02 * width];
}

function axis(low, high, place) {
  const step = niceStep((high - low) / 4);
  const first = Math.ceil(low / step) * step;
  const ticks = [];
  for (let value = first; value <= high; value += step) ticks.push(value);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  const shown = ticks.map((value) => {
    const tick = h("span", {}, signed(Math.abs(value) < step / 2 ? 0 : value, digits));
    tick.style.left = `${100 * place(value)}%`;
    return tick;
  });
  return h("div", { class: "axis", "aria-hidden": "true" }, ...shown);
}

/** The round number, 1, 2 or 5 times a power of ten, that is next above a step. */
function niceStep(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * ([1, 2, 5].find((digit) => digit * power >= step) ?? 10);
}
