// The answer now: the median, large; what surely encloses it; and what stands behind it.

import { count, number, percent, steady } from "./format.js";
import { element, mark, place, write } from "./written.js";

const SAID_EVERY_MS = 30_000;
let said_at = -Infinity;

export function showAnswer(answer) {
  mark(element("answer"), "data-complete", answer.complete);
  showMedian(answer);
  write(element("between"), between(answer));
  showBracket(answer);
  write(element("count"), count(answer.count));
  showWorkers(answer.workers);
  showCertificate(answer);
  sayNowAndThen(answer);
}

function showMedian({ median, exact }) {
  const told = (exact ? number : steady)(median);
  write(element("median"), told);
  mark(element("median"), "title", median);
  // As large as there is room; in steps, so that it keeps its size while it changes.
  element("median").style.setProperty("--room", Math.max(8, 4 * Math.ceil(told.length / 4)));
}

function between({ median, low, high, exact }) {
  if (median === null) return "";
  if (exact) return "Exact: no acknowledged value could make it another";
  if (low === null && high === null) return "Nothing bounds it yet.";
  if (low === null) return `Certainly no more than ${steady(high)}`;
  if (high === null) return `Certainly no less than ${steady(low)}`;
  return `Certainly between ${steady(low)} and ${steady(high)}`;
}

function showBracket({ median, low, high, exact }) {
  const isBounded = !exact && low !== null && high !== null;
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
  write(element("rank-error"), percent(rank_error));
  write(element("epsilon"), percent(epsilon));
  const meter = element("certificate");
  place(meter, rank_error / epsilon);
  mark(meter, "aria-valuemax", epsilon);
  mark(meter, "aria-valuenow", Math.min(rank_error, epsilon));
  mark(meter, "aria-valuetext", `${percent(rank_error)} of ${percent(epsilon)}`);
  mark(meter, "data-over", rank_error > epsilon);
  write(element("meaning"), meaning(rank_error, epsilon, n));
}

function meaning(rank_error, epsilon, n) {
  return `Sort all ${count(n)} values: the number above stands within ${percent(rank_error)} of`
    + ` them from the middle, at most ${count(Math.ceil(rank_error * n))} places away. That is`
    + ` proven, not estimated, whatever the data. Epsilon, what is promised at any moment, is ${percent(epsilon)}.`;
}

/** For who listens instead of looking: now and then, not ten times a second. */
function sayNowAndThen(answer) {
  if (performance.now() - said_at < SAID_EVERY_MS) return;
  said_at = performance.now();
  if (!answer.count) return say("No values yet");
  const silent = answer.workers.silent ? `, ${count(answer.workers.silent)} workers silent` : "";
  say(`Median ${number(answer.median)} of ${count(answer.count)} values${silent}`);
}

export function say(words) {
  write(element("said"), words);
}
