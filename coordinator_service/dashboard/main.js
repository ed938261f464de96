// The page: what is asked, when, and who shows it.
//
//     live.js      the answer, as it changes    ->  answer.js, timeline.js
//     asking.js    every two seconds            ->  workers.js, traffic.js, distribution.js
//     doors.js     whether it may be asked      ->  token.js
//     address.js   what is looked at            <-> the stream, the range, the order of rows
//
// What comes late, of another stream than the one looked at now, is dropped.

import { look, looked } from "./address.js";
import { forget, say, showAnswer, showRate } from "./answer.js";
import { Repeated, SHUT, ask, health, sentence } from "./asking.js";
import { Distribution } from "./distribution.js";
import { isClosed, mayAsk, watch } from "./doors.js";
import { count, counted, lasting, time } from "./format.js";
import { Live } from "./live.js";
import { Timeline } from "./timeline.js";
import { showDoor } from "./token.js";
import { showTraffic } from "./traffic.js";
import { Workers } from "./workers.js";
import { element, mark, show, write } from "./written.js";

const STREAMS_MS = 5_000;
const QS = [0.01, 0.5, 0.9, 0.99];
const WORDS = { connecting: "Connecting", live: "Live", refused: "Not a stream" };
const WAITS = { unknown_stream: "Waiting for it", [SHUT.code]: "Closed" }; // by its code

const NOT_YET = [
  "warn",
  "Not complete yet.",
  "Three heartbeats must pass after the coordinator's start, until it knows who is there; and so long"
    + " after it turned a source away, as it had no memory for it.",
];

const NOBODY = [
  "calm",
  "Nobody is live.",
  "All workers have said goodbye, or were retired: this is all that they counted.",
];
const TITLE = document.title;
const SHOWS = '-H "Authorization: Bearer '; // and then whose token; the shell fills it in
const LIST = new Intl.ListFormat("en");
const NAMED = 3; // silent workers, of more the others are a number

let stream = null;
let silent = []; // their names, as the table has them
let most = 0; // values that were counted at once while this page looked
let answer = null; // the newest
let drawn_as_of = null; // of the answer that the distribution was drawn of
let state = { name: "connecting", why: "", code: "" };

const workers = new Workers({ onLook: (change) => lookAt(change) });
const distribution = new Distribution(element("distribution"));
const timeline = new Timeline(element("timeline"), {
  onRange: (last_s) => {
    look({ last: String(last_s) });
    loadHistory();
  },
});
const live = new Live({ onAnswer, onState });
const repeated = [askWorkers, askSpread].map((act) => new Repeated(act));
const streams = new Repeated(askStreams, STREAMS_MS);

function onAnswer(found) {
  const isFirst = answer === null;
  answer = found;
  most = Math.max(most, found.count);
  mark(document.body, "data-blank", false);
  showAnswer(answer);
  timeline.add(answer);
  showWhatThereIs();
  showNotice();
  showTitle();
  if (isFirst) askNow();
}

function onState(next) {
  const isNew = next.name !== state.name;
  state = next;
  if (isNew) stateChanged();
  showState();
}

/** Nothing is asked, and nothing shown, while the door is closed; and all at once when it opens. */
function doorsChanged() {
  showDoor();
  showCommands();
  showTitle();
  if (isClosed()) return live.shut();
  live.hurry();
  streams.now();
  askNow();
}

function showTitle() {
  if (isClosed()) return write(document.querySelector("title"), TITLE);
  const median = answer?.median == null ? "" : `${element("median").textContent} · `;
  const isStale = answer !== null && state.name !== "live";
  write(document.querySelector("title"), `${isStale ? "Not live · " : ""}${median}${stream}`);
}

