// The floors of a model side by side, from the source line to the kernel; sheet.py says what `_sheet`
// holds. A row is a number in a floor's list. An entry is what the list shows: a row, or one that
// stands for a folded group. Everything that comes from a model is set as text, never as markup.
// `make` and `cover` are those of still.js, which page.py puts in front of this file.

const ROW = 22; // pixels: rows of one height let a list know which of them are in sight
const SPARE = 6; // entries drawn above and below those in sight
const [NARROW, WIDE] = [620, 1180]; // below: one floor under the other; from: details beside the floors
const MOST_CARDS = 2; // of the nodes of one floor; of more the last, whose value is the result
const [SOURCE, ONNX, KERNEL] = [0, 4, 6];
const NOUNS = [
  "line", "instruction", "FX node", "decomposed FX node", "ONNX node", "optimized node", "kernel",
];
const SHARES = [41, 19, 16, 16, 21, 22, 20]; // of the width, among the open floors
const TIME = [[1, "s"], [1e-3, "ms"], [1e-6, "us"], [1e-9, "ns"]];
const BYTES = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];
const KEYS = "Choose a row to light its chain. ↑ ↓ step through the lines, ← → go to the next " +
  "floor, Enter chooses, + and − open and close what is folded.";

const STYLE = `
  .ow-floors {
    --ink: var(--jp-ui-font-color1, #1f2328); --paper: var(--jp-layout-color1, #fff);
    --shade: var(--jp-layout-color2, #f6f8fa); --edge: var(--jp-border-color2, #d0d7de);
    --sans: var(--jp-ui-font-family, system-ui, sans-serif);
    --mono: var(--jp-code-font-family, ui-monospace, SFMono-Regular, Menlo, Consolas, monospace);
    --quiet: color-mix(in srgb, var(--ink) 74%, var(--paper)); --focus: var(--jp-brand-color1, #1976d2);
    --lit: #b58407; --time: #3b8fd0; --bytes: #1aa37a; --bad: #d1242f;
    --some: color-mix(in srgb, var(--lit) 20%, var(--paper));
    --much: color-mix(in srgb, var(--lit) 42%, var(--paper));
    display: flex; flex-direction: column; border: 1px solid var(--edge); border-radius: 8px;
    overflow: hidden; color: var(--ink); background: var(--paper); font: 13px/1.45 var(--sans);
    @media (prefers-color-scheme: dark) {
      --ink: var(--jp-ui-font-color1, #e6edf3); --paper: var(--jp-layout-color1, #161b22);
      --shade: var(--jp-layout-color2, #21262d); --edge: var(--jp-border-color2, #3d444d);
    }
    &, & * { box-sizing: border-box; }
    [hidden] { display: none !important; }
    :focus-visible { outline: 2px solid var(--focus); outline-offset: -2px; }
    button { font: inherit; color: inherit; background: none; border: 0; margin: 0; padding: 0;
      cursor: pointer; text-align: left; }

    .bar { display: flex; align-items: center; gap: 4px 14px; padding: 7px 10px 7px 14px;
      border-bottom: 1px solid var(--edge); }
    .bar h4, output { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
    .bar h4 { margin: 0; max-width: 40%; font: 600 14px/1.5 var(--sans); }
    output { flex: 1; min-width: 0; color: var(--quiet); }
    input[type=search] { width: 190px; font: inherit; color: inherit; padding: 3px 8px;
      background: var(--paper); border: 1px solid var(--quiet); border-radius: 5px; }
    input::placeholder { color: var(--quiet); opacity: 1; }
    .count:not(:empty) { min-width: 5em; color: var(--quiet); }
    .stop { display: grid; padding: 8px 12px; border-left: 5px solid var(--bad);
      border-bottom: 1px solid var(--edge); background: color-mix(in srgb, var(--bad) 10%, var(--paper)); }

    .main { display: flex; flex-direction: column; flex: 1; min-height: 0; }
    .body { position: relative; display: flex; flex: 1 1 auto; min-width: 0; gap: 6px; padding: 8px;
      height: calc(var(--rows) * ${ROW}px + 52px); overflow: hidden; background: var(--shade); }
    .body > svg { position: absolute; left: 0; top: 0; pointer-events: none; fill: none;
      stroke: var(--lit); stroke-width: 2; stroke-linecap: round; }
    .many { stroke-width: 1; opacity: .7; }
    .away { stroke-dasharray: 1 5; }
    .floor { display: flex; flex-direction: column; min-width: 0; min-height: 0; overflow: hidden;
      border: 1px solid var(--edge); border-radius: 6px; background: var(--paper); }
    .floor:not(.folded) { container-type: inline-size; }
    header { display: flex; align-items: baseline; border-bottom: 1px solid var(--edge); }
    .head { flex: 1; min-width: 0; padding: 5px 9px; font-weight: 600; white-space: nowrap;
      overflow: hidden; text-overflow: ellipsis; }
    .head:hover { background: var(--shade); }
    .head small { font-size: 11px; font-weight: 400; color: var(--quiet); margin-left: 7px; }
    .units { display: flex; padding-right: 3px; color: var(--quiet); font-size: 11px; }
    .units i, .cell { flex: 0 0 40px; min-width: 0; margin-left: 3px; padding-right: 3px; text-align: right;
      font-style: normal; font-variant-numeric: tabular-nums; }
    .note { margin: 0; padding: 6px 9px; color: var(--quiet); font-size: 12px; }

    .folded { flex: 0 0 24px; z-index: 1; background: none; text-shadow: 0 0 3px var(--shade);
      > :not(header), .units { display: none; }
      header { flex: 1; border: 0; min-height: 0; }
      .head { align-self: stretch; padding: 9px 1px; writing-mode: vertical-rl; text-align: end;
        font-weight: 400; color: var(--quiet); }
      small { display: inline-block; margin: 8px 0 0; padding: 0 2px; border-radius: 4px; font-size: 10px;
        color: var(--ink); font-weight: 700; writing-mode: horizontal-tb; text-shadow: none; }
      small.lit { background: var(--much); }
      small.found { text-decoration: underline 2px; }
    }

    .list { flex: 1; min-height: 0; overflow: hidden auto; overscroll-behavior: contain; }
    .inner { position: relative; font: 12px/${ROW}px var(--mono); }
    .row { position: absolute; left: 0; right: 0; height: ${ROW}px; display: flex; white-space: pre;
      padding: 0 3px 0 calc(5px + 14px * var(--depth)); border-left: 4px solid transparent; cursor: pointer;
      > i { flex: none; margin-right: 8px; font-style: normal; }
      > i.kind { max-width: 42%; overflow: hidden; text-overflow: ellipsis; font-weight: 600; }
      > i.place { color: var(--quiet); }
      > i.number { min-width: var(--digits); text-align: right; color: var(--quiet); }
      .text, small { min-width: 0; overflow: hidden; text-overflow: ellipsis; }
      small { flex-shrink: 9999; margin-left: 9px; font: italic 11px/${ROW}px var(--sans);
        color: var(--quiet); }
      .times { margin-left: 6px; font-weight: 700; }
      .gap { flex: 1; }
      .toggle { flex: none; width: 16px; margin-left: -6px; text-align: center; color: var(--quiet); }
      .toggle:hover { color: var(--ink); }
      &:hover { background: var(--shade); }
      &.title, &.between { cursor: default; color: var(--quiet); background: none; }
      &.title { font: 600 12px/${ROW}px var(--sans); }
      &.marked { border-left-color: var(--lit); background: var(--some); }
      &.chosen { border-left-width: 6px; padding-left: calc(3px + 14px * var(--depth)); font-weight: 700;
        background: var(--much); }
      &.chosen > i, &.chosen small { color: var(--ink); }
      &.stopped { border-left-color: var(--bad); font-weight: 700;
        text-decoration: underline wavy var(--bad); }
    }
    .list:focus-visible .cursor { outline: 2px solid var(--focus); outline-offset: -2px; }
    mark { color: #1f2328; background: #a5d6ff; font-weight: 700; text-decoration: underline; }
    .cell { height: 16px; overflow: hidden; margin-top: 3px; font: 11px/16px var(--sans);
      border-left: 1px solid var(--color); background: linear-gradient(to right,
        color-mix(in srgb, var(--color) 45%, transparent) var(--share), transparent 0); }
    .none { visibility: hidden; }
    @container (max-width: 320px) {
      .cell.spare { flex-basis: 14px; padding: 0; color: transparent; }
      i.spare { display: none; }
      .units:has(.spare) { padding-right: 20px; }
    }
    @container (max-width: 140px) { .head small { display: none; } }
    @container (max-width: 115px) { .cell, .units { display: none; } }

    .details { display: flex; gap: 8px 18px; padding: 10px 14px; height: 166px; overflow: auto;
      border-top: 1px solid var(--edge); color: var(--quiet); }
    .details:not(:has(article)) { height: auto; }
    article { display: flex; min-width: min-content; gap: 12px; max-width: 400px; color: var(--ink); }
    article + article { border-left: 1px solid var(--edge); padding-left: 18px; }
    h5 { min-width: 13em; margin: 0; font: 600 11px/1.6 var(--sans); color: var(--quiet); }
    code { display: block; margin-bottom: 2px; padding: 0; font: 600 12px/1.5 var(--mono); color: inherit;
      background: none; overflow-wrap: anywhere; white-space: pre-wrap; }
    dl { display: grid; grid-template-columns: auto 1fr; gap: 0 10px; margin: 0; font-size: 12px; }
    dt { font-weight: 400; white-space: nowrap; color: var(--quiet); }
    dd { margin: 0; overflow-wrap: break-word; }
    .differs { font-weight: 700; text-decoration: underline 2px var(--bad); }
    figure { flex: none; margin: 0; text-align: center; font-size: 11px; color: var(--quiet); }
    canvas { display: block; margin: 3px auto; border-radius: 3px; image-rendering: pixelated; }

    details { border-top: 1px solid var(--edge); }
    summary { padding: 6px 14px; cursor: pointer; font-weight: 600; }
    fieldset { display: flex; gap: 14px; margin: 0; padding: 0 14px 8px; border: 0; }
    details > div { max-height: 270px; overflow: auto; }
    .flame { position: relative; margin: 0 14px 12px; }
    .flame > * { position: absolute; height: 21px; padding: 0 5px; overflow: hidden; white-space: nowrap;
      text-overflow: ellipsis; font: 11px/19px var(--mono); border: 1px solid var(--paper);
      border-radius: 4px; background: color-mix(in srgb, #d55e00 var(--heat), var(--paper)); }
    .flame .marked { border: 2px solid var(--ink); line-height: 17px; font-weight: 700; }

    &.wide {
      .main { flex-direction: row; }
      .details { flex: 0 0 250px; flex-direction: column; height: auto; border-top: 0;
        border-left: 1px solid var(--edge); }
      article { flex: none; flex-direction: column-reverse; gap: 4px; min-width: 0; max-width: none; }
      dd { overflow-wrap: anywhere; }
      article + article { border-left: 0; padding: 8px 0 0; border-top: 1px solid var(--edge); }
      figure { align-self: start; }
    }
    &.slim .bar { flex-wrap: wrap; justify-content: space-between; }
    &.slim output { order: 1; flex-basis: 100%; white-space: normal; }
    &.narrow {
      .body { flex-direction: column; height: auto; }
      .floor { flex: none !important; max-height: 210px; }
      .folded .head { padding: 4px 9px; writing-mode: horizontal-tb; text-align: start; }
      .folded small { margin: 0 0 0 8px; }
      .details { flex-direction: column; height: auto; max-height: 300px; }
      article + article { border-left: 0; padding-left: 0; }
    }
  }`;

