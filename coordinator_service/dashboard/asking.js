// Questions to the coordinator. Addresses are relative, so that all works below a prefix.

const ANSWER_MS = 10_000;
const EVERY_MS = 2_000;
const TROUBLE_MS = 5_000;

/** Why there is no answer, in words; the status and the code are for programs. */
export class Trouble extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    [this.status, this.code] = [status, code];
  }
}

export async function troubleOf(response) {
  const { error } = await response.json().catch(() => ({}));
  const words = error?.message ?? `the coordinator answered with status ${response.status}`;
  return new Trouble(words, response.status, error?.code);
}

export async function ask(path, parameters = []) {
  const query = new URLSearchParams(parameters).toString();
  const signal = AbortSignal.timeout(ANSWER_MS);
  let response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, { signal, cache: "no-store" });
    if (response.ok) return await response.json();
  } catch (error) {
    throw new Trouble(reason(error));
  }
  throw await troubleOf(response);
}

export function reason(error) {
  if (error instanceof Trouble) return error.message;
  if (error.name === "TimeoutError") return "the coordinator does not answer";
  if (error instanceof SyntaxError) return "what answers is no coordinator";
  return "the coordinator cannot be reached";
}

/**
 * Does something again and again while the page is seen: never twice at once, less often where it
 * takes long, or fails.
 */
export class Repeated {
  #act;
  #every_ms;
  #timer = 0;
  #busy = false;
  #again = false;

  constructor(act, every_ms = EVERY_MS) {
    [this.#act, this.#every_ms] = [act, every_ms];
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  /** At once; or as soon as what is under way is over. */
  async now() {
    clearTimeout(this.#timer);
    if (this.#busy) {
      this.#again = true;
      return;
    }
    this.#busy = true;
    const began = performance.now();
    const least_ms = await this.#act().then(() => this.#every_ms, troubled);
    this.#busy = false;
    const took_ms = performance.now() - began;
    this.#next(this.#again ? 0 : Math.max(least_ms, 4 * took_ms));
  }

  #next(pause_ms) {
    this.#again = false;
    if (!document.hidden) this.#timer = setTimeout(() => this.now(), pause_ms);
  }
}

function troubled(error) {
  if (!(error instanceof Trouble)) reportError(error); // a mistake of ours
  return TROUBLE_MS;
}
