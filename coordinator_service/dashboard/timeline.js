// The median over time, with the band that it is proven to lie in.
//
// A moment stands where the answer changed, and holds until the next. When within its step it
// changed is not told: so the line runs level until one step before the next moment, and straight
// over that one step, which is a few pixels wide; so does the band. The right edge is now; the last
// moment holds until there.
//
// What is shown is chosen by time, not by extremes: the median's range is where it was for all but
// a twentieth of the time at either end, unless all of it is not much wider; the band's, all but a
// tenth, and all of what is so now. So a wild first second does not flatten the minutes after it.
// Words say where the median itself is cut. The range stays as it is until it no longer fits.
//
// Times are the coordinator's. A browser's clock that is behind moves the edge with each answer;
// one that is ahead shows when answers keep arriving from long ago: see skew().

import { DOWN, UP, atMost, count, counted, time } from "./format.js";
import {
  Axis, Plot, Several, calm, clamp, html, inside, part, path, roomy, set, svg, telling, ticks,
  wide,
} from "./chart.js";
import { write } from "./written.js";

const RANGES = [
  { last_s: 300, step_s: 1, words: "5 minutes" },
  { last_s: 3600, step_s: 15, words: "1 hour" },
  { last_s: 86_400, step_s: 360, words: "1 day" },
];
const COLUMNS = ["at", "median", "low", "high", "rank_error", "count", "complete"];
const MEDIANS_CUT = 0.05; // of the time, at either end
const BANDS_CUT = 0.1;
const WIDER = 3; // all is shown if it is at most so many times what is left after the cut
const SHOWN_S_MIN = 60; // of a range, however young the stream is
const NEAR_PX = 12;
const TICK_MS = 1000;
const AHEAD_S = 10; // answers are told within a heartbeat of their making, mostly
const SAMPLES = 3;
const HATCH = "url(#timeline-hatch)";
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600];

/** How far the coordinator's clock is ahead, by when the last answers seem to have been made. */
export function skew(samples) {
  const latest = Math.max(...samples);
  return latest > 0 || (samples.length === SAMPLES && latest < -AHEAD_S) ? latest : 0;
}

/** The moments of columns. */
export function rows(columns) {
  return columns.at.map((_, i) =>
    Object.fromEntries(COLUMNS.map((name) => [name, columns[name][i]])));
}

/** Adds a moment: it takes the place of the last one if it is of the same step, or no newer. */
export function join(moments, moment, step_s) {
  const last = moments.at(-1);
  const step = (at) => Math.floor(at / step_s);
  if (last && step(moment.at) <= step(last.at)) moments.pop();
  moments.push({ ...moment, at: Math.max(moment.at, last?.at ?? moment.at) });
}

/** The moments from the last one before `from`, which holds into the range. */
export function since(moments, from) {
  const first = moments.findIndex(({ at }) => at > from);
  return moments.slice(first === -1 ? -1 : Math.max(0, first - 1));
}

/** Each moment, and where on the line its change begins. */
function bends(moments, from, step_s) {
  return moments.map((moment, i) => {
    const at = Math.max(moment.at, from - step_s);
    return { moment, at, begins: i ? Math.max(moments[i - 1].at, at - step_s, from - step_s) : at };
  });
}

/** The values between which it is for all but `cut` of the time at either end. */
export function middle(held, cut) {
  const sorted = [...held].sort(([a], [b]) => (a < b ? -1 : 1));
  const spare = sorted.reduce((sum, [, seconds]) => sum + seconds, 0) * cut;
  const end = (ordered) => {
    let left = spare;
    return ordered.find(([, seconds]) => (left -= seconds) < 0)?.[0];
  };
  return [end(sorted), end(sorted.reverse())];
}

/** The range of values to show: never empty, never more than it takes to see what matters. */
export function fit(moments, from, to) {
  const held = (name) => moments.map((moment, i) => [moment[name], Math.max(0.01,
    (moments[i + 1]?.at ?? to) - Math.max(moment.at, from))]).filter(([x]) => x !== null);
  const medians = held("median").map(([x]) => x);
  const most = [Math.min(...medians), Math.max(...medians)];
  const usual = middle(held("median"), MEDIANS_CUT);
  const isClose = most[1] / WIDER - most[0] / WIDER <= usual[1] - usual[0];
  const bands = [...middle(held("low"), BANDS_CUT), ...middle(held("high"), BANDS_CUT)];
  const now = moments.at(-1);
  const all = [...(isClose ? most : usual), now.median, now.low, now.high, ...bands]
    .filter((x) => x !== undefined && x !== null);
  return roomy(Math.min(...all), Math.max(...all));
}

