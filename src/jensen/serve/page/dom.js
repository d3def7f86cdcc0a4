// Elements, panels and buttons: what every widget is made of. Text only ever enters as text, never as HTML.

/** An element with attributes, listeners (onclick, ...) and children; attributes that are false or null are left out. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

let numbered = 0;

/** A control with its label above it, and a hint below. */
export function field(label, control, hint) {
  if (!hint) return h("label", { class: "field" }, h("span", {}, label), control);
  const id = `hint-${++numbered}`;
  control.setAttribute("aria-describedby", id);
  return h("label", { class: "field" }, h("span", {}, label), control, h("small", { id }, hint));
}

/** A field for a whole number. */
export function wholeNumber(label, value, { low = 0, high, hint, placeholder } = {}) {
  const input = h("input", { type: "number", inputmode: "numeric", min: low, max: high, step: 1, value, placeholder });
  return { input, field: field(label, input, hint) };
}

/** A section with a heading, a place for errors, a status line and a body. */
export function panel(title, lead) {
  const id = `panel-${++numbered}`;
  const body = h("div", { class: "body" });
  const message = h("p", { class: "message", role: "alert" });
  const status = h("p", { class: "status", role: "status" });
  const root = h(
    "section",
    { "aria-labelledby": id },
    h("h2", { id }, title),
    lead ? h("p", { class: "lead" }, lead) : null,
    body,
    message,
    status,
  );
  return {
    root,
    body,
    say: (words) => ((status.textContent = words), (message.textContent = "")),
    fail: (words) => ((message.textContent = words), (status.textContent = "")),
  };
}

/** A button that does one thing at a time: `work(signal)` returns words for the status line.
 *
 * While the work lasts, the button stops it. `run` starts the work from elsewhere, in place of work that is under way.
 */
export function task(owner, words, work, { primary = true } = {}) {
  const button = h("button", { type: "button", class: primary ? "primary" : "quiet" }, words);
  let current = null;
  async function run() {
    current?.abort();
    const mine = (current = new AbortController());
    button.textContent = "Stop";
    owner.root.setAttribute("aria-busy", "true");
    owner.say("");
    try {
      const said = await work(mine.signal);
      if (current === mine) owner.say(said ?? "");
    } catch (error) {
      if (current !== mine) return;
      if (error.name === "AbortError") owner.say("Stopped.");
      else owner.fail(error.message);
    } finally {
      if (current === mine) {
        current = null;
        button.textContent = words;
        owner.root.removeAttribute("aria-busy");
      }
    }
  }
  button.addEventListener("click", () => (current ? current.abort() : run()));
  return { button, run, stop: () => current?.abort() };
}

/** The time that work took, in words. */
export function since(start) {
  const seconds = (performance.now() - start) / 1000;
  return seconds < 1 ? `${Math.max(1, Math.round(1000 * seconds))} ms` : `${seconds.toFixed(1)} s`;
}

/** "1 sample", "2 samples". */
export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** A number as text, with a true minus sign. */
export function signed(value, digits) {
  return value.toFixed(digits).replace("-", "\u2212");
}

/** A value with its error, which has two digits: −83.68 ± 0.91. */
export function withError(value, error) {
  if (!(error > 0)) return signed(value, 2);
  const digits = Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(error))));
  return `${signed(value, digits)} ± ${error.toFixed(digits)}`;
}

/** Offer text to the visitor as a file. */
export function download(text, name, type = "text/csv") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