const say = (name, textContent, rest = {}) => make(name, { textContent, ...rest });

const figures = (x) => {
  if (!Number.isFinite(x)) return String(x ?? "unknown");
  const size = Math.abs(x);
  if (size && (size < 1e-3 || size >= 1e6)) return x.toExponential(1).replace("+", "").replace(".0e", "e");
  return String(Number(x.toPrecision(3)));
};
const unitFor = (value, units) => units.find(([size]) => value >= size) ?? units.at(-1);
const amount = (value, units) => {
  if (value == null) return "";
  const [size, unit] = unitFor(value, units);
  return `${figures(value / size)} ${unit}`;
};
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 0 });
const plural = (count, noun, nouns = `${noun}s`) =>
  `${count.toLocaleString("en")} ${count === 1 ? noun : nouns}`;

// The entries that a floor shows while what has a key in `opened` is open: groups by name, callers of
// library lines by row; and for each row the number of the entry that stands for it.
const fold = (rows, opened) => {
  const groups = new Map();
  rows.forEach(({ g }, row) => {
    if (g != null && !groups.get(g)?.push(row)) groups.set(g, [row]);
  });
  const [entries, stands] = [[], new Int32Array(rows.length)];
  const add = (row, members, key = null) => {
    for (const member of members) stands[member] = entries.length;
    entries.push({ row, members, key, open: opened.has(key) });
  };
  let closed = Infinity; // rows deeper than this are hidden
  rows.forEach(({ g, h, d: depth = 0 }, row) => {
    const group = groups.get(g);
    if (depth > closed) {
      stands[row] = entries.length - 1;
    } else if (!group) {
      const parent = !h && (rows[row + 1]?.d ?? 0) > depth;
      add(row, [row], parent ? row : null);
      closed = parent && !opened.has(row) ? depth : Infinity;
    } else if (group[0] === row) {
      const key = `g${g}`;
      if (!opened.has(key)) add(row, group, key);
      else group.forEach((member, at) => add(member, [member], at ? null : key));
    }
  });
  return { entries, stands };
};