function stateChanged() {
  const isLive = state.name === "live";
  timeline.live = isLive;
  mark(document.body, "data-live", isLive || answer === null);
  showTitle();
  if (isLive) {
    showKept();
    loadHistory(); // what was missed meanwhile is in there
    askNow();
  }
  if (state.name === "connecting" || isClosed()) return;
  say(isLive ? "Live" : `${state.name === "away" ? "Not live" : WORDS.refused}: ${state.why}`);
}

function showState() {
  const heard_s = live.heard_at === null ? null : (performance.now() - live.heard_at) / 1000;
  const away = heard_s === null ? "" : `, as of ${lasting(heard_s)} ago`;
  const waits = WAITS[state.code];
  mark(element("state"), "data-state", waits ? "connecting" : state.name);
  const words = state.name === "away" ? `Not live${away}` : WORDS[state.name];
  write(element("state-words"), waits ?? words);
  showWhatThereIs();
  showNotice();
  showRate();
}

/** Since when, and where, the coordinator knows what it shows. */
async function showKept() {
  const { started, storage } = await health().catch(() => ({}));
  const since = started ? time(Date.parse(started) / 1000) : "";
  write(element("kept"), storage === "disk" ? `Kept on disk; running since ${since}.`
    : `Kept in memory: what workers that are gone told before ${since} is not here.`);
}

/** What is wrong, the worst of it: not live, no such stream, not complete. */
function showNotice() {
  const [kind, title, words] = trouble() ?? ["", "", ""];
  show(element("notice"), kind !== "");
  mark(element("notice"), "data-kind", kind);
  write(element("notice-title"), title);
  write(element("notice-words"), words);
  const [gone] = title === "Not complete." ? silent : [];
  show(element("notice-help"), gone !== undefined);
  if (gone !== undefined) write(element("retire"), retiring(gone));
}

/** A name is put into an address, and that into quotes, which it may contain. */
function retiring(name) {
  const path = `workers/${encodeURIComponent(name).replaceAll("'", "%27")}/retire`;
  const token = mayAsk("admin") ? ` ${SHOWS}$MEDIAN_ADMIN_TOKEN"` : "";
  return `curl -X POST '${new URL(path, location.href.split("?")[0])}'${token}`;
}

function trouble() {
  if (state.code === "unknown_stream") return null; // the page below says it
  if (state.name === "refused") return ["bad", "There cannot be such a stream.", refusedWords()];
  if (state.name === "away") return ["bad", "Not live.", awayWords()];
  if (answer?.complete && answer.count < most) return ["warn", "Values are missing.", missingWords()];
  if (!answer?.count) return null;
  if (answer.complete) return answer.workers.live ? null : NOBODY;
  return answer.workers.silent ? ["warn", "Not complete.", silentWords()] : NOT_YET;
}

function awayWords() {
  const numbers = answer === null ? "" : " The numbers below are the last that were heard.";
  return `${sentence(state.why)} This page goes on trying.${numbers}`;
}

function refusedWords() {
  return `${sentence(state.why)} Another can be chosen above.`;
}

function missingWords() {
  return `${counted(most, "value")} were counted before the coordinator was started anew. It has`
    + ` forgotten ${count(most - answer.count)}, and those that told it of them are gone.`;
}

function silentWords() {
  const many = answer.workers.silent;
  const named = silent.slice(0, many > NAMED ? NAMED - 1 : NAMED);
  const rest = many - named.length;
  const others = rest ? [named.length ? `${count(rest)} more` : counted(rest, "worker")] : [];
  const which = LIST.format([...named, ...others]);
  return `${which} ${many === 1 ? "is" : "are"} silent, and may have values that are not counted.`;
}

/** Where there are no values, what to do next stands in place of all the rest. */
function showWhatThereIs() {
  const isUnknown = state.code === "unknown_stream";
  const isEmpty = isUnknown || answer?.count === 0;
  const isAny = !isEmpty && state.name !== "refused";
  for (const id of ["answer", "charts", "sources"]) show(element(id), isAny);
  show(element("empty"), isEmpty);
  write(element("empty-title"), isUnknown ? "There is no such stream yet" : "No values yet");
}

