// How the values are spread, in two views of one thing: where they are dense, and what share of
// them lies up to each x. Both come from the same points: straight lines lead from `upto` of one to
// `below` of the next, and where the two differ at one x, many values are equal.
//
// Of a share the error is proven at the points. Where the coordinator says so, it is on the lines
// between them, too. Elsewhere the true share between two points is at least what is proven at the
// one before, and at most what is proven at the one after, as it never falls. That is the band. The
// cursor reads points only, so what it says is proven.
//
// A mark stands in a stripe, from where to where the true quantile may certainly lie.
//
// Above, the mass of equal bins. A value that alone has as much as half a bin of an even spread
// stands apart as a spike; where it would flatten all else it is cut, and its share written beside.
// What is shown is the middle 99 %, and the marks, or all of it where that is not much wider; words
// say how much lies outside.

import { atMost, counted, percent } from "./format.js";
import {
  Axis, Plot, Several, apart, between, calm, clamp, inside, loose, part, path, roomy, set, svg,
  telling, ticks, wide,
} from "./chart.js";
import { write } from "./written.js";

const TAIL = 0.005; // of the values, at either end
const WIDER = 1.6; // all is shown if it is at most so many times the middle
const BIN_PX = 12;
const SPIKES_MAX = 30;
const TALLER = 2.5; // spikes are cut at so many times the highest bin
const LABELS_PX = 44; // the marks' names and values, above all
const DENSITY = 0.38; // of the height below them

/** The shares below x and up to x. */
export function shares({ x: at, below, upto }, x) {
  const next = at.findIndex((one) => one > x);
  const i = (next === -1 ? at.length : next) - 1;
  if (i < 0) return [0, 0];
  if (at[i] === x) return [below[at.indexOf(x)], upto[i]];
  if (next === -1) return [1, 1];
  const share = upto[i] + part(x, at[i], at[next]) * (below[next] - upto[i]);
  return [share, share];
}

/** The range of x to show: the points of the middle and the marks, or all if not much wider. */
export function middle({ x, below, upto }, marks) {
  const inner = [x[upto.findIndex((share) => share >= TAIL)] ?? x[0],
    x[below.findLastIndex((share) => share <= 1 - TAIL)] ?? x.at(-1), ...marks];
  const [low, high] = [Math.min(...inner), Math.max(...inner)];
  const all = [Math.min(low, x[0]), Math.max(high, x.at(-1))];
  const isClose = all[1] / WIDER - all[0] / WIDER <= high - low;
  return roomy(...(isClose ? all : [low, high]));
}

/** Values that alone have more than so large a share: the largest of them. */
export function spikes({ x, below, upto }, least) {
  return x.map((at, i) => ({ at, share: upto[i] - below[i] })).filter(({ share }) => share >= least)
    .sort((a, b) => b.share - a.share).slice(0, SPIKES_MAX);
}

/** The share in each of so many equal bins, without what stands apart. */
export function bins(points, [low, high], size, apart) {
  const edges = Array.from({ length: size + 1 }, (_, i) => between(low, high, i / size));
  const upTo = edges.map((edge, i) => shares(points, edge)[i === size ? 1 : 0]);
  const mass = upTo.slice(1).map((share, i) => share - upTo[i]);
  for (const { at, share } of apart) {
    const i = edges.findLastIndex((edge) => edge <= at);
    if (i >= 0 && at <= high) mass[Math.min(i, size - 1)] -= share;
  }
  return mass.map((share) => Math.max(0, share));
}

/** How high the density's scale reaches: the highest bin, and spikes as far as they leave room. */
export function height(mass, apart) {
  const [bin, spike] = [Math.max(...mass), Math.max(0, ...apart.map(({ share }) => share))];
  const isFlat = mass.reduce((sum, share) => sum + share, 0) < 0.02;
  return (isFlat ? Math.max(bin, spike) : Math.max(bin, Math.min(spike, bin * TALLER))) || 1;
}

