// The median as it changes: one long answer of server-sent events, and what to do when it ends.
//
// It is read with `fetch`, not with EventSource, which hides what is needed here: comments as signs
// of life, statuses with their reasons, and room for a header of one's own.
//
//     connecting   asked, and nothing heard yet
//     live         heard within three heartbeats
//     away         not: why, and since when; it tries again, after 1, 2, 4, at most 10 s; every 4 s
//                  while the coordinator asks for its read token
//     refused      there cannot be such a stream: nothing is tried until another one is chosen
//
// A tab that is hidden for a while hangs up: a browser has six connections to a host, for all tabs.

import { SHUT, Trouble, health, reason, request } from "./asking.js";

const SILENT_HEARTBEATS = 3;
const SILENCE_S_MIN = 2; // however short a heartbeat is, a network may take so long
const PAUSE_S_MAX = 10;
const SHUT_PAUSES = 2; // as if it had tried so often: 4 s
const UNPROCESSABLE = 422; // what was asked for, by its name
const HIDDEN_MS = 5_000;
const CLOSED = new Trouble("the coordinator ended the connection");
const CHOSEN = new Trouble("another stream was chosen");

/** Lines of an event stream, fed in pieces; gives the data of each whole event. */
export class Events {
  #rest = "";
  #data = [];

  feed(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    const found = [];
    for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
      if (line.startsWith("data:")) this.#data.push(line.slice(5).replace(/^ /, ""));
      if (line === "" && this.#data.length) found.push(this.#data.splice(0).join("\n"));
    }
    return found;
  }
}

export class Live {
  heard_at = null; // of the page's own clock, in ms
  #onAnswer;
  #onState;
  #stream = null;
  #hangUp = new AbortController();
  #wake = () => {};
  #pauses = 0;
  #choices = 0;
  #hides = 0;

  /** `onAnswer(answer)`; `onState({name, why, code})` whenever that changes. */
  constructor({ onAnswer, onState }) {
    [this.#onAnswer, this.#onState] = [onAnswer, onState];
    addEventListener("online", () => this.hurry());
    addEventListener("offline", () => this.#hangUp.abort(new Trouble("this machine is offline")));
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  /** Listen to this stream, and to no other any more. */
  listen(stream) {
    const isFirst = this.#stream === null;
    [this.#stream, this.heard_at, this.#pauses] = [stream, null, 0];
    this.#choices += 1;
    this.#tell("connecting");
    if (isFirst) this.#run();
    else this.#again();
  }

  /** Nothing more is told to who has no token. */
  shut() {
    this.#hangUp.abort(SHUT);
  }

  /** Try again now, if it waits. */
  hurry() {
    this.#pauses = 0;
    this.#wake();
  }

  async #run() {
    for (;;) {
      await this.#visible();
      const choice = this.#choices;
      const stream = this.#stream;
      const trouble = await this.#read(stream).then(() => CLOSED, (error) => this.#why(error));
      if (trouble === CHOSEN || stream !== this.#stream) continue; // maybe this one again, by now
      const isRefused = trouble.status === UNPROCESSABLE;
      this.#tell(isRefused ? "refused" : "away", trouble);
      if (trouble.code === SHUT.code) this.#pauses = SHUT_PAUSES;
      await (isRefused ? this.#other(choice) : this.#pause());
    }
  }

  #why(error) {
    const hungUp = this.#hangUp.signal.reason;
    if (hungUp instanceof Trouble) return hungUp;
    return error instanceof Trouble ? error : new Trouble(reason(error));
  }

  async #read(stream) {
    const hangUp = (this.#hangUp = new AbortController());
    const silence = new Silence(hangUp, (await health()).heartbeat_s);
    if (stream !== this.#stream) return;
    try {
      const query = new URLSearchParams({ stream });
      const headers = { accept: "text/event-stream" };
      const response = await request(`median/events?${query}`, { signal: hangUp.signal, headers });
      await this.#follow(response.body.pipeThrough(new TextDecoderStream()), stream, silence);
    } finally {
      silence.end();
      hangUp.abort();
    }
  }

  async #follow(body, stream, silence) {
    const events = new Events();
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || stream !== this.#stream) return;
      silence.broken();
      this.heard_at = performance.now();
      const [last] = events.feed(value).slice(-1); // what came at once is old but for the last
      if (last !== undefined) this.#heard(JSON.parse(last));
    }
  }

  #heard(answer) {
    this.#pauses = 0;
    this.#tell("live");
    this.#onAnswer(answer);
  }

  #tell(name, trouble = null) {
    this.#onState({ name, why: trouble?.message ?? "", code: trouble?.code ?? "" });
  }

  /** With some jitter, so that not all pages of a coordinator come back at once. */
  #pause() {
    const pause_s = Math.min(PAUSE_S_MAX, 2 ** this.#pauses++) * (0.75 + Math.random() / 2);
    return new Promise((resolve) => {
      this.#wake = resolve;
      setTimeout(resolve, pause_s * 1000);
    });
  }

  async #visible() {
    while (document.hidden) await new Promise((resolve) => (this.#wake = resolve));
  }

  async #other(choice) {
    while (choice === this.#choices) await new Promise((resolve) => (this.#wake = resolve));
  }

  #again() {
    this.#hangUp.abort(CHOSEN);
    this.hurry();
  }

  #seen() {
    clearTimeout(this.#hides);
    if (!document.hidden) return this.hurry();
    const hangUp = () => this.#hangUp.abort(new Trouble("the tab was hidden"));
    this.#hides = setTimeout(hangUp, HIDDEN_MS);
  }
}

/** Ends what says nothing for three heartbeats. */
class Silence {
  #timer = 0;

  constructor(hangUp, heartbeat_s) {
    this.most_s = Math.max(SILENCE_S_MIN, SILENT_HEARTBEATS * heartbeat_s);
    this.hangUp = hangUp;
    this.broken();
  }

  broken() {
    clearTimeout(this.#timer);
    const why = new Trouble(`nothing was heard for ${this.most_s} s`);
    this.#timer = setTimeout(() => this.hangUp.abort(why), this.most_s * 1000);
  }

  end() {
    clearTimeout(this.#timer);
  }
}