// One floor: a list of which only the rows in sight are in the page, or a strip. `act` has what the
// widget does on choose(floor, rows), change() of the layout, and scrolled(floor).
class Floor {
  constructor({ title, note, open, rows }, number, act) {
    Object.assign(this, { title, rows, open, number, act, cursor: -1, stop: -1, word: "" });
    Object.assign(this, { opened: new Set(), lit: new Set(), chosen: new Set(), found: new Set() });
    this.choosable = rows.filter(({ h }) => !h).length;
    this.id = `ow${Math.random().toString(36).slice(2)}`;
    this.drawn = new Map(); // entry -> its element
    const digits = rows.reduce((most, { m = "" }) => Math.max(most, /^\d+$/.test(m) && m.length), 0);
    this.numbered = digits > 0;
    this.head = make("button", { type: "button", className: "head", title, onclick: () => this.toggle() });
    this.units = make("span", { className: "units" });
    this.note = say("p", note || "No rows.", { className: "note" });
    this.note.hidden = !note && rows.length > 0;
    this.inner = make("div", { className: "inner", style: { "--digits": `${digits}ch` } });
    const role = { role: "listbox", ariaLabel: title, ariaMultiSelectable: "true" };
    this.list = make("div", { className: "list", tabIndex: 0, ...role }, this.inner);
    this.list.addEventListener("scroll", () => act.scrolled(this));
    this.list.addEventListener("click", (event) => this.clicked(event));
    const header = make("header", {}, this.head, this.units);
    this.element = make("section", { ariaLabel: title }, header, this.note, this.list);
    this.fold();
  }

