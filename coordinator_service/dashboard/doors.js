// The read token, and which doors of the coordinator stay closed to who sends it.
//
// `GET /health` is open to all, and tells which doors are closed to whoever asked, with the token he
// sent. Until that was heard nothing else is asked, and nothing while the door of read is closed:
// only whether it still is, by live.js. Meanwhile token.js asks for the token.
//
// The token is kept in the storage of this tab, which ends with the tab, and for this coordinator,
// as others may lie below the same host. It stands nowhere else: in no address, no title, no text.

const KEY = `read token of ${new URL(".", location.href).pathname}`;
const TOKEN = /^(?=.{16,256}$)[A-Za-z0-9._~+/-]+=*$/; // as in shared/serving/tokens.py

let changed = () => {};
let token = kept();
let closed = null; // not heard yet

export const usedToken = () => token;
export const isOpen = () => closed !== null && !closed.includes("read");
export const isClosed = () => closed !== null && closed.includes("read");

export function isToken(text) {
  return TOKEN.test(text);
}

/** Whether a door may be closed to who sends no token. */
export const mayAsk = (door) => token !== "" || closed?.includes(door) === true;

/** Calls `act()` whenever other doors are closed than before. */
export function watch(act) {
  changed = act;
}

/** These doors stay closed to who sends that token; what comes late, of another one, says nothing. */
export function heard(doors, by) {
  if (by !== token || closed?.join() === doors.join()) return;
  closed = doors;
  changed();
}

/** Of something that was asked with that token, and refused. */
export function refused(by) {
  heard([...new Set([...(closed ?? []), "read"])], by);
}

/** From now on it is sent with all that is asked. */
export function use(next, doors) {
  [token, closed] = [next, null];
  keep((storage) => storage.setItem(KEY, next));
  heard(doors, next);
}

/** All that it told goes with it: the page begins anew. */
export function forget() {
  keep((storage) => storage.removeItem(KEY));
  location.reload();
}

function kept() {
  const found = keep((storage) => storage.getItem(KEY)) ?? "";
  return isToken(found) ? found : "";
}

function keep(act) {
  try {
    return act(sessionStorage);
  } catch {
    return null; // a browser may forbid it: then the token is known until the page is left
  }
}
