// What was sent, beside what the users sent to the workers: the sums over all sources of a stream.

import { bytes, count, counted, percent } from "./format.js";
import { element, made, mark, place, show, write } from "./written.js";

// By `Cause` in shared/outbox.py, the most telling first.
const CAUSES = {
  shift: "Its values came to look different, by as much as it may keep to itself.",
  patience: "It had taken as many new values as it may keep to itself.",
  linger: "No more came for a while, so it told the rest.",
  heartbeat: "It had nothing to tell, and gave a sign of life.",
  echo: "It answered the coordinator, to be listed as live.",
  flush: "Somebody asked it to tell all it had.",
  repair: "It told all anew, after a restart of either, or a loss.",
  goodbye: "It was stopped in good order.",
};

const rows = new Map();

export function showTraffic(sources) {
  const sum = (name) => sources.reduce((total, source) => total + source[name], 0);
  const [sent, raw, deltas] = ["bytes", "raw_bytes", "deltas"].map(sum);
  const most = Math.max(sent, raw);
  write(element("sent-share"), raw ? percent(sent / raw) : "–");
  write(element("sent"), bytes(sent));
  write(element("raw"), bytes(raw));
  place(element("sent-bar"), sent / most);
  place(element("raw-bar"), raw / most);
  show(element("young"), raw > 0 && sent > raw);
  write(element("deltas"), counted(deltas, "delta"));
  write(element("each"), deltas ? bytes(sent / deltas) : "–");
  showCauses(tally(sources));
}

function tally(sources) {
  const found = new Map();
  for (const { causes = {} } of sources) {
    for (const [cause, n] of Object.entries(causes)) found.set(cause, (found.get(cause) ?? 0) + n);
  }
  return found;
}

function showCauses(found) {
  const most = Math.max(...found.values());
  for (const cause of new Set([...Object.keys(CAUSES), ...found.keys()])) {
    const n = found.get(cause) ?? 0;
    const row = rows.get(cause) ?? begun(cause);
    row.node.hidden = n === 0;
    write(row.count, count(n));
    place(row.bar, n / most);
  }
  element("causes-title").hidden = found.size === 0;
}

function begun(cause) {
  const row = { node: made("li"), count: made("span", "number"), bar: made("div", "bar") };
  mark(row.bar, "aria-hidden", true);
  row.node.append(made("strong", "", cause), row.count, row.bar);
  row.node.append(made("p", "aside", CAUSES[cause] ?? ""));
  element("causes").append(row.node);
  rows.set(cause, row);
  return row;
}
