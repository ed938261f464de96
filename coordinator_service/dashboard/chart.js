// What both charts share: numbers to places, nice ticks, and a plot to draw in.
//
// A value is any float64. So the difference of two may overflow, a step may be subnormal, and two
// values may differ in their last digits only. Nothing here subtracts first and asks later: part()
// halves where it must, and ticks are whole numbers of a decimal step, 3 * 2e-7, read as decimals.
// A range is always wide enough to be divided: roomy() sees to it.
//
// A plot is an SVG as large as its place, in px of letters that are 16 px high: as lines are drawn
// by the size of words, all grows with them where the reader wants larger ones. It
// draws once a frame at most, and not at all while the page is hidden; elements are made once and
// then moved. One cursor reads it off, by mouse, finger or arrow keys. It is either a place (the
// pointer stays where it is while the data moves on) or a key (the arrows stay with their moment).

import { NEAREST, formatted, number, power } from "./format.js";
import { write } from "./written.js";

const SVG = "http://www.w3.org/2000/svg";
const GREATEST = Number.MAX_VALUE;
const FINEST = 1e-13; // of its own size, a range: ticks are then whole numbers below 2 ** 53
const SMALLEST = 1e-322;
const DIGITS_MAX = 7; // more, and labels say only where they differ
const FONT = "600 12px"; // the heaviest in use
const GAP_PX = 8;
const LETTER_PX = 16; // of a page, where nobody chose another size
const pen = document.createElement("canvas").getContext("2d");

export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** Where x lies in a range: 0 at its low end, 1 at its high end. */
export function part(x, low, high) {
  const span = high - low;
  return Number.isFinite(span) ? (x - low) / span : (x / 2 - low / 2) / (high / 2 - low / 2);
}

/** What lies there: the inverse of part. */
export function between(low, high, share) {
  return low * (1 - share) + high * share;
}

/** The range, made wide enough to be divided; around a single value, a tenth to either side. */
export function roomy(low, high) {
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (size === 0) return [-1, 1];
  const least = Math.max(size * FINEST, SMALLEST);
  if (high - low >= least) return [low, high];
  const room = low === high ? Math.max(size / 10, least) : least;
  return [Math.max(-GREATEST, low - room), Math.min(GREATEST, high + room)];
}

/** The range with a share of itself added at either end. */
export function padded([low, high], share) {
  const room = (high / 2 - low / 2) * 2 * share;
  return [Math.max(-GREATEST, low - room), Math.min(GREATEST, high + room)];
}

/** What to show of `wanted`: what is shown already, as long as that still fits it well. */
export function calm(shown, wanted, least, room) {
  if (shown) {
    const [low, high] = wanted.map((x) => part(x, ...shown));
    if (low >= 0 && high <= 1 && high - low >= least) return shown;
  }
  return padded(wanted, room);
}

/** At most so many steps of 1, 2 or 5 times a power of ten. Very small ones are counted enlarged:
 *  a subnormal step would be rounded. */
export function ticks(low, high, steps) {
  const enlarged = Math.max(Math.abs(low), Math.abs(high)) < 1e-280 ? 300 : 0;
  const [from, to] = [low, high].map((x) => x * Number(`1e${enlarged}`));
  const [mantissa, exponent] = niceStep(to / steps - from / steps);
  const step = Number(`${mantissa}e${exponent}`);
  const wholes = [];
  for (let i = Math.ceil(from / step); i <= Math.floor(to / step); i++) wholes.push(i * mantissa);
  const at = wholes.map((whole) => Number(`${whole}e${exponent - enlarged}`));
  return { at, ...labels(wholes, at, exponent - enlarged) };
}

function niceStep(least) {
  const [mantissa, exponent] = least.toExponential().split("e").map(Number);
  const nice = [1, 2, 5].find((one) => mantissa <= one);
  return nice ? [nice, exponent] : [1, exponent + 1];
}