/** The edges of the proven band: upper and lower, as places of x and share. */
export function band({ x, below, upto, rank_error: error }, isStraight) {
  const least = (share, i) => clamp(share - error[i], 0, 1);
  const most = (share, i) => clamp(share + error[i], 0, 1);
  if (isStraight) {
    const edge = (bound) => x.flatMap((at, i) => [[at, bound(below[i], i)], [at, bound(upto[i], i)]]);
    return { lower: edge(least), upper: edge(most) };
  }
  const lower = x.flatMap((at, i) => [[at, least(i ? upto[i - 1] : below[0], Math.max(0, i - 1))],
    [at, least(upto[i], i)]]);
  const upper = x.flatMap((at, i) => [[at, most(below[i], i)],
    [at, i + 1 < x.length ? most(below[i + 1], i + 1) : most(upto[i], i)]]);
  return { lower, upper };
}

/** An error; the smallest, of rounding, is told as 0.001 %. */
const off = (error) => `± ${atMost(error && Math.max(error, 1e-5))}`;

/** What is marked: the quantiles that have a value. */
function marked(quantiles) {
  return (quantiles?.quantiles ?? []).filter(({ value }) => value !== null).map((found) => ({
    ...found, name: found.q === 0.5 ? "median" : `p${Number((found.q * 100).toPrecision(12))}` }));
}

export class Distribution {
  constructor(section) {
    Object.assign(this, { points: null, marks: [], shown: null, inside: [] });
    this.plot = new Plot(section, { draw: () => this.draw(), find: (px) => this.find(px),
      step: (key, by) => this.step(key, by) });
    set(this.plot.place, { "aria-label": "Points of the distribution" });
    this.drawing = new Drawing(this.plot.svg);
  }

  /** Shows the answers of /cdf and /quantile. */
  show(cdf, quantiles) {
    if (cdf.stream !== this.cdf?.stream) this.shown = null;
    this.cdf = cdf;
    this.points = cdf.points.x.length ? cdf.points : null;
    this.isStraight = cdf.straight;
    if (!this.points) this.inside = [];
    this.marks = marked(quantiles).sort((a, b) => a.value - b.value);
    this.plot.redraw();
  }

  draw() {
    write(this.plot.empty, this.points ? "" : "No values yet");
    this.drawing.hide(!this.points);
    if (!this.points) return write(this.plot.readout, "");
    const wanted = middle(this.points, this.marks.map(({ value }) => value));
    this.shown = calm(this.shown, wanted, 0.6, 0.04);
    this.scale();
    this.drawing.show(this);
    this.read(this.plot.key);
    this.describe();
  }

  scale() {
    const { width, height } = this.plot;
    this.values = ticks(...this.shown, clamp(Math.round(width / 85), 5, 12));
    const [top, bottom] = [LABELS_PX, height - (this.values.base ? 60 : 44)];
    const floor = top + (bottom - top) * DENSITY;
    this.box = { left: 54, right: width - 12, top, floor, upper: floor + 24, bottom };
    const { left, right, upper } = this.box;
    this.x = (value) => left + clamp(part(value, ...this.shown), -2, 3) * (right - left);
    this.y = (share) => bottom - share * (bottom - upper);
    this.inside = this.points.x.map((_, i) => i).filter((i) => {
      const place = part(this.points.x[i], ...this.shown);
      return place >= 0 && place <= 1;
    });
  }

  /** The point nearest to px: keys are its x. */
  find(px) {
    const away = (i) => Math.abs(this.x(this.points.x[i]) - px);
    const [first] = this.inside;
    const nearest = this.inside.reduce((best, i) => (away(i) < away(best) ? i : best), first);
    return this.points?.x[nearest];
  }

  step(key, by) {
    if (!this.inside.length) return undefined;
    const now = key === undefined ? this.inside.length >> 1 : this.index(key);
    return this.points.x[this.inside[clamp(now + by, 0, this.inside.length - 1)]];
  }

  /** Which of the points inside is the last one up to a key. */
  index(key) {
    return Math.max(0, this.inside.findLastIndex((i) => this.points.x[i] <= key));
  }

