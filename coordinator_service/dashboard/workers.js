// The workers of a stream: one row for each source, updated in place.
//
// On a narrow page a row is laid out as a card, and each of its cells says what it is. Some
// browsers forget that a table so laid out is one: so roles say it.
//
// Rows stay where they are while somebody points at them, or reads them by keyboard: the order that
// is asked for comes back as soon as nobody does.

import { ago, bytes, count, number, percent } from "./format.js";
import { element, made, mark, place, show, write } from "./written.js";

const SHOWN = 100; // more only if somebody asks for them
const STATES = ["silent", "live", "retired", "gone"]; // what needs somebody comes first

const hovers = matchMedia("(hover: hover)");
const short = (title) => title.split(",")[0];
const share = (part, whole) => (whole > 0 ? part / whole : 0);
const orLast = (x) => x ?? -Infinity;
// It speaks no more: what it was off by stays so, and there is nothing that it may yet use up.
const isOver = ({ state }) => state === "gone" || state === "retired";

// What a column is called, how it sorts, and which way first.
const COLUMNS = {
  worker: { title: "Worker", of: (source) => source.worker },
  state: { title: "State", of: (source) => STATES.indexOf(source.state) },
  count: { title: "Share of values", of: (source) => source.count, falls: true },
  median: {
    title: "Own median",
    hint: "Where it lies among nearly all values; the line is the median of all",
    of: (source) => orLast(source.median),
    falls: true,
  },
  shift: {
    title: "Rank shift, of its allowance",
    hint: "How many ranks it was off when it last spoke, and how many it may be off",
    of: (source) => (isOver(source) ? -1 : share(source.rank_shift, source.allowance)),
    falls: true,
  },
  sent: {
    title: "Sent, of its raw bytes",
    hint: "Bytes of its deltas, and of what its users sent it; bodies only",
    of: (source) => share(source.bytes, source.raw_bytes),
    falls: true,
  },
  heard: { title: "Last heard", of: (source) => source.last_heard_s ?? Infinity, falls: true },
};

export class Workers {
  #rows = new Map();
  #sources = [];
  #by = "state";
  #all = false;
  #spread = null;
  #order = new Map(); // where each source stood when last drawn
  #onLook;