  // The columns of bars: seconds, and bytes for the source. The entry with most has the longest bar.
  scaleBars() {
    const all = [["s", TIME, "--time", ""], ["b", BYTES, "--bytes", "spare"]];
    const shown = all.slice(0, { [SOURCE]: 2, [KERNEL]: 1 }[this.number] ?? 0);
    this.measures = shown.flatMap(([key, units, color, spare]) => {
      const most = this.entries.reduce((top, { members }) => Math.max(top, this.sum(members, key)), 0);
      return most > 0 ? { key, units, color, spare, most, unit: unitFor(most, units) } : [];
    });
    const heads = this.measures.map(({ unit, spare }) => say("i", unit[1], { className: spare }));
    this.units.replaceChildren(...heads);
  }

  sum(members, key) {
    return members.reduce((sum, row) => sum + (this.rows[row][key] ?? 0), 0);
  }

  fold() {
    Object.assign(this, fold(this.rows, this.opened));
    this.inner.style.height = `${this.entries.length * ROW}px`;
    this.folds = this.entries.some(({ key }) => key != null);
    this.cursor = Math.min(this.cursor, this.entries.length - 1);
    this.scaleBars();
    this.forget();
  }

  // Rows in the page that show what is no longer so.
  forget() {
    this.inner.replaceChildren();
    this.drawn.clear();
  }

  toggle() {
    this.open = !this.open;
    this.act.change(); // gives an opened list its height
    if (!this.open || !this.lit.size) return;
    this.reveal();
    this.act.change();
  }

  toggleEntry({ key, open: before }, open = !before) {
    if (key == null || open === before) return;
    if (open) this.opened.add(key);
    else this.opened.delete(key);
    this.fold();
    this.act.change();
  }

  // Opens what hides a row.
  uncover(row) {
    let depth = this.rows[row].d ?? 0;
    for (let at = row - 1; depth > 0 && at >= 0; at -= 1) {
      if ((this.rows[at].d ?? 0) >= depth) continue;
      depth = this.rows[at].d ?? 0;
      this.opened.add(at);
    }
    if (this.rows[row].g != null) this.opened.add(`g${this.rows[row].g}`);
    this.open = true;
    this.fold();
  }

  clicked({ target, clientY }) {
    const top = this.inner.getBoundingClientRect().top;
    const at = target.closest("[data-at]")?.dataset.at ?? Math.floor((clientY - top) / ROW);
    const entry = this.entries[at];
    if (!entry || this.rows[entry.row].h) return;
    if (target.closest(".toggle")) this.toggleEntry(entry);
    else this.act.choose(this.number, entry.members);
  }

  // Brings the first lit row in sight, or another entry.
  reveal(at = Math.min(...[...this.lit].map((row) => this.stands[row]))) {
    if (!this.open || !Number.isFinite(at)) return;
    this.cursor = at;
    const below = at * ROW - this.list.scrollTop;
    if (below < 0 || below > this.list.clientHeight - ROW) {
      this.list.scrollTop += below - this.list.clientHeight / 3;
    }
  }

  // What is around the list; it may change the height of the list.
  paintFrame() {
    this.marked = new Set([...this.lit].map((row) => this.stands[row]));
    this.element.className = this.open ? "floor" : "floor folded";
    this.element.style.flex = this.open ? `${SHARES[this.number]} 1 0` : "";
    this.head.ariaExpanded = String(this.open);
    const badge = ({ size }, className) =>
      size > 0 && say("small", SHORT.format(size), { className, title: className });
    const badges = this.open
      ? [this.choosable > 0 && say("small", this.choosable.toLocaleString("en"))]
      : [badge(this.lit, "lit"), badge(this.found, "found")];
    this.head.replaceChildren(this.title, ...badges.filter(Boolean));
  }

  // The first entry to draw and the one after the last.
  sight() {
    const { scrollTop, clientHeight } = this.list;
    const last = Math.min(this.entries.length, Math.ceil((scrollTop + clientHeight) / ROW) + SPARE);
    return [Math.max(0, Math.floor(scrollTop / ROW) - SPARE), this.open ? last : 0];
  }

  // Draws what came in sight and drops what left.
  paintRows([first, last]) {
    for (const [at, element] of this.drawn) {
      if (at >= first && at < last) continue;
      element.remove();
      this.drawn.delete(at);
    }
    for (let at = first; at < last; at += 1) {
      if (!this.drawn.has(at)) this.drawn.set(at, this.inner.appendChild(this.makeRow(at)));
      this.dress(at);
    }
    this.list.setAttribute("aria-activedescendant", this.drawn.get(this.cursor)?.id ?? "");
  }

