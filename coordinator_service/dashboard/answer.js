// The answer now: the median, large; what surely encloses it; and what stands behind it.

import { DOWN, NEAREST, UP, atMost, count, counted, number, power, steady } from "./format.js";
import { element, mark, place, write } from "./written.js";

const SAID_EVERY_MS = 30_000;
// Digits: mostly, where no less is certain, and about as many as a float64 has.
const [SIX, CERTAIN, MOST] = [6, 15, 16];
const RATE_S = 10; // values a second, of the last so many seconds
let said_at = -Infinity;
let counts = [];

/** Another stream: what was counted of the last one is no beginning of this one. */
export function forget() {
  counts = [];
}

/** How fast values come; nothing while none do. */
export function showRate() {
  const now = performance.now() / 1000;
  const first = counts.findLastIndex(({ at }) => at <= now - RATE_S);
  counts = counts.slice(Math.max(0, first));
  const [before, last] = [counts.at(0), counts.at(-1)];
  const rate = last ? (last.count - before.count) / Math.max(1, Math.min(RATE_S, now - before.at))
    : 0;
  write(element("rate"), rate >= 1 ? `${count(rate)} a second` : "");
}

export function showAnswer(answer) {
  mark(element("answer"), "data-complete", answer.complete);
  showMedian(answer);
  write(element("between"), between(answer));
  showBracket(answer);
  write(element("count"), count(answer.count));
  counts.push({ at: performance.now() / 1000, count: answer.count });
  showRate();
  showWorkers(answer.workers);
  showCertificate(answer);
  sayNowAndThen(answer);
}

function showMedian(answer) {
  const { median, exact, low, high } = answer;
  const told = exact || low === high ? number(median, NEAREST, CERTAIN)
    : steady(median, NEAREST, digits(answer));
  write(element("median"), told);
  mark(element("median"), "title", median);
  // As large as there is room; in steps, so that it keeps its size while it changes.
  element("median").style.setProperty("--room", Math.max(8, 4 * Math.ceil(told.length / 4)));
}

/** So many that low and high can be told apart: six, unless they are very near to each other. */
function digits({ low, high }) {
  if (low === null || high === null || low === high) return SIX;
  const needed = power(Math.max(-low, high)) - power(high / 2 - low / 2) + 2;
  return Math.min(MOST, Math.max(SIX, needed));
}

function between(answer) {
  const { median, low, high, exact } = answer;
  if (median === null) return "";
  if (exact) return "Exact: no acknowledged value could make it another";
  if (low === null && high === null) return "Nothing bounds it yet.";
  if (low !== null && low === high) return `Certainly ${number(low, NEAREST, CERTAIN)}`;
  const [least, most] = [steady(low, DOWN, digits(answer)), steady(high, UP, digits(answer))];
  const surely = answer.complete ? "Certainly" : "Of what is counted, certainly";
  if (low === null) return `${surely} no more than ${most}`;
  if (high === null) return `${surely} no less than ${least}`;
  return `${surely} between ${least} and ${most}`;
}

function showBracket({ median, low, high, exact }) {
  const isBounded = !exact && low !== null && high !== null && low < high;
  mark(element("bracket"), "data-bounded", isBounded);
  // Halved first: the distance of two float64 may be more than there are.
  place(element("bracket"), isBounded ? (median / 2 - low / 2) / (high / 2 - low / 2) : 0.5);
}

function showWorkers({ live, silent }) {
  write(element("live"), count(live));
  write(element("silent"), silent ? `${count(silent)} silent` : "none silent");
  mark(element("silent"), "data-state", silent ? "silent" : "none");
}

function showCertificate({ rank_error, epsilon, count: n }) {
  write(element("rank-error"), atMost(rank_error));
  write(element("epsilon"), atMost(epsilon));
  const meter = element("certificate");
  place(meter, rank_error / epsilon);
  mark(meter, "aria-valuemax", epsilon);
  mark(meter, "aria-valuenow", Math.min(rank_error, epsilon));
  mark(meter, "aria-valuetext", `${atMost(rank_error)} of ${atMost(epsilon)}`);
  mark(meter, "data-over", rank_error > epsilon);
  write(element("meaning"), meaning(rank_error, epsilon, n));
}

function meaning(rank_error, epsilon, n) {
  return `Sort all ${counted(n, "value")}: the number above stands within ${atMost(rank_error)} of`
    + ` them from the middle, at most ${counted(Math.ceil(rank_error * n), "place")} away.`
    + " That is proven, not estimated, whatever the data. Epsilon, what is promised at any moment,"
    + ` is ${atMost(epsilon)}.`;
}

/** For who listens instead of looking: now and then, not ten times a second. */
function sayNowAndThen(answer) {
  if (performance.now() - said_at < SAID_EVERY_MS) return;
  said_at = performance.now();
  if (!answer.count) return say("No values yet");
  const silent = answer.workers.silent ? `, ${counted(answer.workers.silent, "worker")} silent`
    : "";
  say(`Median ${number(answer.median)} of ${counted(answer.count, "value")}${silent}`);
}

export function say(words) {
  write(element("said"), words);
}