/** Words for ticks that tell them apart; `base`, if any, is what all are to be added to. */
function labels(wholes, at, exponent) {
  const size = Math.max(...at.map(Math.abs), 0);
  const digits = size && power(size) - exponent + 1;
  if (digits > DIGITS_MAX) return differences(wholes, exponent);
  const plain = exponent >= -6 && size < 1e7;
  const words = at.map((x) => (plain ? grouped(x, Math.max(0, -exponent)) : short(x, exponent)));
  return { words, base: "" };
}

function differences(wholes, exponent) {
  const base = roundest(wholes[0], wholes.at(-1));
  const words = wholes.map((whole) => {
    const x = Number(`${whole - base}e${exponent}`);
    const isPlain = exponent >= -6 && exponent <= 6 && x !== 0;
    return isPlain ? grouped(x, Math.max(0, -exponent)) : short(x, exponent);
  });
  return { words, base: `${long(Number(`${base}e${exponent}`))} +` };
}

/** The number with the most zeros at its end. */
function roundest(first, last) {
  let power = 1e15;
  while (Math.floor(last / power) * power < first) power /= 10;
  return Math.floor(last / power) * power;
}

/** A value with as many digits as it takes to tell it from others in a range. */
export function telling(x, low, high, way = NEAREST) {
  const span = high / 2 - low / 2;
  const size = Math.max(Math.abs(low), Math.abs(high));
  if (span * 1000 > size || size < 1e-4 || size > 1e15) return number(x, way);
  return grouped(x, clamp(3 - power(span), 0, 20), way);
}

function grouped(x, decimals, way = NEAREST) {
  const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return formatted(x || 0, way, digits);
}

function short(x, exponent) {
  if (x === 0) return "0";
  return signed(x.toExponential(clamp(power(x) - exponent, 0, 20)));
}

function long(x) {
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-6 || size >= 1e15)) return signed(String(x));
  return formatted(x || 0, NEAREST, { maximumFractionDigits: 20 });
}

const signed = (words) => words.replace(/-/g, "−");

/** How wide a label is, at most. */
export const wide = (words) => pen.measureText(words).width;

/** Middles of labels, in order, moved as little as needed until none touches the next. */
export function apart(middles, widths, low, high) {
  const placed = [];
  middles.forEach((middle, i) => {
    const least = i ? placed[i - 1] + (widths[i - 1] + widths[i]) / 2 : low + widths[i] / 2;
    placed.push(Math.max(middle, least));
  });
  for (let i = placed.length - 1, most = high; i >= 0; i--) {
    placed[i] = Math.min(placed[i], most - widths[i] / 2);
    most = placed[i] - widths[i] / 2;
  }
  return placed;
}

