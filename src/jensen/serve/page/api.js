// Requests to the server that sent this page. All addresses are relative, so the page also works behind a prefix.

let token = "";
let askToken = async () => null;

/** An error in one line: "given: expected ...; what to do". */
export class Refused extends Error {}

/** Set the function that asks the visitor for a token: async () => a token, or null to give up. */
export function onTokenWanted(ask) {
  askToken = ask;
}

/** The response to a request, or `Refused`. A server that wants a token gets the one that the visitor gives. */
export async function send(path, { body, accept = "application/json", query = {}, signal } = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  const address = asked.size ? `${path}?${asked}` : path;
  for (;;) {
    const headers = { Accept: accept };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    const response = await answer(address, {
      method: body === undefined ? "GET" : "POST",
      headers,
      body: body && JSON.stringify(body),
      signal,
    });
    if (response.ok) return response;
    if (response.status !== 401) throw await refusal(response);
    const given = await askToken(Boolean(token));
    if (given === null) throw await refusal(response);
    token = given;
  }
}

/** The JSON that answers a GET, or with a body a POST. */
export async function ask(path, options) {
  return (await send(path, options)).json();
}

/** Yield the objects of a stream of server-sent events, up to the event "done".
 *
 * EventSource would do the same, but it cannot send a token, and it asks again when a stream ends.
 */
export async function* events(path, options) {
  const response = await send(path, { ...options, accept: "text/event-stream" });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Refused("The film ended early: the server stopped or closed the connection. Start it again.");
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const { event, data } = parsed(part);
      if (event === "done") return void (await reader.cancel());
      if (event === "error") throw new Refused(line(JSON.parse(data)));
      if (data) yield JSON.parse(data);
    }
  }
}

function parsed(part) {
  const found = { event: "message", data: "" };
  for (const one of part.split(/\r?\n/)) {
    const [, name, value] = /^([a-z]*): ?(.*)$/s.exec(one) ?? [];
    if (name === "event" || name === "data") found[name] = name === "data" ? found.data + value : value;
  }
  return found;
}

async function answer(address, options) {
  try {
    return await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is jensen serve still running?");
  }
}

async function refusal(response) {
  const wait = response.headers.get("Retry-After");
  let words;
  try {
    words = line(await response.json());
  } catch {
    words = `The server answered ${response.status} ${response.statusText}, without saying why.`;
  }
  return new Refused(wait ? `${words} (The server expects to be free in ${wait} s.)` : words);
}

function line({ error }) {
  const { given, expected, do: advice } = error;
  return `${given}: expected ${expected}; ${advice}`;
}