/** Round times of the reader's clock, so that at most so many steps lie between. */
export function timeTicks(from, to, steps) {
  const step = STEPS_S.find((one) => (to - from) / one <= steps) ?? STEPS_S.at(-1);
  const zone = -60 * new Date(to * 1000).getTimezoneOffset();
  const at = [];
  for (let t = Math.ceil((from + zone) / step) * step - zone; t <= to; t += step) at.push(t);
  return at.map((t) => ({ at: t, words: clockTime(t, step < 60) }));
}

function clockTime(at, withSeconds) {
  const moment = new Date(at * 1000);
  const parts = [moment.getHours(), moment.getMinutes(), moment.getSeconds()];
  return parts.slice(0, withSeconds ? 3 : 2).map((one) => String(one).padStart(2, "0")).join(":");
}

/** What is proven, in words. */
function proven(low, high) {
  if (low === null && high === null) return "nothing yet";
  if (low === null) return `at most ${high}`;
  return high === null ? `at least ${low}` : `${low} to ${high}`;
}

export class Timeline {
  constructor(section, { onRange }) {
    Object.assign(this, { onRange, stream: null, step_s: 1, moments: [], samples: [], shown: null,
      isLive: false, right: Date.now() / 1000, timer: null, gutter: 0 });
    this.ranges = new Ranges(section, (last_s) => this.pick(last_s));
    this.plot = new Plot(section, { draw: () => this.draw(), find: (px) => this.find(px),
      step: (key, by) => this.step(key, by) });
    this.build(section);
    document.addEventListener("visibilitychange", () => this.wait());
  }

  build(section) {
    set(this.plot.place, { "aria-label": "Moments of the median" });
    this.readout = new Readout(this.plot.readout);
    this.drawing = new Drawing(this.plot.svg);
    this.note = html(section, "p", "chart-note");
    this.key = html(this.note, "span", "chart-key");
    const swatch = svg(this.key, "svg", { width: 28, height: 12, "aria-hidden": true });
    svg(swatch, "rect", { width: 28, height: 12, fill: HATCH });
    html(this.key, "span", "", "not complete: somebody may be missing");
    this.cut = html(this.note, "span", "", "some of the median lies outside of what is shown");
  }

  get range() {
    return this.ranges.last_s;
  }

  set range(last_s) {
    if (last_s === this.range) return;
    this.ranges.last_s = last_s;
    this.shown = null;
    this.plot.told = -Infinity;
    this.plot.redraw();
  }

  set live(isLive) {
    this.isLive = isLive;
    this.wait();
    this.plot.redraw();
  }

  /** Shows columns of history, and what is known to be newer. */
  load(columns) {
    this.turn(columns.stream);
    const last = this.moments.at(-1);
    this.step_s = columns.step_s;
    this.moments = rows(columns).filter(({ median }) => median !== null);
    const isNewer = last?.at > (this.moments.at(-1)?.at ?? Infinity);
    if (isNewer) join(this.moments, last, this.step_s);
    this.right = Date.now() / 1000 + skew(this.samples);
    this.plot.redraw();
  }

  /** Takes an answer as it was told just now. */
  add(answer) {
    this.turn(answer.stream);
    const at = Date.parse(answer.as_of) / 1000;
    if (answer.median === null || !Number.isFinite(at)) return;
    const last = this.moments.at(-1);
    const off = at - Date.now() / 1000;
    if (last && at > last.at) this.samples = [...this.samples, off].slice(-SAMPLES);
    join(this.moments, { ...answer, at }, this.step_s);
    this.moments = since(this.moments, this.edge() - this.range);
    this.plot.redraw();
  }

  /** Of another stream than before, nothing stays. */
  turn(stream) {
    if (stream === this.stream) return;
    Object.assign(this, { stream, moments: [], shown: null, gutter: 0 });
    this.plot.told = -Infinity;
  }

  pick(last_s) {
    this.range = last_s;
    this.onRange(last_s);
  }

  /** Moves on by itself while that is true, and somebody looks. */
  wait() {
    clearInterval(this.timer);
    const moves = this.isLive && !document.hidden;
    this.timer = moves ? setInterval(() => this.plot.redraw(), TICK_MS) : null;
    if (moves) this.plot.redraw();
  }

  edge() {
    if (this.isLive) this.right = Date.now() / 1000 + skew(this.samples);
    return Math.max(this.right, this.moments.at(-1)?.at ?? -Infinity);
  }

  draw() {
    const to = this.edge();
    const from = this.start(to);
    const moments = since(this.moments, from);
    this.hide(moments.length === 0);
    if (moments.length === 0) return;
    this.shown = calm(this.shown, fit(moments, from, to), 0.4, 0.08);
    this.scale(from, to);
    this.drawing.show(this, moments, from, to);
    this.read(moments, this.plot.key);
    this.remark(moments);
  }