/** A path through places: lines between them, in tenths of a pixel. */
export function path(places) {
  return places.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

export function html(parent, name, className = "", words = "") {
  const element = parent.appendChild(document.createElement(name));
  if (className) element.className = className;
  element.textContent = words;
  return element;
}

export function svg(parent, name, attributes = {}) {
  return set(parent.appendChild(document.createElementNS(SVG, name)), attributes);
}

export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** As many elements as there are items: they are made once, then moved, and hidden when spare. */
export class Several {
  constructor(make) {
    this.make = make;
    this.made = [];
  }

  show(items, place) {
    while (this.made.length < items.length) this.made.push(this.make());
    this.made.forEach((element, i) => {
      element.style.display = i < items.length ? "" : "none";
      if (i < items.length) place(element, items[i], i);
    });
  }
}

/** An axis: a thin line and a label for each tick. `lines` are where it begins and ends, in px. */
export class Axis {
  constructor(parent, side) {
    const layer = svg(parent, "g", { class: "axis" });
    this.side = side;
    this.lines = new Several(() => svg(layer, "line"));
    this.words = new Several(() => svg(layer, "text"));
  }

  /** Labels that would touch the one before are left out. */
  show(items, [from, to]) {
    this.lines.show(items, (line, { px }) => set(line, this.side === "left"
      ? { x1: from, x2: to, y1: px, y2: px } : { x1: px, x2: px, y1: from, y2: to }));
    const said = this.side === "left" ? items : loose(items);
    this.words.show(said, (text, { px, middle = px, words }) => {
      set(text, this.side === "left" ? { x: from - 8, y: px + 4, "text-anchor": "end" }
        : { x: middle, y: to + 18, "text-anchor": "middle" });
      write(text, words);
    });
  }
}

/** Without the labels that would touch one before them. */
export function loose(items) {
  let end = -Infinity;
  return items.filter(({ px, middle = px, words }) => {
    if (middle - wide(words) / 2 < end) return false;
    end = middle + wide(words) / 2 + GAP_PX;
    return true;
  });
}

/** A label's middle, moved to where the label ends within the edges. */
export function inside(middle, words, left, right) {
  const half = wide(words) / 2;
  return Math.max(left + half, Math.min(middle, right - half));
}

/** The place to draw: a figure with words above it, and a cursor.
 *
 *  `draw()` draws all anew. `find(px)` and `step(key, by)` say which key the cursor means; both may
 *  be told undefined, or answer it, where there is nothing. */
export class Plot {
  constructor(parent, { draw, find, step }) {
    Object.assign(this, { find, step, width: 0, height: 0, zoom: 1, cursor: null, isDue: false,
      told: -Infinity });
    const figure = html(parent, "figure", "chart");
    this.readout = html(figure, "figcaption", "chart-readout");
    this.place = set(html(figure, "div", "chart-place"), { tabindex: 0, role: "slider" });
    this.svg = svg(this.place, "svg", { role: "img" });
    this.empty = html(this.place, "p", "chart-empty");
    this.draw = draw;
    new ResizeObserver(([{ contentRect }]) => this.resize(contentRect)).observe(this.place);
    this.listen();
  }

  resize({ width, height }) {
    this.zoom = parseFloat(getComputedStyle(document.documentElement).fontSize) / LETTER_PX;
    Object.assign(this, { width: width / this.zoom, height: height / this.zoom });
    set(this.svg, { viewBox: `0 0 ${this.width} ${this.height}`, width, height });
    pen.font = `${FONT} ${getComputedStyle(this.place).fontFamily}`;
    this.redraw();
  }

  /** Draws in the next frame, once, however often it is asked. */
  redraw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      if (this.width > 0) this.draw();
    });
  }

  /** The words for who cannot see it: new ones every ten seconds, at most. */
  describe(words) {
    const now = performance.now();
    if (now - this.told < 10_000) return;
    this.told = now;
    set(this.svg, { "aria-label": words });
  }

  /** What the cursor reads, for who hears it: number `index` of `length`. Without a cursor it is
   *  said once: nobody wants to hear each change. */
  hear(index, length, words) {
    if (!this.cursor && this.place.hasAttribute("aria-valuenow")) return;
    set(this.place, { "aria-valuemin": 0, "aria-valuemax": Math.max(0, length - 1),
      "aria-valuenow": Math.max(0, index), "aria-valuetext": words });
  }

  /** The key that the cursor means, or undefined. */
  get key() {
    if (!this.cursor) return undefined;
    return this.cursor.px === undefined ? this.cursor.key : this.find(this.cursor.px);
  }

  point(cursor) {
    this.cursor = cursor;
    this.redraw();
  }

  listen() {
    const left = () => this.svg.getBoundingClientRect().x;
    const follow = ({ clientX }) => this.point({ px: (clientX - left()) / this.zoom });
    const forget = () => this.point(null);
    this.place.addEventListener("pointermove", follow);
    this.place.addEventListener("pointerdown", follow);
    this.place.addEventListener("pointerleave", (e) => e.pointerType === "mouse" && forget());
    this.place.addEventListener("blur", forget);
    this.place.addEventListener("focus", () => this.place.matches(":focus-visible")
      && this.point({ key: this.step(undefined, 0) }));
    this.place.addEventListener("keydown", (e) => this.press(e));
  }

  press(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10,
      PageDown: -10, Home: -Infinity, End: Infinity, Escape: 0 }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    this.point(by === 0 ? null : { key: this.step(this.key, by) });
  }
}
