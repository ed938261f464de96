// Questions to the coordinator. Addresses are relative, so that all works below a prefix, and so
// that the token, which is sent with each of them, goes to nobody else.

import { heard, isOpen, refused, usedToken } from "./doors.js";

const HEALTH = "health";
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

/** What is told nobody who does not show the read token. */
export const SHUT = new Trouble("the coordinator asks for its read token", 401, "unauthorized");

async function troubleOf(response) {
  const { error } = await response.json().catch(() => ({}));
  const words = error?.message ?? `the coordinator answered with status ${response.status}`;
  return new Trouble(words, response.status, error?.code);
}

export async function ask(path, parameters = []) {
  const query = new URLSearchParams(parameters).toString();
  return told(query ? `${path}?${query}` : path, usedToken());
}

/** How it is, which is open to all, and which doors are closed to that token. */
export async function health(token = usedToken()) {
  const found = { closed: [], ...(await told(HEALTH, token)) };
  heard(found.closed, token);
  return found;
}

/** What is answered as it comes, of an address at which nothing is asked while the door is closed. */
export async function request(address, settings, token = usedToken()) {
  if (address !== HEALTH && !isOpen()) throw SHUT;
  const shown = token ? { authorization: `Bearer ${token}` } : {};
  const headers = { ...settings.headers, ...shown };
  const response = await fetch(address, { ...settings, headers, cache: "no-store" });
  if (response.ok) return response;
  const trouble = await troubleOf(response);
  if (trouble.code === SHUT.code) refused(token);
  throw trouble;
}

async function told(address, token) {
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    return await (await request(address, { signal }, token)).json();
  } catch (error) {
    throw error instanceof Trouble ? error : new Trouble(reason(error));
  }
}

export function reason(error) {
  if (error instanceof Trouble) return error.message;
  if (error.name === "TimeoutError") return "the coordinator does not answer";
  if (error instanceof SyntaxError) return "what answers is no coordinator";
  return "the coordinator cannot be reached";
}

export function sentence(words) {
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
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
