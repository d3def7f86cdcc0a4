// Rows of a table: drawn given some columns, scored, and filled in.

import { Refused } from "./api.js";
import { parse } from "./csv.js";
import { counted, download, field, h, panel, since, task, withError, wholeNumber } from "./dom.js";
import { histogram, howUnusual, percent } from "./histogram.js";
import { seedField } from "./sample.js";

const MOST = 50; // rows in the form; the HTTP interface takes more
const SHOWN = 100; // rows of a result on the page; the file has all of them

/** A table that scrolls sideways within the page. `cells` of a row are texts or elements. */
function table(head, rows, words) {
  return h(
    "div",
    { class: "wide", tabindex: 0, role: "region", "aria-label": words },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...rows.map((row) => h("tr", {}, ...row.map((one) => (one instanceof Node ? one : h("td", {}, one)))))),
    ),
  );
}

/** The panel that draws rows, given the columns that are filled in. */
export function sampleRowsPanel(model) {
  const owner = panel("Samples", "Rows like those of the data. What you fill in is given; the rest is drawn.");
  const number = wholeNumber("Number of rows", 10, { low: 1, high: 100000 });
  const seed = seedField();
  const given = model.columns.map((column) => [column, givenControl(column)]);
  const result = h("div", { class: "result" });
  const save = h("button", { type: "button", class: "quiet", hidden: true }, "Download CSV");
  let text = "";
  save.addEventListener("click", () => download(text, `${model.name}-samples.csv`));

  const draw = task(owner, "Draw rows", async (signal) => {
    const start = performance.now();
    const filled = given.filter(([, control]) => control.value !== "");
    const body = { n: number.input.valueAsNumber, seed: seed.value() };
    if (filled.length) body.given = Object.fromEntries(filled.map(([column, { value }]) => [column.name, value]));
    text = await (await model.send("sample", { body, accept: "text/csv", signal })).text();
    const [head, ...rows] = parse(text);
    result.replaceChildren(table(head, rows.slice(0, SHOWN), "Rows drawn"));
    save.hidden = false;
    const more = rows.length > SHOWN ? `; the first ${SHOWN} are shown` : "";
    return `${counted(rows.length, "row")} in ${since(start)}${more}.`;
  });
  owner.body.append(
    h("div", { class: "fields" }, number.field, seed.field),
    h(
      "details",
      { class: "given", open: given.length <= 24 },
      h("summary", {}, "Given columns"),
      h("div", { class: "fields" }, ...given.map(([column, control]) => field(column.name, control))),
    ),
    h("div", { class: "buttons" }, draw.button, save),
    result,
  );
  return owner.root;
}

function givenControl({ categories, kind, low, high }) {
  if (categories?.length) {
    const options = categories.map((one) => h("option", { value: one }, one));
    return h("select", {}, h("option", { value: "" }, "any"), ...options);
  }
  const range = typeof low === "number" && typeof high === "number" ? ` (${short(low)} to ${short(high)})` : "";
  const mode = ["continuous", "integer", "count"].includes(kind) ? "decimal" : null;
  return h("input", { placeholder: `any${range}`, inputmode: mode, autocomplete: "off" });
}

function short(number) {
  return String(Number(number.toPrecision(4)));
}

/** The panel for the visitor's own rows: their scores, and their empty cells filled in. */
export function ownRowsPanel(model) {
  const owner = panel("Your rows", "Paste or drop rows of CSV, choose a file, or write into the cells.");
  const sheet = new Sheet(model.columns.map((column) => column.name));
  const result = h("div", { class: "result" });
  const buttons = h("div", { class: "buttons" });
  const file = h("input", { type: "file", accept: ".csv,.tsv,.txt,text/csv", class: "unseen", "aria-label": "Choose a CSV file" });
  const read = (text) => owner.say(sheet.read(text));
  const guarded = (work) => async (argument) => {
    try {
      read(await work(argument));
    } catch (error) {
      owner.fail(error.message);
    }
  };

  if (model.can("score")) buttons.append(task(owner, "Score", (signal) => scored(model, sheet, result, signal)).button);
  if (model.can("impute")) {
    const quiet = { primary: !model.can("score") };
    const work = (signal) => filledIn(model, sheet, result, signal);
    buttons.append(task(owner, "Fill empty cells", work, quiet).button);
  }
  if (model.examples) {
    const take = task(owner, "Test rows", async (signal) => sheet.read(await model.takeRows(5, signal)), { primary: false });
    buttons.append(take.button);
  }
  buttons.append(h("label", { class: "quiet button" }, "CSV file", file));
  buttons.append(h("button", { type: "button", class: "quiet", onclick: () => sheet.add() }, "Add a row"));
  buttons.append(h("button", { type: "button", class: "quiet", onclick: () => sheet.clear() }, "Clear"));

  file.addEventListener("change", guarded(async () => {
    const text = await file.files[0].text();
    file.value = "";
    return text;
  }));
  sheet.root.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (!/[\n\t;,]/.test(text.trim())) return;
    event.preventDefault();
    guarded(async () => text)();
  });
  sheet.root.addEventListener("dragover", (event) => event.preventDefault());
  sheet.root.addEventListener("drop", (event) => {
    event.preventDefault();
    const [dropped] = event.dataTransfer.files;
    guarded(async () => (dropped ? dropped.text() : event.dataTransfer.getData("text")))();
  });
  owner.body.append(sheet.root, buttons, result);
  return owner.root;
}