  /** As far back as is asked for; of a young stream as far as it goes. */
  start(to) {
    const first = this.moments[0]?.at ?? to;
    return Math.max(to - this.range, Math.min(first, to - SHOWN_S_MIN));
  }

  hide(isEmpty) {
    write(this.plot.empty, isEmpty ? "No values yet" : "");
    this.drawing.hide(isEmpty);
    const visibility = isEmpty ? "hidden" : "";
    this.plot.readout.style.visibility = this.note.style.visibility = visibility;
  }

  /** The plot's edges and places in px; the gutter for labels only ever grows. */
  scale(from, to) {
    const { width, height } = this.plot;
    this.values = ticks(...this.shown, clamp(Math.round(height / 45), 5, 7));
    const longest = Math.max(0, ...this.values.words.map(wide));
    this.gutter = Math.max(this.gutter, Math.ceil(longest / 8) * 8 + 12);
    this.box = { left: this.gutter, right: width - 10, top: this.values.base ? 28 : 10,
      bottom: height - 26 };
    const { left, right, top, bottom } = this.box;
    this.x = (at) => left + part(at, from, to) * (right - left);
    this.at = (px) => from + ((px - left) / (right - left)) * (to - from);
    this.y = (value) => bottom - clamp(part(value, ...this.shown), -3, 4) * (bottom - top);
  }

  /** The cursor at px: at a moment that is near, or in the hold of one. */
  find(px) {
    if (!this.at || !this.moments.length) return undefined;
    const at = clamp(this.at(px), this.at(this.box.left), this.at(this.box.right));
    const off = (moment) => Math.abs(this.x(moment.at) - px);
    const [near] = this.moments.filter((one) => this.x(one.at) >= this.box.left)
      .filter((one) => off(one) <= NEAR_PX).sort((a, b) => off(a) - off(b));
    return near ? near.at : Math.max(at, this.moments[0].at);
  }

  /** The moment `by` moments after that of a key. */
  step(key, by) {
    const moments = since(this.moments, this.edge() - this.range);
    const now = key === undefined ? moments.length - 1 : index(moments, key);
    return moments[clamp(now + by, 0, moments.length - 1)]?.at;
  }

  read(moments, key) {
    const i = key === undefined ? moments.length - 1 : index(moments, key);
    const at = key ?? this.edge();
    this.readout.show(moments[i], at, this.shown);
    this.drawing.cursor(this, moments[i], key);
    this.plot.hear(i, moments.length, this.readout.words);
  }

  remark(moments) {
    const medians = moments.map(({ median }) => median);
    const [low, high] = this.shown;
    this.key.hidden = moments.every(({ complete }) => complete);
    this.cut.hidden = medians.every((x) => x >= low && x <= high);
    this.describe(medians);
  }

  describe(medians) {
    const words = RANGES.find(({ last_s }) => last_s === this.range)?.words.replace("1 ", "")
      ?? `${this.range} seconds`;
    const [least, most, now] = [Math.min(...medians), Math.max(...medians), medians.at(-1)]
      .map((x) => telling(x, ...this.shown));
    this.plot.describe(`The median over the last ${words}: from ${least} to ${most}, now ${now}`);
  }
}

/** The moment that holds at a time: the last one before it, or the first. */
function index(moments, at) {
  return Math.max(0, moments.findLastIndex((moment) => moment.at <= at));
}

/** Which range: radio buttons, so that arrow keys and screen readers know them. */
class Ranges {
  constructor(section, onPick) {
    const group = set(html(section, "div", "chart-ranges"), { role: "radiogroup",
      "aria-label": "How far back" });
    this.inputs = RANGES.map(({ last_s, words }) => {
      const label = html(group, "label");
      const input = label.appendChild(document.createElement("input"));
      Object.assign(input, { type: "radio", name: "timeline-range", value: last_s });
      input.addEventListener("change", () => onPick(last_s));
      html(label, "span", "", words);
      return input;
    });
    this.last_s = RANGES[0].last_s;
  }

  get last_s() {
    return this.chosen;
  }

  set last_s(last_s) {
    this.chosen = last_s;
    for (const input of this.inputs) input.checked = Number(input.value) === last_s;
  }
}

/** What the cursor reads, or what is so now: it says, too, which colour is what. */
class Readout {
  constructor(parent) {
    const said = (name, swatch = "") => {
      const item = html(parent, "span", "chart-said");
      if (swatch) html(item, "i", `chart-swatch ${swatch}`);
      if (name) html(item, "span", "chart-name", name).after(" ");
      return html(item, "b");
    };
    this.at = said("");
    this.median = said("median", "line");
    this.proven = said("proven", "band");
    this.certificate = said("certificate");
    this.count = said("values");
    this.state = said("");
  }

