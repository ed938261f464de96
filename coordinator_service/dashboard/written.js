// What is written to the page: only what changed, and as text. Names come from strangers.

const byId = new Map();

export function element(id) {
  if (!byId.has(id)) byId.set(id, document.getElementById(id));
  return byId.get(id);
}

export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function show(node, isShown) {
  if (node.hidden === isShown) node.hidden = !isShown;
}

/** A share of the width, for a bar or a mark on a line. */
export function place(node, share, name = "--at") {
  const within = Math.min(1, Math.max(0, Number.isFinite(share) ? share : 0));
  const placed = `${(within * 100).toFixed(3)}%`;
  if (node.style.getPropertyValue(name) !== placed) node.style.setProperty(name, placed);
}

export function made(tag, className = "", text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