  makeRow(at) {
    const { row, members, key, open } = this.entries[at];
    const { t, m = "", h, d = 0, x = "", k = "" } = this.rows[row];
    const [text, number] = [t.trim(), this.numbered && /^\d*$/.test(m)];
    const place = this.number === SOURCE && !number && m.split("/").at(-1); // a library's line
    const kind = !number && !place && !text.startsWith(m) && m; // relu_1 says that it is a relu
    const times = members.length > 1 && `×${members.length}`;
    const title = [`${m}  ${text}`.trim(), x, k].filter(Boolean).join("\n");
    const element = make(
      "div",
      { id: `${this.id}-${at}`, title, data: { at }, style: { top: `${at * ROW}px`, "--depth": d } },
      number && (m || !h) && say("i", m, { className: "number" }),
      this.folds && say("span", key == null ? "" : open ? "▾" : "▸", { className: "toggle" }),
      (place || kind) && say("i", place || kind, { className: place ? "place" : "kind" }),
      make("span", { className: "text" }, ...this.highlighted(t, members)),
      times && say("span", times, { className: "times" }),
      x && say("small", x),
      make("span", { className: "gap" }),
      ...this.measures.map((measure) => this.makeCell(this.sum(members, measure.key), measure)),
    );
    if (h) {
      const className = m === "" ? "row title" : "row between";
      return Object.assign(element, { className, role: "presentation" });
    }
    const stop = row === this.stop && "the export stopped here";
    const toggle = key != null && (open ? "minus closes" : "plus opens");
    const time = amount(this.sum(members, "s") || null, TIME);
    const spoken = [m, text, times, x, time, stop, toggle].filter(Boolean).join(", ");
    element.className = stop ? "row stopped" : "row";
    Object.assign(element, { role: "option", ariaLabel: spoken });
    return Object.assign(element, { ariaSetSize: this.entries.length, ariaPosInSet: at + 1 });
  }

  // What a choice changes in a row that stands in the page.
  dress(at) {
    const element = this.drawn.get(at);
    if (element.role !== "option") return;
    const lit = this.marked.has(at);
    const chosen = this.entries[at].members.some((row) => this.chosen.has(row));
    element.classList.toggle("marked", lit);
    element.classList.toggle("chosen", chosen);
    element.classList.toggle("cursor", at === this.cursor);
    Object.assign(element, { ariaSelected: String(lit), ariaCurrent: String(chosen) });
  }

  // The text with the searched word marked; all of it where the word is elsewhere in the row or group.
  highlighted(text, members) {
    if (!members.some((row) => this.found.has(row))) return [text];
    const [at, { length }] = [text.toLowerCase().indexOf(this.word), this.word];
    if (at < 0) return [say("mark", text)];
    return [text.slice(0, at), say("mark", text.slice(at, at + length)), text.slice(at + length)];
  }

  makeCell(value, { units, color, spare, most, unit: [size] }) {
    const className = `cell ${spare}`; // what is spare is narrow where there is little room
    if (!value) return make("span", { className: `${className} none` });
    const style = { "--color": `var(${color})`, "--share": `${(100 * value) / most}%` };
    const shown = value / size < 1 ? Number((value / size).toPrecision(2)) : value / size;
    return say("span", figures(shown), { className, title: amount(value, units), style });
  }

  // A function from a row to the height of its middle in the page, held inside the list, and whether
  // it is out of sight.
  heights() {
    const { top, bottom } = this.list.getBoundingClientRect();
    const start = top + ROW / 2 - this.list.scrollTop;
    return (row) => {
      const y = start + this.stands[row] * ROW;
      const held = Math.min(Math.max(y, top + 4), bottom - 4);
      return [Math.round(held), Math.abs(held - y) > ROW / 2];
    };
  }
}

const VIRIDIS = "440154 46327e 365c8d 277f8e 1fa187 4ac16d a0da39 fde725"
  .split(" ")
  .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const viridis = (share) => {
  const at = Math.min(share * 7, 6.999);
  const [low, high] = VIRIDIS.slice(Math.floor(at), Math.floor(at) + 2);
  return low.map((part, i) => part + (high[i] - part) * (at % 1));
};

const picture = ({ w, h, data, label, ends: [low, high] }) => {
  const ariaLabel = `Heat map of ${label}, from ${low} (dark) to ${high} (bright)`;
  const scale = Math.min(96 / w, 80 / h);
  const style = { width: `${Math.max(w * scale, 4)}px`, height: `${Math.max(h * scale, 4)}px` };
  const canvas = make("canvas", { width: w, height: h, role: "img", ariaLabel, title: ariaLabel, style });
  const context = canvas.getContext("2d");
  const image = context.createImageData(w, h);
  [...atob(data)].forEach((char, at) => {
    image.data.set([...viridis(char.charCodeAt(0) / 255), 255], 4 * at);
  });
  context.putImageData(image, 0, 0);
  return make("figure", {}, canvas, `${low} … ${high}`);
};

