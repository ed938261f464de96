// Numbers, shares, sizes and times as people read them. Where there is nothing: a dash.

const NOTHING = "–";
const MINUS = /-/g; // a hyphen is too short beside digits

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const date = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

const BYTES = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const TIMES = [["d", 86_400], ["h", 3_600], ["min", 60]];
const DAY_S = 86_400;
const DIGITS = 6;

// Which way what is not shown is cut off: what is proven stays true as it is shown.
export const [NEAREST, DOWN, UP] = ["halfExpand", "floor", "ceil"];

const formats = new Map();

const given = (x) => typeof x === "number" && Number.isFinite(x);

/** A value: six digits, or all of a long whole part; 1.23457e+300 where it is huge. */
export function number(x, way = NEAREST, most = DIGITS, least = 1) {
  if (!given(x)) return NOTHING;
  const size = Math.abs(x);
  if (size === 0) return "0";
  const digits = { minimumSignificantDigits: least, maximumSignificantDigits: most };
  if (size >= 1e12 || size < 1e-4) return formatted(x, way, { ...digits, notation: "scientific" });
  const isLong = size >= 10 ** (most - 1);
  return formatted(x, way, isLong ? { maximumFractionDigits: 0 } : digits);
}

/** The same with all its digits, so that it stands still while it changes. */
export function steady(x, way = NEAREST, digits = DIGITS) {
  return number(x, way, digits, digits);
}

/** By the browser's own rules, but for a minus as wide as digits, and e+300 for E300. */
export function formatted(x, way, options) {
  const key = way + JSON.stringify(options);
  if (!formats.has(key)) {
    formats.set(key, new Intl.NumberFormat("en", { ...options, roundingMode: way }));
  }
  return formats.get(key).format(x).replace(/E(?=\d)/, "e+").replace("E", "e")
    .replace(MINUS, "−");
}

/** Of ten, in a number that is not 0: -2 in 0.0123. */
export const power = (x) => Number(x.toExponential().split("e")[1]);

/** How many: 2,340,000. */
export function count(n) {
  return given(n) ? whole.format(n) : NOTHING;
}

/** So many of what has that name: 1 value, 2 values. */
export function counted(n, one) {
  return `${count(n)} ${one}${n === 1 ? "" : "s"}`;
}

/** A share of one: 0.0062 is 0.62 %. */
export function percent(share, round = Math.round) {
  if (!given(share)) return NOTHING;
  const points = share * 100;
  const size = Math.abs(points);
  if (size > 0 && size < 0.001) return "<0.001 %";
  if (size >= 1000) return `${whole.format(round(points))} %`;
  const digits = size < 0.1 ? 3 : size < 10 ? 2 : size < 99.95 ? 1 : 0;
  const near = (round(points * 10 ** digits) / 10 ** digits).toFixed(digits);
  const isAll = Math.abs(near - points) < 1e-9; // 1 % where it is that, 1.00 % where it is near
  return `${isAll ? Number(near) : near} %`;
}

/** A share that is proven, or promised, never to be exceeded: rounded up. */
export function atMost(share) {
  return percent(share, (x) => Math.ceil(x * (1 - 1e-14)));
}

/** A size: 80.6 kB. */
export function bytes(n) {
  if (!given(n)) return NOTHING;
  let power = 0;
  while (n >= 999.5 && power < BYTES.length - 1) [n, power] = [n / 1000, power + 1];
  return `${power === 0 ? whole.format(n) : n.toPrecision(3)} ${BYTES[power]}`;
}

/** How long: 12 s, 3 min. */
export function lasting(seconds) {
  if (!given(seconds)) return NOTHING;
  const [unit, length] = TIMES.find(([, length]) => seconds >= 2 * length) ?? ["s", 1];
  return `${whole.format(Math.max(0, Math.floor(seconds / length)))} ${unit}`;
}

/** How long ago: now, 12 s ago; null: never. */
export function ago(seconds) {
  if (!given(seconds)) return "never";
  return seconds < 1 ? "now" : `${lasting(seconds)} ago`;
}

/** A moment, on the reader's clock: 14:03:07, with the day where that is another. */
export function time(epoch_s) {
  if (!given(epoch_s)) return NOTHING;
  const moment = new Date(epoch_s * 1000);
  const hour = clock.format(moment);
  const isToday = Math.abs(Date.now() / 1000 - epoch_s) < DAY_S
    && moment.getDate() === new Date().getDate();
  return isToday ? hour : `${date.format(moment)} ${hour}`;
}