  read(key) {
    const now = key ?? this.step(undefined, 0);
    const nth = now === undefined ? -1 : this.index(now);
    const at = this.inside[nth];
    const isRead = key !== undefined && at !== undefined;
    this.drawing.cursor(this, isRead ? at : undefined);
    write(this.plot.readout, isRead ? this.words(at) : this.summary());
    if (at !== undefined) this.plot.hear(nth, this.inside.length, this.words(at));
  }

  summary() {
    const worst = Math.max(...this.points.rank_error);
    const proof = worst === 0 ? "exact" : `proven to ${off(worst)}`;
    return `${counted(this.cdf.count, "value")}; each share is ${proof}`;
  }

  /** What is proven at a point. */
  words(i) {
    const { x, below, upto, rank_error: error } = this.points;
    const jump = upto[i] - below[i];
    const about = error[i] === 0 ? "" : "about ";
    return `${percent(upto[i])} ${off(error[i])} are up to ${telling(x[i], ...this.shown)}`
      + (jump > error[i] ? `, ${about}${percent(jump)} just there` : "");
  }

  describe() {
    const value = (x) => telling(x, ...this.shown);
    const marks = this.marks.map((mark) => `${mark.name} ${value(mark.value)}`).join(", ");
    this.plot.describe(`Distribution of ${counted(this.cdf.count, "value")}, shown from `
      + `${value(this.shown[0])} to ${value(this.shown[1])}: ${marks}`);
  }
}

/** All elements of the drawing. */
class Drawing {
  constructor(root) {
    const clipped = { "clip-path": "url(#distribution-clip)" };
    this.clip = svg(svg(svg(root, "defs"), "clipPath", { id: "distribution-clip" }), "rect");
    this.all = svg(root, "g");
    const [back, front] = [svg(this.all, "g", clipped), svg(this.all, "g")];
    this.band = svg(back, "path", { class: "band" });
    this.bars = svg(back, "path", { class: "bars" });
    this.spikes = new Several(() => svg(back, "line", { class: "spike" }));
    this.spans = new Several(() => svg(back, "rect", { class: "span" }));
    this.rows = new Axis(front, "left");
    this.below = new Axis(front, "bottom");
    this.floor = svg(front, "line", { class: "floor" });
    this.leaders = new Several(() => svg(front, "path", { class: "leader" }));
    this.line = svg(svg(this.all, "g", clipped), "path", { class: "line" });
    this.build();
  }

  build() {
    const text = (words, anchor) => {
      const element = svg(this.all, "text", { class: "remark", "text-anchor": anchor });
      element.textContent = words;
      return element;
    };
    this.names = new Several(() => text("", "middle"));
    this.values = new Several(() => set(text("", "middle"), { class: "value" }));
    this.cuts = new Several(() => text("", "start"));
    this.density = text("density", "end");
    this.upto = text("share up to x", "start");
    [this.left, this.base, this.right] = ["start", "start", "end"].map((end) => text("", end));
    this.rule = svg(this.all, "line", { class: "cursor" });
    this.dot = svg(this.all, "circle", { class: "dot", r: 4 });
  }

  hide(isEmpty) {
    this.all.style.display = isEmpty ? "none" : "";
  }

  show(chart) {
    const { left, right, top, bottom } = chart.box;
    set(this.clip, { x: left - 1, y: top - 1, width: Math.max(0, right - left + 2),
      height: bottom - top + 2 });
    this.dense(chart);
    this.curve(chart);
    this.axes(chart);
    this.marks(chart);
    this.outside(chart);
  }

  dense({ points, shown, box, x }) {
    const size = clamp(Math.round((box.right - box.left) / BIN_PX), 20, 60);
    const alone = spikes(points, 0.5 / size);
    const mass = bins(points, shown, size, alone);
    const most = height(mass, alone);
    const y = (share) => box.floor - Math.min(1, share / most) * (box.floor - box.top - 4);
    const edge = (i) => box.left + (i / size) * (box.right - box.left);
    const steps = mass.flatMap((share, i) => [[edge(i), y(share)], [edge(i + 1), y(share)]]);
    set(this.bars, { d: path([[box.left, box.floor], ...steps, [box.right, box.floor]]) });
    this.spikes.show(alone, (line, { at, share }) =>
      set(line, { x1: x(at), x2: x(at), y1: box.floor, y2: y(share) }));
    this.tall(alone.filter(({ share }) => share > most), x, box);
  }