// What is known of one row; `which` says which of several it is.
const card = (sheet, of, at, which = "") => {
  const { t, m = "", k, s, b, x } = sheet.floors[of].rows[at];
  const value = of === ONNX && sheet.values?.[at];
  const line = of === SOURCE && m;
  const kind = line ? `line ${m}` : NOUNS[of];
  const facts = [
    ...(value ? value.facts : []),
    ["rule", k],
    ["time", amount(s, TIME)],
    ["bytes", amount(b, BYTES)],
    ["remark", x],
  ].filter(([, fact]) => fact);
  const list = facts.flatMap(([word, fact]) => [
    say("dt", word),
    say("dd", fact, { className: fact[0] === "✗" ? "differs" : "" }),
  ]);
  const title = say("h5", kind[0].toUpperCase() + kind.slice(1) + which);
  const name = say("code", line || t.trim().startsWith(m) ? t.trim() : `${m}  ${t.trim()}`);
  const words = make("div", {}, title, name, make("dl", {}, ...list));
  return make("article", {}, value?.picture && picture(value.picture), words);
};

// Cards of the chosen row, of the lit ONNX nodes and of the lit kernels.
const cards = (sheet, floors, [number, row]) => {
  const more = (of) => {
    const others = [...floors[of].lit].filter((at) => of !== number || at !== row);
    if (others.length <= MOST_CARDS) return others.map((at) => card(sheet, of, at));
    return [card(sheet, of, others.at(-1), `, last of ${others.length.toLocaleString("en")}`)];
  };
  return [card(sheet, number, row), ...more(ONNX), ...more(KERNEL)];
};