function lookAt(change) {
  look(change);
  looking();
}

/** Show what the address says. */
function looking() {
  const wanted = looked();
  const range = Number(wanted.last);
  const isOther = range !== timeline.range;
  workers.look(wanted);
  timeline.range = range;
  if (wanted.stream === stream) return isOther ? loadHistory() : undefined;
  stream = wanted.stream;
  [answer, drawn_as_of, silent, most] = [null, null, [], 0];
  forget();
  write(element("stream-name"), stream);
  showCommands();
  mark(document.body, "data-blank", true);
  mark(element("distribution"), "data-blank", true);
  workers.show([]);
  workers.spread = null;
  showTraffic([]);
  showStreams([]);
  live.listen(stream);
}

function askNow() {
  for (const one of repeated) one.now();
}

function showCommands() {
  write(element("command"), command());
  show(element("command-token"), mayAsk("push"));
}

function command() {
  const query = stream === "default" ? "" : `?${new URLSearchParams({ stream })}`;
  const body = `'{"values": [1, 2.5, 40]}'`;
  const type = "-H 'content-type: application/json'";
  return `curl -X POST '${location.protocol}//${location.hostname}:8001/values${query}' ${type} -d ${body}`;
}

async function loadHistory() {
  const [asked_of, last_s] = [stream, looked().last];
  const columns = await ask("median/history", { stream, last_s }).catch(() => null);
  if (columns === null) return; // then the curve begins now
  if (asked_of !== stream || last_s !== looked().last) return;
  timeline.load(columns);
  if (answer) timeline.add(answer);
}

async function askWorkers() {
  if (answer === null) return;
  const asked_of = stream;
  const found = await ask("workers", { stream });
  if (asked_of !== stream) return;
  const sources = found.workers.filter((source) => source.stream === stream);
  silent = sources.filter((source) => source.state === "silent").map((source) => source.worker);
  workers.show(sources);
  showTraffic(sources);
  showNotice();
}

async function askSpread() {
  const [asked_of, as_of] = [stream, answer?.as_of];
  if (!answer?.count || as_of === drawn_as_of) return;
  const qs = QS.map((q) => ["q", q]);
  const [cdf, found] = await Promise.all([
    ask("cdf", { stream }), ask("quantile", [["stream", stream], ...qs]),
  ]);
  if (asked_of !== stream) return;
  drawn_as_of = as_of;
  const [low, ...marked] = found.quantiles;
  workers.spread = { low: low.value, median: marked[0].value, high: marked[2].value };
  distribution.show(cdf, { ...found, quantiles: marked });
  mark(element("distribution"), "data-blank", false);
}

async function askStreams() {
  const { streams } = await ask("streams");
  showStreams(streams.map((one) => one.stream));
}

function showStreams(names) {
  const picker = element("stream");
  const wanted = [...new Set(["default", ...names, stream])];
  const shown = [...picker.options].map((option) => option.value);
  if (names.length === 0 && shown.includes(stream)) return void (picker.value = stream);
  if (wanted.join("\n") !== shown.join("\n")) {
    picker.replaceChildren(...wanted.map((name) => new Option(name, name)));
  }
  picker.value = stream;
}

function copy() {
  const words = element("command").textContent;
  const copied = navigator.clipboard?.writeText(words) ?? Promise.reject(new Error("not allowed"));
  copied.then(() => write(element("copy"), "Copied"), () => {
    getSelection().selectAllChildren(element("command")); // Ctrl-C does the rest
    write(element("copy"), "Now press Ctrl-C");
  });
  setTimeout(() => write(element("copy"), "Copy"), 3000);
}

element("stream").addEventListener("change", (event) => lookAt({ stream: event.target.value }));
element("copy").addEventListener("click", copy);
addEventListener("popstate", looking);
watch(doorsChanged);
showDoor();
setInterval(showState, 1000);
looking();