/** Rows of input elements, one column for each column of the model. */
class Sheet {
  constructor(names) {
    this.names = names;
    this.body = h("tbody", {});
    const head = h("tr", {}, ...names.map((name) => h("th", { scope: "col" }, name)));
    const words = "Your rows: paste rows of CSV into any cell";
    this.root = h(
      "div",
      { class: "wide sheet", tabindex: 0, role: "region", "aria-label": words },
      h("table", {}, h("thead", {}, head), this.body),
    );
    this.clear();
  }

  add(values = []) {
    const row = this.body.rows.length + 1;
    const cells = this.names.map((name, k) =>
      h("td", {}, h("input", { value: values[k] ?? "", size: 8, autocomplete: "off", "aria-label": `${name}, row ${row}` })),
    );
    this.body.append(h("tr", {}, ...cells));
  }

  clear() {
    this.body.replaceChildren();
    this.add();
  }

  /** Take rows of CSV text, whose first row may have the names of columns; returns words about it. */
  read(text) {
    const [first, ...rest] = parse(text.replace(/^\ufeff/, ""));
    const named = first?.some((cell) => this.names.includes(cell));
    const rows = named ? rest : [first, ...rest].filter(Boolean);
    const place = named ? this.names.map((name) => first.indexOf(name)) : this.names.map((_, k) => k);
    if (!rows.length) throw new Refused("no row: expected rows of CSV; give the names of the columns and a row below");
    if (!named && rows[0].length !== this.names.length) {
      const few = this.names.slice(0, 3).join(", ");
      throw new Refused(
        `rows of ${counted(rows[0].length, "cell")} without names of columns: expected ${this.names.length} cells; ` +
          `give fitting rows, or a first row with names such as ${few}`,
      );
    }
    if (rows.length > MOST) {
      throw new Refused(`${rows.length} rows: expected at most ${MOST} on this page; send more over the HTTP interface`);
    }
    this.body.replaceChildren();
    for (const row of rows) this.add(place.map((k) => (k < 0 ? "" : (row[k] ?? "").trim())));
    const absent = this.names.filter((_, k) => place[k] < 0);
    return absent.length ? `${counted(rows.length, "row")}; empty: ${absent.join(", ")}.` : `${counted(rows.length, "row")}.`;
  }

  /** The rows that are not empty, as lists of texts. */
  rows() {
    const rows = [...this.body.rows].map((row) => [...row.querySelectorAll("input")].map((input) => input.value.trim()));
    const found = rows.filter((row) => row.some((cell) => cell !== ""));
    if (!found.length) throw new Refused("There is no row yet: paste rows of CSV, choose a file, or write into the cells.");
    return found;
  }

  /** The rows as the server takes them: objects of cells by column, null for an empty cell. */
  get x() {
    return this.rows().map((row) => Object.fromEntries(row.map((cell, k) => [this.names[k], cell === "" ? null : cell])));
  }
}

async function scored(model, sheet, result, signal) {
  const start = performance.now();
  const { scores, of, notes } = await model.post("score", { x: sheet.x }, { signal });
  await model.refresh();
  const known = scores.some((one) => typeof one.percentile === "number");
  const head = ["row", `${of}, ${scores[0].unit}`, ...(known ? ["test rows that score lower", "so the row is"] : [])];
  const rows = scores.map(({ bound, error, percentile }, k) => [
    String(k + 1),
    withError(bound, error),
    ...(known ? [percent(percentile), howUnusual(percentile)] : []),
  ]);
  const bounds = scores.map((one) => one.bound);
  result.replaceChildren(
    model.histogram ? histogram(model.histogram, bounds, scores[0].unit) : "",
    table(head, rows, "Scores of your rows"),
  );
  return [`${counted(rows.length, "row")} scored in ${since(start)}.`, ...(notes ?? [])].join(" ");
}

async function filledIn(model, sheet, result, signal) {
  const start = performance.now();
  const sent = sheet.rows();
  const answer = await model.post("impute", { x: sheet.x }, { signal });
  let count = 0;
  const rows = sent.map((row, r) =>
    row.map((cell, k) => {
      if (cell !== "") return cell;
      count += 1;
      return filledCell(model.columns[k], r, answer);
    }),
  );
  result.replaceChildren(table(sheet.names, rows, "Your rows, filled in"));
  const words = count ? `${counted(count, "cell")} filled in ${since(start)}, with 95 % intervals.` : "No cell is empty.";
  return [words, ...(answer.notes ?? [])].join(" ");
}

function filledCell({ name, categories }, row, { x, low, high }) {
  const ends = [low[row][name], high[row][name]];
  const interval = categories || ends.includes(null) ? null : ends.join(" to "); // categories have no order
  return h(
    "td",
    { class: "filled" },
    String(x[row][name] ?? ""),
    h("span", { class: "unseen" }, " filled in"),
    interval && h("small", {}, interval),
  );
}