// A tree of seconds as boxes below each other; a box whose line is known is a button.
const flame = (tree, choose) => {
  const boxes = [];
  const place = (node, left, level) => {
    const share = node.seconds / tree.seconds;
    if (!(share > 0.002)) return level - 1; // too narrow to see
    const spot = { left: `${100 * left}%`, width: `${100 * share}%`, top: `${level * 21}px` };
    const style = { ...spot, "--heat": `${18 + 40 * share}%` };
    const title = `${node.name}: ${amount(node.seconds, TIME)}, ${figures(100 * share)} %`;
    const name = node.name.replace(/^\S*\//, ""); // a place without its folders
    const box = say(node.row >= 0 ? "button" : "div", name, { title, style, data: { row: node.row } });
    if (node.row >= 0) Object.assign(box, { type: "button", onclick: () => choose(node.row) });
    boxes.push(box);
    let [from, deepest] = [left, level];
    for (const child of node.children ?? []) {
      deepest = Math.max(deepest, place(child, from, level + 1));
      from += child.seconds / tree.seconds;
    }
    return deepest;
  };
  const levels = place(tree, 0, 0) + 1;
  return make("div", { className: "flame", style: { height: `${levels * 21}px` } }, ...boxes);
};

// The whole widget, in `el`, until close().
class Widget {
  constructor(model, el) {
    Object.assign(this, { model, sheet: model.get("_sheet"), hits: [], matches: [], match: -1 });
    const act = {
      choose: (floor, rows) => this.choose(floor, rows, true),
      change: () => this.update(),
      scrolled: (floor) => this.soon(floor),
    };
    this.floors = this.sheet.floors.map((floor, number) => new Floor(floor, number, act));
    this.linked = new Set(this.sheet.links.map((link) => link[SOURCE]));
    this.build();
    el.append(this.element);
    this.light = this.light.bind(this);
    model.on("change:chosen", this.light);
    this.resized = new ResizeObserver(() => this.measure());
    this.resized.observe(this.element);
    this.resized.observe(this.body);
    if (this.sheet.stop?.row >= 0) this.pointAt(this.sheet.stop.row);
    this.light();
  }

  close() {
    this.model.off("change:chosen", this.light);
    this.resized.disconnect();
    this.element.remove();
  }

  build() {
    const { title, stop, flame: trees } = this.sheet;
    this.status = make("output", { role: "status" });
    const words = { placeholder: "Search all floors", ariaLabel: "Search all floors" };
    this.search = make("input", { type: "search", ...words, oninput: () => this.find() });
    this.count = make("span", { className: "count", role: "status" });
    this.svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.svg.ariaHidden = "true";
    this.body = make("div", { className: "body" }, this.svg, ...this.floors.map(({ element }) => element));
    this.details = make("aside", { className: "details", ariaLabel: "Details", tabIndex: 0 });
    this.main = make("div", { className: "main" }, this.body, this.details);
    const reason = stop && say("strong", `✗ ${stop.reason}`);
    this.element = make(
      "div",
      { className: "ow-floors", role: "group", ariaLabel: title },
      say("style", STYLE),
      make("div", { className: "bar" }, say("h4", title, { title }), this.status, this.search, this.count),
      stop && make("div", { className: "stop", role: "note" }, reason, say("span", stop.hint)),
      this.main,
      trees && this.makeFlame(trees),
    );
    this.element.addEventListener("keydown", (event) => this.pressed(event));
  }

  makeFlame(trees) {
    const box = make("div");
    const draw = (kind) => {
      box.replaceChildren(flame(trees[kind], (row) => this.choose(SOURCE, [row])));
      this.markFlame();
    };
    const kinds = ["stack", "module"].filter((kind) => trees[kind]);
    const name = `ow${Math.random()}`;
    const switches = kinds.map((kind, at) => {
      const button = { type: "radio", name, checked: at === 0, onchange: () => draw(kind) };
      return make("label", {}, make("input", button), ` by ${kind}`);
    });
    const opened = () => box.firstChild || draw(kinds[0]);
    const fieldset = make("fieldset", { ariaLabel: "Order of the boxes" }, ...switches);
    return make("details", { ontoggle: opened }, say("summary", "Time as a flame graph"), fieldset, box);
  }

  markFlame() {
    const { lit } = this.floors[SOURCE];
    for (const box of this.element.querySelectorAll(".flame > *")) {
      box.classList.toggle("marked", lit.has(Number(box.dataset.row)));
    }
  }

  pointAt(row) {
    const source = this.floors[SOURCE];
    source.stop = row;
    source.uncover(row);
    source.cursor = source.stands[row];
  }

  // `again` says that a second choice of the same takes it back.
  choose(floor, rows, again = false) {
    const same = [floor, ...rows].join() === this.model.get("chosen").join();
    this.model.set("chosen", again && same ? [] : [floor, ...rows]);
    this.model.save_changes();
  }

  // Lights the chain of what is chosen on every floor.
  light() {
    const [number, ...rows] = this.model.get("chosen");
    const wanted = new Set(rows.filter((row) => this.floors[number].rows[row]));
    this.chosen = wanted.size ? [number, ...wanted] : [];
    this.hits = wanted.size ? this.sheet.links.filter((link) => wanted.has(link[number])) : [];
    for (const floor of this.floors) {
      floor.chosen = floor.number === number ? wanted : new Set();
      floor.lit = new Set([...floor.chosen, ...this.hits.map((link) => link[floor.number])]);
      floor.lit.delete(-1);
    }
    this.status.textContent = wanted.size ? this.said() : "";
    const shown = wanted.size ? cards(this.sheet, this.floors, this.chosen) : [KEYS];
    this.details.replaceChildren(...shown);
    this.details.scrollTop = 0;
    this.markFlame();
    this.revealAll();
  }

  revealAll() {
    for (const floor of this.floors) floor.reveal(this.chosen.length ? undefined : floor.cursor);
    this.update();
  }

  // "line 12: 2 FX nodes, 3 ONNX nodes, 1 kernel, 12 us"
  said() {
    const [number, row] = this.chosen;
    const { m, t } = this.floors[number].rows[row];
    const others = this.floors.filter((floor) => floor.open && floor.lit.size && floor.number !== number);
    const facts = others.map((floor) => plural(floor.lit.size, NOUNS[floor.number]));
    const [own, kernels] = [this.floors[number], this.floors[KERNEL]];
    const time = own.sum([...own.chosen], "s") || kernels.sum([...kernels.lit], "s");
    const name = number === SOURCE && m ? `line ${m}` : t.trim();
    if (time) facts.push(amount(time, TIME));
    return `${name}: ${facts.join(", ") || "on no other floor"}`;
  }

  update() {
    const longest = Math.max(0, ...this.floors.map(({ open, entries }) => open && entries.length));
    this.body.style.setProperty("--rows", Math.min(Math.max(longest, 6), 18));
    for (const floor of this.floors) floor.paintFrame();
    const sights = this.floors.map((floor) => floor.sight()); // all measured before any is changed
    this.floors.forEach((floor, at) => floor.paintRows(sights[at]));
    this.draw();
  }

  measure() {
    const width = this.element.clientWidth;
    this.element.classList.toggle("slim", width < 780);
    this.element.classList.toggle("narrow", width < NARROW);
    this.element.classList.toggle("wide", width >= WIDE);
    this.revealAll();
  }

  // In the next frame, once: the rows in sight of the floors that scrolled, and the curves.
  soon(floor) {
    this.moved = (this.moved ?? new Set()).add(floor);
    this.frame ??= requestAnimationFrame(() => {
      this.moved.forEach((moved) => moved.paintRows(moved.sight()));
      this.moved = this.frame = null;
      this.draw();
    });
  }

  // Curves between the lit rows of neighbors among the open floors.
  draw() {
    const open = this.floors.filter((floor) => floor.open);
    const corner = this.body.getBoundingClientRect();
    const narrow = this.element.classList.contains("narrow");
    const pairs = narrow ? [] : open.slice(1).map((right, at) => [open[at], right]);
    const paths = pairs.flatMap(([left, right]) => [...this.curves(left, right, corner)]);
    this.svg.setAttribute("width", this.body.clientWidth);
    this.svg.setAttribute("height", this.body.clientHeight);
    this.svg.replaceChildren(...paths.map(([d, away]) => {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", d);
      path.classList.toggle("away", away);
      return path;
    }));
    this.svg.classList.toggle("many", paths.length > 60);
  }

  // The path of each curve -> whether one of its ends is out of sight.
  curves(left, right, corner) {
    const from = left.element.getBoundingClientRect().right - corner.left;
    const to = right.element.getBoundingClientRect().left - corner.left;
    const [middle, paths] = [(from + to) / 2, new Map()];
    const [start, end, seen] = [left.heights(), right.heights(), new Set()];
    for (const link of this.hits) {
      const [a, b] = [link[left.number], link[right.number]];
      const pair = left.stands[a] * right.entries.length + right.stands[b];
      if (a < 0 || b < 0 || seen.has(pair)) continue;
      seen.add(pair);
      const [[y1, away1], [y2, away2]] = [start(a), end(b)];
      const [y, toY] = [y1 - corner.top, y2 - corner.top];
      paths.set(`M${from} ${y}C${middle} ${y} ${middle} ${toY} ${to} ${toY}`, away1 || away2);
    }
    return paths;
  }

  find() {
    const word = this.search.value.trim().toLowerCase();
    const matches = ({ m = "", t, x = "", h }) =>
      word && !h && `${m}\n${t}\n${x}`.toLowerCase().includes(word);
    this.match = -1;
    this.matches = this.floors.flatMap((floor) => {
      const found = floor.rows.flatMap((row, at) => (matches(row) ? at : []));
      Object.assign(floor, { word, found: new Set(found) });
      floor.forget();
      return found.map((row) => [floor, row]);
    });
    this.count.textContent = word ? plural(this.matches.length, "match", "matches") : "";
    this.update();
  }

  goToMatch(step) {
    const { length } = this.matches;
    if (!length) return;
    this.match = this.match < 0 && step < 0 ? length - 1 : (this.match + step + length) % length;
    const [floor, row] = this.matches[this.match];
    this.count.textContent = `${this.match + 1} of ${length}`;
    floor.uncover(row);
    this.update(); // a floor that was folded has a height from now on
    this.choose(floor.number, [row]);
  }

  // To the next source line that became anything; to the first or the last where none is lit.
  step(by) {
    const { entries, marked } = this.floors[SOURCE];
    let at = by > 0 ? Math.max(-1, ...marked) : Math.min(entries.length, ...marked);
    do at += by; while (entries[at] && !entries[at].members.some((row) => this.linked.has(row)));
    if (entries[at]) this.choose(SOURCE, entries[at].members);
  }

  goAcross(by) {
    const open = this.floors.filter((floor) => floor.open);
    const focused = open.findIndex(({ element }) => element.matches(":focus-within"));
    const here = focused < 0 ? open.findIndex(({ number }) => number === this.chosen[0]) : focused;
    open[Math.min(Math.max(here + by, 0), open.length - 1)]?.list.focus();
  }

  pressed(event) {
    const { key, shiftKey, ctrlKey, metaKey, altKey, target } = event;
    if (ctrlKey || metaKey || altKey) return;
    event.stopPropagation(); // a notebook has shortcuts of one key
    const floor = this.floors.find(({ list }) => list === target);
    const keys = { ...this.keysAnywhere(target), ...(floor && this.keysOf(floor, shiftKey)) };
    if (target === this.search) keys.Enter = () => this.goToMatch(shiftKey ? -1 : 1);
    if (!Object.hasOwn(keys, key)) return;
    event.preventDefault();
    keys[key]();
  }

  keysAnywhere(target) {
    if (target.type === "radio") return {};
    const across = { ArrowLeft: () => this.goAcross(-1), ArrowRight: () => this.goAcross(1) };
    return {
      ArrowDown: () => this.step(1),
      ArrowUp: () => this.step(-1),
      Escape: () => this.clear(),
      ...(target !== this.search && across),
    };
  }

  // Shift, Page, Home and End move in one floor without choosing.
  keysOf(floor, shift) {
    const { entries, cursor, list } = floor;
    const entry = entries[cursor];
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const go = (at) => () => {
      floor.reveal(Math.min(Math.max(at, 0), entries.length - 1));
      this.update();
    };
    const pick = () => {
      if (entry && !floor.rows[entry.row].h) this.choose(floor.number, entry.members, true);
    };
    const open = (how) => () => floor.toggleEntry(entry, how);
    return {
      PageDown: go(cursor + page), PageUp: go(cursor - page), Home: go(0), End: go(Infinity),
      ...(shift && { ArrowDown: go(cursor + 1), ArrowUp: go(cursor - 1) }),
      Enter: pick, " ": pick,
      ...(entry && { "+": open(true), "-": open(false) }),
    };
  }

  clear() {
    if (this.search.value) {
      this.search.value = "";
      this.find();
    } else {
      this.model.set("chosen", []);
      this.model.save_changes();
    }
  }
}

const render = ({ model, el }) => {
  let shown = new Widget(model, el);
  const again = () => {
    shown.close();
    shown = new Widget(model, el);
  };
  model.on("change:_sheet", again);
  const uncover = cover(el);
  return () => {
    uncover();
    model.off("change:_sheet", again);
    shown.close();
  };
};

export default { render };