  /** Spikes that are cut say how much they are. */
  tall(cut, x, { right, top }) {
    const items = cut.map(({ at, share }) => ({ px: x(at), words: percent(share) }))
      .sort((a, b) => a.px - b.px);
    this.cuts.show(loose(items), (text, { px, words }) => {
      const isLast = px + wide(words) + 6 > right;
      const [beside, end] = isLast ? [px - 5, "end"] : [px + 5, "start"];
      set(text, { x: beside, y: top + 12, "text-anchor": end });
      write(text, words);
    });
  }

  curve({ points, isStraight, box, x, y }) {
    const place = ([at, share]) => [x(at), y(share)];
    const { lower, upper } = band(points, isStraight);
    const edges = [...upper.map(place), ...lower.map(place).reverse()];
    set(this.band, { d: `${path(edges)}Z` });
    const line = points.x.flatMap((at, i) => [[at, points.below[i]], [at, points.upto[i]]]);
    const [start, end] = [[box.left, y(points.below[0])], [box.right, y(1)]];
    set(this.line, { d: path([start, ...line.map(place), end]) });
  }

  axes({ values, box, x, y }) {
    const { left, right, floor, upper, bottom } = box;
    const lines = bottom - upper > 110 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1];
    const rows = lines.map((share) => ({ px: y(share), words: `${share * 100} %` }));
    this.rows.show(rows, [left, right]);
    const { at, words, base } = values;
    this.below.show(at.map((one, i) => ({ px: x(one), words: words[i],
      middle: inside(x(one), words[i], left - 24, right) })), [bottom, bottom + 4]);
    write(this.base, base);
    set(this.base, { x: left, y: bottom + 34 });
    set(this.floor, { x1: left, x2: right, y1: floor, y2: floor });
    set(this.density, { x: left - 8, y: floor });
    set(this.upto, { x: left, y: upper - 6 });
  }

  /** Names and values of the marks; names alone where there is no room for more. */
  marks({ marks, shown, box, x }) {
    const [least, most] = [0, box.right + 12];
    const room = (words) => marks.map(({ name }, i) => Math.max(wide(name), wide(words[i])) + 14);
    const full = marks.map(({ value }) => telling(value, ...shown));
    const fits = room(full).reduce((sum, one) => sum + one, 0) <= most - least;
    const words = fits ? full : marks.map(() => "");
    const middles = apart(marks.map(({ value }) => x(value)), room(words), least, most);
    const y = fits ? 14 : 29;
    this.names.show(marks, (text, { name }, i) => write(set(text, { x: middles[i], y }), name));
    this.values.show(marks, (text, _, i) => write(set(text, { x: middles[i], y: 29 }), words[i]));
    this.spans.show(marks, (span, { low, high }) => {
      const [from, to] = [low === null ? box.left : x(low), high === null ? box.right : x(high)];
      set(span, { x: from, y: box.top, width: Math.max(0, to - from), height: box.bottom - box.top });
    });
    this.leaders.show(marks, (line, { value }, i) => set(line, { d: path([[middles[i], 34],
      [x(value), box.top], [x(value), box.bottom]]) }));
  }

  outside({ points, shown, box, plot }) {
    const below = shares(points, shown[0])[0];
    const above = 1 - shares(points, shown[1])[1];
    write(this.left, below > 1e-9 ? `${percent(below)} lie below` : "");
    write(this.right, above > 1e-9 ? `${percent(above)} above` : "");
    set(this.left, { x: 0, y: plot.height - 8 });
    set(this.right, { x: box.right, y: plot.height - 8 });
  }

  cursor({ points, box, x, y }, i) {
    this.rule.style.display = this.dot.style.display = i === undefined ? "none" : "";
    if (i === undefined) return;
    const px = x(points.x[i]);
    set(this.rule, { x1: px, x2: px, y1: box.top, y2: box.bottom });
    set(this.dot, { cx: px, cy: y(points.upto[i]) });
  }
}
