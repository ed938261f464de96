// What is looked at stands in the address: reload, bookmarks, back and forward keep it.
//
//     ?stream=NAME   which stream         ?last=3600   how far back the curve goes, in seconds
//     ?by=-count     sorted by what, "-": largest first        ?all=1   all workers, however many

const DEFAULTS = { stream: "default", last: "300", by: "state", all: "" };

const DAY_S = 86_400;

export function looked() {
  const given = new URLSearchParams(location.search);
  const found = Object.fromEntries(
    Object.entries(DEFAULTS).map(([name, usual]) => [name, given.get(name) || usual]));
  const isRange = /^\d+$/.test(found.last) && found.last >= 1 && found.last <= DAY_S;
  return isRange ? found : { ...found, last: DEFAULTS.last };
}

/** Another stream is another page to go back from; the rest is how one looks at it. */
export function look(changes) {
  const next = Object.entries({ ...looked(), ...changes });
  const query = new URLSearchParams(next.filter(([name, value]) => value !== DEFAULTS[name]));
  const address = query.size ? `?${query}` : location.pathname;
  history[changes.stream === undefined ? "replaceState" : "pushState"](null, "", address);
}
