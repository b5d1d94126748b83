// The page's elements. Text gets into the page through here alone, and only as text.

const COUNT = new Intl.NumberFormat("en");
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function byId(id) {
  return document.getElementById(id);
}

export function setText(id, text) {
  const target = byId(id);
  // The same text again would be read out again, and would undo a selection.
  if (target.textContent !== text) target.textContent = text;
}

/**
 * Rows of cells; a cell is text, or { text, number, share, state, faint, more }, of which `faint` is
 * smaller and `more` folded up; or { name, actions }, buttons that are told apart by their data.
 */
export function setRows(id, rows, { empty }) {
  const body = byId(id);
  if (isShown(body, [rows, empty])) return;
  body.replaceChildren(...(rows.length > 0 ? rows.map(row) : [emptyRow(body, empty)]));
}

/** Pairs of a name and a number. */
export function setTotals(id, totals) {
  const list = byId(id);
  if (isShown(list, totals)) return;
  list.replaceChildren(
    ...Object.entries(totals).map(([name, value]) => {
      const pair = element("div");
      pair.append(element("dt", name), element("dd", count(value)));
      return pair;
    }),
  );
}

export function count(value) {
  return COUNT.format(value);
}

export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < BYTE_UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${BYTE_UNITS[unit]}`;
}

function isShown(target, content) {
  const text = JSON.stringify(content);
  if (target.dataset.shown === text) return true;
  target.dataset.shown = text;
  return false;
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

function row(cells) {
  const made = element("tr");
  made.append(...cells.map(cell));
  return made;
}

function cell(content) {
  const { text, number, share, state, faint, more, name, actions } =
    typeof content === "object" ? content : { text: content };
  if (actions) return buttons(name, actions);
  const made = more ? folded(text, more) : element("td", text);
  if (number) made.className = "number";
  if (state) made.dataset.state = state;
  if (faint) {
    const small = element("div", faint);
    small.className = "hint";
    made.append(small);
  }
  if (share !== undefined) {
    const bar = element("div");
    bar.className = "bar";
    bar.style.width = `${(100 * share).toFixed(1)}%`;
    made.append(bar);
  }
  return made;
}

function buttons(name, actions) {
  const made = element("td");
  for (const { action, text } of actions) {
    const button = element("button", text);
    button.type = "button";
    button.ariaLabel = `${text} ${name}`;
    Object.assign(button.dataset, { action, name });
    made.append(button);
  }
  return made;
}

function folded(text, more) {
  const made = element("td");
  const details = element("details");
  details.append(element("summary", text), element("pre", more));
  made.append(details);
  return made;
}

function emptyRow(body, text) {
  const made = element("tr");
  const only = element("td", text);
  only.colSpan = body.parentElement.tHead.rows[0].cells.length;
  only.className = "hint";
  made.append(only);
  return made;
}
