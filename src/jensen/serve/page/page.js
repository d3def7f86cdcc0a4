// The page: asks the server which models it has, and shows for one of them what it can do.

import { ask, onTokenWanted, send } from "./api.js";
import { h } from "./dom.js";
import { filmPanel } from "./film.js";
import { imputePanel } from "./impute.js";
import { interpolatePanel } from "./interpolate.js";
import { ownRowsPanel, sampleRowsPanel } from "./rows.js";
import { samplePanel } from "./sample.js";
import { scorePanel } from "./score.js";

const at = (id) => document.getElementById(id);

/** A model of the server: its description, as in /runs, and how to ask it. */
class Model {
  constructor(description) {
    Object.assign(this, description);
    this.taken = 0;
    this.left = new AbortController(); // aborted when the visitor goes to another model
  }

  /** Whether the examples are images whose pixels a visitor may give and paint over. */
  get paints() {
    return this.layout === "image" && [1, 3, 4].includes(this.shape[0]);
  }

  can(verb) {
    return this.verbs.includes(verb);
  }

  /** A signal that also stops when the visitor goes to another model. */
  until(signal) {
    return AbortSignal.any([signal, this.left.signal]);
  }

  send(verb, { body, signal, ...options }) {
    return send(verb, { body: { run: this.name, ...body }, signal: this.until(signal), ...options });
  }

  async post(verb, body, options) {
    return (await this.send(verb, { body, ...options })).json();
  }

  /** The next examples of the test split. */
  async take(count, signal) {
    const query = { run: this.name, n: count, first: this.taken, png: true };
    const found = await ask("examples", { query, signal });
    this.taken += count;
    return found.x.map((x, k) => ({ x, png: found.png?.[k], from: `test example: ${found.examples[k]}` }));
  }

  /** The next rows of the test split, as CSV. */
  async takeRows(count, signal) {
    const query = { run: this.name, n: count, first: this.taken };
    this.taken += count;
    return (await send("examples", { query, accept: "text/csv", signal })).text();
  }

  /** Ask for the histogram of the test split's scores again, until the server has it. */
  async refresh() {
    if (this.histogram || !this.can("score")) return;
    const found = (await ask("runs")).find((one) => one.name === this.name);
    this.histogram = found?.histogram ?? null;
  }
}

function facts({ family, layout, shape, columns, parameters, step }) {
  const size = shape.slice(layout === "vector" ? 0 : 1).join(" × ");
  const words = {
    image: `${size} pictures`,
    signal: `signals of ${size} numbers`,
    volume: `${size} volumes`,
    vector: `vectors of ${size} numbers`,
    table: columns && `the rows of a table of ${columns.length} columns`,
  };
  const count = (number) => number.toLocaleString("en");
  const name = { vae: "VAE", diffusion: "diffusion model", latent: "latent diffusion model" }[family] ?? family;
  const data = words[layout] ?? `arrays of ${shape.join(" × ")}`;
  return `A ${name} of ${data}: ${count(parameters)} parameters, the weights of step ${count(step)}.`;
}

function column(...panels) {
  const found = panels.filter(Boolean);
  return found.length ? h("div", { class: "column" }, ...found) : null;
}

/** The panels for a model of pictures: on the left what it makes, on the right what it says of one picture. */
function pictureColumns(model) {
  const impute = model.can("impute") && model.paints ? imputePanel(model) : null;
  const asked = model.can("score") || model.can("reconstruct") || impute;
  const hand = asked ? scorePanel(model, (example) => impute?.take(example)) : null;
  const choose = hand && ((example) => hand.choose(example));
  return [
    column(
      model.can("sample") && samplePanel(model, choose),
      model.can("film") && filmPanel(model),
      model.can("interpolate") && model.data === "picture" && interpolatePanel(model),
    ),
    column(hand?.root, impute?.root),
  ];
}

function tableColumns(model) {
  return [
    column(
      model.can("sample") && sampleRowsPanel(model),
      (model.can("score") || model.can("impute")) && ownRowsPanel(model),
    ),
  ];
}

let model = null;

function show(description) {
  model?.left.abort();
  model = new Model(description);
  at("name").textContent = model.name;
  document.title = `${model.name} · jensen`;
  at("facts").textContent = facts(model);
  const columns = (model.data === "table" ? tableColumns(model) : pictureColumns(model)).filter(Boolean);
  at("main").className = `of-${model.data}`;
  at("main").replaceChildren(...columns);
}

/** Ask the visitor for a token in a dialog; null if it is closed. */
function tokenDialog(again) {
  const dialog = at("token");
  at("token-words").textContent = again
    ? "This is not the token with which jensen serve was started. Please try again."
    : "It is the token with which jensen serve was started. The page forgets it when you leave.";
  at("token-value").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue ? at("token-value").value : null), { once: true });
  });
}

async function start() {
  onTokenWanted(tokenDialog);
  try {
    const runs = await ask("runs");
    at("run").replaceChildren(...runs.map(({ name }) => h("option", { value: name }, name)));
    at("run").addEventListener("change", () => show(runs.find(({ name }) => name === at("run").value)));
    at("choice").hidden = runs.length < 2;
    show(runs[0]);
  } catch (error) {
    at("facts").textContent = "";
    at("trouble").textContent = error.message;
  }
}

start();