  show(moment, at, shown) {
    const value = (x, way) => (x === null ? null : telling(x, ...shown, way));
    const band = proven(value(moment.low, DOWN), value(moment.high, UP));
    const certificate = atMost(moment.rank_error);
    write(this.at, time(at));
    write(this.median, value(moment.median));
    write(this.proven, band);
    write(this.certificate, certificate);
    write(this.count, count(moment.count));
    write(this.state, moment.complete ? "" : "not complete");
    this.words = `${time(at)}, median ${value(moment.median)}, proven ${band}, `
      + `certificate ${certificate}, ${counted(moment.count, "value")}`
      + (moment.complete ? "" : ", not complete");
  }
}

/** The ground of stretches that are not complete: thin slanted lines. */
function hatching(defs) {
  const pattern = svg(defs, "pattern", { id: "timeline-hatch", width: 9, height: 9,
    patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
  svg(pattern, "line", { class: "hatch", y2: 9 });
}

/** All elements of the drawing. */
class Drawing {
  constructor(root) {
    const defs = svg(root, "defs");
    hatching(defs);
    this.clip = svg(svg(defs, "clipPath", { id: "timeline-clip" }), "rect");
    const clipped = { "clip-path": "url(#timeline-clip)" };
    this.all = svg(root, "g");
    this.band = svg(svg(this.all, "g", clipped), "path", { class: "band" });
    const gaps = svg(this.all, "g", clipped);
    this.gaps = new Several(() => svg(gaps, "rect", { fill: HATCH }));
    this.rows = new Axis(this.all, "left");
    this.base = svg(this.all, "text", { class: "base", y: 14 });
    this.times = new Axis(this.all, "bottom");
    this.line = svg(svg(this.all, "g", clipped), "path", { class: "line" });
    this.end = svg(this.all, "circle", { class: "dot", r: 3 });
    this.rule = svg(this.all, "line", { class: "cursor" });
    this.dot = svg(this.all, "circle", { class: "dot", r: 4 });
  }

  hide(isEmpty) {
    this.all.style.display = isEmpty ? "none" : "";
  }

  show(chart, moments, from, to) {
    const { x, y, box } = chart;
    const { left, right, top, bottom } = box;
    set(this.clip, { x: left, y: top, width: Math.max(0, right - left), height: bottom - top });
    this.lines(chart, bends(moments, from, chart.step_s), to);
    this.ground(chart, moments, to);
    this.rows.show(chart.values.at.map((one, i) => ({ px: y(one), words: chart.values.words[i] })),
      [left, right]);
    write(this.base, chart.values.base);
    const marks = timeTicks(from, to, clamp(Math.round((right - left) / 80), 3, 12));
    this.times.show(marks.map(({ at, words }) => ({ px: x(at),
      middle: inside(x(at), words, 0, right + 10), words })), [bottom, bottom + 4]);
  }

  lines({ x, y, box }, bent, to) {
    const outline = (height) => [...bent.flatMap(({ moment, at, begins }, i) =>
      [...(i ? [[x(begins), height(bent[i - 1].moment)]] : []), [x(at), height(moment)]]),
    [x(to), height(bent.at(-1).moment)]];
    const far = box.bottom - box.top;
    const highs = outline(({ high }) => (high === null ? box.top - far : y(high)));
    const lows = outline(({ low }) => (low === null ? box.bottom + far : y(low)));
    const line = outline(({ median }) => y(median));
    set(this.band, { d: `${path([...highs, ...lows.reverse()])}Z` });
    set(this.line, { d: path(line) });
    const [cx, cy] = line.at(-1);
    set(this.end, { cx, cy: clamp(cy, box.top, box.bottom) });
  }

  ground({ x, box }, moments, to) {
    const gaps = moments.flatMap(({ at, complete }, i) => (complete ? []
      : [[Math.max(box.left, x(at)), x(moments[i + 1]?.at ?? to)]]));
    const merged = gaps.reduce((all, [start, end]) => (all.at(-1)?.[1] >= start - 0.01
      ? [...all.slice(0, -1), [all.at(-1)[0], end]] : [...all, [start, end]]), []);
    this.gaps.show(merged, (rect, [start, end]) => set(rect, {
      x: start, y: box.top, width: Math.max(1, end - start), height: box.bottom - box.top }));
  }

  cursor({ x, y, box }, moment, key) {
    this.rule.style.display = this.dot.style.display = key === undefined ? "none" : "";
    if (key === undefined) return;
    const px = clamp(x(key), box.left, box.right);
    set(this.rule, { x1: px, x2: px, y1: box.top, y2: box.bottom });
    set(this.dot, { cx: px, cy: clamp(y(moment.median), box.top, box.bottom) });
  }
}