  /** `onLook({by})` or `onLook({all})` when somebody wants to see it otherwise. */
  constructor({ onLook }) {
    this.#onLook = onLook;
    element("headings").append(...Object.entries(COLUMNS).map((column) => this.#heading(column)));
    element("rows").addEventListener("pointerleave", () => this.#draw());
    element("rows-scroll").addEventListener("blur", () => this.#draw());
    element("all").addEventListener("click", () => onLook({ all: this.#all ? "" : "1" }));
  }

  #heading([name, { title, hint = "", falls }]) {
    const [heading, button] = [made("th", `of-${name}`), made("button", "quiet", short(title))];
    button.append(made("span", "rest", title.slice(short(title).length)));
    heading.scope = "col";
    mark(heading, "role", "columnheader");
    button.type = "button";
    button.title = hint;
    button.addEventListener("click", () => {
      const first = falls ? `-${name}` : name;
      const other = falls ? name : `-${name}`;
      this.#onLook({ by: this.#by === first ? other : first });
    });
    heading.append(button);
    return heading;
  }

  look({ by, all }) {
    this.#by = Object.hasOwn(COLUMNS, by.replace(/^-/, "")) ? by : "state";
    this.#all = all !== "";
    this.#order.clear();
    for (const heading of element("headings").children) {
      const isIt = heading.className === `of-${this.#by.replace(/^-/, "")}`;
      const way = this.#by.startsWith("-") ? "descending" : "ascending";
      mark(heading, "aria-sort", isIt ? way : null);
    }
    this.#draw();
  }

  show(sources) {
    this.#sources = sources;
    this.#draw();
  }

  /** The median of all, and between what nearly all values lie; null: not known yet. */
  set spread(spread) {
    this.#spread = spread;
    this.#draw();
  }

  #draw() {
    const sorted = isRead() ? this.#asBefore() : this.#sorted();
    this.#order = new Map(sorted.map((source, at) => [source.source, at]));
    const shown = this.#all ? sorted : sorted.slice(0, SHOWN);
    const total = this.#sources.reduce((sum, source) => sum + source.count, 0);
    this.#forget(new Set(shown.map((source) => source.source)));
    const rows = shown.map((source) => this.#row(source).show(source, total, this.#spread));
    inOrder(element("rows"), rows);
    write(element("workers-words"), summary(this.#sources));
    show(element("all"), sorted.length > SHOWN);
    const words = this.#all ? `Show the first ${SHOWN}` : `Show all ${count(sorted.length)}`;
    write(element("all"), words);
  }

  #sorted() {
    const { of } = COLUMNS[this.#by.replace(/^-/, "")];
    const way = this.#by.startsWith("-") ? -1 : 1;
    const compare = (a, b) => (a < b ? -way : a > b ? way : 0);
    const names = new Intl.Collator("en", { numeric: true });
    return this.#sources.toSorted((a, b) =>
      this.#by.endsWith("worker")
        ? way * names.compare(a.worker, b.worker)
        : compare(of(a), of(b)) || names.compare(a.worker, b.worker));
  }

  /** As they stood; those that are new, last. */
  #asBefore() {
    const at = ({ source }) => this.#order.get(source) ?? Infinity;
    return this.#sorted().toSorted((a, b) => at(a) - at(b) || 0); // of two new ones: no number
  }

  #row(source) {
    if (!this.#rows.has(source.source)) this.#rows.set(source.source, new Row(source));
    return this.#rows.get(source.source);
  }

  #forget(but) {
    for (const key of this.#rows.keys()) if (!but.has(key)) this.#rows.delete(key);
  }
}

/** Whether somebody points at a row, or scrolls through them by keyboard. */
function isRead() {
  const pointed = hovers.matches ? ":hover" : ":active"; // a finger that has gone still hovers
  return element("rows").matches(pointed) || element("rows-scroll").matches(":focus-visible");
}

function inOrder(body, rows) {
  rows.forEach((row, at) => {
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
  });
  while (body.children.length > rows.length) body.lastElementChild.remove();
}

function summary(sources) {
  const of = (state) => sources.filter((source) => source.state === state).length;
  const told = STATES.map((state) => [of(state), state]).filter(([n]) => n > 0);
  return told.map(([n, state]) => `${count(n)} ${state}`).join(", ");
}

class Row {
  constructor({ worker, source }) {
    this.node = made("tr");
    mark(this.node, "role", "row");
    const name = made("th");
    name.scope = "row";
    mark(name, "role", "rowheader");
    name.append(made("bdi", "", worker));
    name.title = `${worker}, source ${source}`;
    this.node.append(name);
    const cell = (kind, ...parts) => {
      const td = made("td", `of-${kind}`);
      mark(td, "role", "cell");
      mark(td, "data-title", short(COLUMNS[kind].title));
      td.append(...parts);
      this.node.append(td);
    };
    cell("state", made("span", "shape"), (this.state = made("span")));
    for (const kind of ["count", "median", "shift", "sent"]) {
      const bar = made("div", kind === "median" ? "spot" : "bar");
      mark(bar, "aria-hidden", true);
      this[kind] = { text: made("span", "number"), aside: made("small"), bar };
      cell(kind, this[kind].text, this[kind].aside, bar);
    }
    cell("heard", (this.heard = made("span", "number")));
  }

  show(source, total, spread) {
    mark(this.node, "data-state", source.state);
    write(this.state, source.state);
    this.#bar("count", percent(share(source.count, total)), "", share(source.count, total));
    this.#spot(source.median, spread);
    const shifted = share(source.rank_shift, source.allowance);
    const limit = isOver(source) ? ", final" : ` of ${ranks(source.allowance)}`;
    this.#bar("shift", ranks(source.rank_shift), limit, shifted);
    show(this.shift.bar, !isOver(source));
    mark(this.shift.bar, "data-over", shifted > 1);
    const sent = share(source.bytes, source.raw_bytes);
    const said = source.raw_bytes ? percent(sent) : "–";
    this.#bar("sent", said, ` ${bytes(source.bytes)} of ${bytes(source.raw_bytes)}`, sent);
    write(this.heard, ago(source.last_heard_s));
    return this.node;
  }

  #bar(kind, text, aside, part) {
    write(this[kind].text, text);
    write(this[kind].aside, aside);
    place(this[kind].bar, part);
  }

  /** Where its median lies among nearly all values, beside the median of all. */
  #spot(median, spread) {
    const { text, bar } = this.median;
    write(text, number(median));
    const at = (x) => (x / 2 - spread.low / 2) / (spread.high / 2 - spread.low / 2);
    const isKnown = spread !== null && spread.high > spread.low && typeof median === "number";
    mark(bar, "data-known", isKnown);
    if (!isKnown) return;
    place(bar, at(median));
    place(bar, at(spread.median), "--median");
  }
}

function ranks(n) {
  return n >= 100 || n === 0 ? count(n) : n.toFixed(1);
}
