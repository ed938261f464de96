// The form that asks for the read token, in place of all else, while the door of read is closed.
//
// A token that is typed is first tried with one question, which is open to all. Only the right one
// is kept. One that was right, and is no more, is still sent when the page asks whether the door is
// open by now: the coordinator may come back with it.

import { say } from "./answer.js";
import { health, reason, sentence } from "./asking.js";
import { forget, isClosed, isToken, mayAsk, use, usedToken } from "./doors.js";
import { element, mark, show, write } from "./written.js";

const CHANGED = "The token that this tab has kept opens it no more: it may have been changed.";
const NONE = "This cannot be a token: that has 16 to 256 characters, which are letters, digits and"
  + " -._~+/, and = at its end only.";
const WRONG = "This is not its read token.";

const field = element("token");
let isTrying = false;

/** The form, if it is needed; and what is shown to who has no token, or has one. */
export function showDoor() {
  const wasShown = !element("door").hidden;
  show(element("door"), isClosed());
  mark(document.body, "data-closed", isClosed());
  show(element("forget"), usedToken() !== "");
  show(element("links"), !mayAsk("read"));
  if (isClosed() && !wasShown) ask();
  if (!isClosed() && wasShown) leave();
}

function ask() {
  tell("");
  write(element("door-why"), usedToken() ? CHANGED : "");
  say(element("door-title").textContent);
  field.focus();
}

function leave() {
  field.value = "";
  if (element("door").contains(document.activeElement)) element("main").focus();
}

/** What is wrong with what was typed; which stays as it is. */
function tell(words) {
  write(element("door-trouble"), words);
  mark(field, "aria-invalid", words ? true : null);
}

async function submitted(event) {
  event.preventDefault();
  if (isTrying) return;
  isTrying = true;
  tell(""); // so that the same words are heard again
  const words = await tried(field.value.trim()).catch((error) => sentence(reason(error)));
  isTrying = false;
  if (!words) return;
  tell(words);
  field.focus();
}

/** What is wrong with that token; nothing, if it opens the door. */
async function tried(token) {
  if (!isToken(token)) return NONE;
  const { closed } = await health(token);
  if (closed.includes("read")) return WRONG;
  use(token, closed);
  return "";
}

element("door-form").addEventListener("submit", submitted);
element("forget").addEventListener("click", forget);
