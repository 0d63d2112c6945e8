// What stands beside and below the frame, in the notebook's own page: the source of the node that was
// clicked, and the legend of the heat. netron.py puts this file in front of bridge.js. Everything
// that comes from a model is set as text, never as markup.

const tag = (name, attributes, ...children) => {
  const element = Object.assign(document.createElement(name), attributes);
  element.append(...children);
  return element;
};

const PANEL_STYLE = `
  .ow-view { container-type: inline-size; }
  .ow-view [hidden] { display: none !important; }
  .ow-source { --line: var(--jp-border-color2, #d0d7de); flex: 0 0 38%; min-width: 0; display: flex;
    flex-direction: column; border-left: 1px solid var(--line); font: 13px/1.5
    var(--jp-ui-font-family, system-ui, sans-serif); color: var(--jp-ui-font-color1, #24292f);
    background: var(--jp-layout-color1, #fff); }
  @container (max-width: 760px) {
    .ow-view .ow-netron { flex-direction: column; }
    .ow-source { flex: none; max-height: 320px; border-left: 0; border-top: 1px solid var(--line); }
  }
  .ow-source header { display: flex; align-items: baseline; gap: 8px; padding: 8px 12px 2px; }
  .ow-source header b { font-size: 14px; }
  .ow-source header span { flex: 1; overflow-wrap: anywhere; opacity: .75; }
  .ow-source button { font: inherit; color: inherit; background: none; border: 0; padding: 0 2px;
    cursor: pointer; text-align: left; border-radius: 4px; }
  .ow-source button:hover { background: var(--jp-layout-color2, #eaeef2); }
  .ow-source :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -2px; }
  .ow-source dl { display: grid; grid-template-columns: auto 1fr; gap: 0 12px; margin: 0;
    padding: 0 12px 8px; }
  .ow-source dt { opacity: .65; }
  .ow-source dd { margin: 0; overflow-wrap: anywhere; }
  .ow-source .place { padding: 5px 12px; border-block: 1px solid var(--line); opacity: .85;
    background: var(--jp-layout-color2, #f6f8fa); }
  .ow-source .code { flex: 1; min-height: 0; overflow: auto; padding: 6px 0; font: 12px/1.6
    var(--jp-code-font-family, ui-monospace, monospace); position: relative; tab-size: 4; }
  .ow-source .code > * { display: flex; width: max-content; min-width: 100%; white-space: pre;
    box-sizing: border-box; padding: 0 12px 0 0; border-radius: 0; border-left: 3px solid transparent; }
  .ow-source .code i { flex: 0 0 3.6em; padding-right: 1em; text-align: right; font-style: normal;
    opacity: .5; user-select: none; }
  .ow-source .code button.made { border-left-color: #d4a72c; }
  .ow-source .code button.here { background: #d4a72c38; border-left-color: #bf8700; }
  .ow-source .made-by { padding: 6px 12px; border-top: 1px solid var(--line); max-height: 6.5em;
    overflow: auto; }
  .ow-source .made-by button { border: 1px solid var(--line); margin: 2px 4px 2px 0; padding: 0 7px; }
  .ow-source .made-by button.here { background: #d4a72c38; border-color: #bf8700; }
  .ow-legend { display: flex; flex-wrap: wrap; justify-content: center; gap: 2px 8px; align-items: center; padding: 6px;
    font: 12px var(--jp-ui-font-family, sans-serif); color: var(--jp-ui-font-color1, #24292f); }
  .ow-legend i { width: 160px; height: 10px; border-radius: 5px; }
  .ow-legend b { width: 12px; height: 12px; border-radius: 2px; }
  .ow-legend b ~ b { margin-left: 10px; }`;

const MOST_CHIPS = 60;

// `mark` is called with the nodes of a line, `activate` with one node.
const makePanel = ({ mark, activate }) => {
  let sheet = { nodes: {}, functions: [], stubs: {}, modules: {} };
  let heat = {};
  let shown = null;
  const element = tag("aside", { className: "ow-source", hidden: true, ariaLabel: "Source" });
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    const lines = [...element.querySelectorAll(".code button")];
    const at = lines.indexOf(event.target);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (at >= 0 && step) {
      lines[at + step]?.focus();
      event.preventDefault();
    }
    event.stopPropagation(); // a notebook has shortcuts of one letter
  });
  const close = () => {
    element.hidden = true;
    shown = null;
  };

  const made = (node) =>
    node?.line
      ? Object.keys(sheet.nodes).filter((name) => {
          const other = sheet.nodes[name];
          return other.line === node.line && other.place === node.place;
        })
      : [];

  const calling = (line) => Object.keys(sheet.nodes).filter((name) => sheet.nodes[name].below === line);
  const inside = (module) =>
    Object.keys(sheet.nodes).filter((name) => `${sheet.nodes[name].module}.`.startsWith(`${module}.`));
  // A box: of a module, or of neighbors of no module.
  const folded = (kind, name) => {
    const module = name.replace(/ .*/, "");
    return { op: kind, module: inside(module).length ? module : "" };
  };

  const facts = (name, node) => {
    const list = tag("dl", {});
    const row = (term, value) => value && list.append(tag("dt", { textContent: term }), tag("dd", {}, value));
    row("FX node", node?.fx && `${node.fx} = ${node.target}`);
    const below = node?.below;
    if (below?.place) {
      const onclick = () => mark(calling(below));
      row("calls", tag("button", { textContent: below.place, title: "Mark its nodes", onclick }));
      row("", tag("code", { textContent: below.text }));
    }
    const module = node?.module;
    if (module) {
      const onclick = () => mark(inside(module));
      row("module", tag("button", { textContent: module, title: "Mark its nodes", onclick }));
    }
    row(heat.ends ? "value" : "compared", heat.shown?.[name]);
    return list;
  };

  const code = (node) => {
    const { first, lines } = sheet.functions[node.function];
    const owners = new Set(
      Object.values(sheet.nodes).filter((n) => n.function === node.function).map((n) => n.line),
    );
    const rows = lines.map((text, index) => {
      const number = first + index;
      const parts = [tag("i", { textContent: number }), text || " "];
      if (!owners.has(number)) return tag("div", {}, ...parts);
      const here = number === node.line;
      const nodes = () => made({ ...node, line: number, place: node.place.replace(/\d+$/, number) });
      return tag("button", { className: here ? "made here" : "made", ariaCurrent: here,
        title: "Mark the nodes that this line made", onclick: () => mark(nodes()) }, ...parts);
    });
    return tag("div", { className: "code" }, ...rows);
  };

  const chips = (names, current) =>
    tag("div", { className: "made-by" }, "This line made ",
      ...names.slice(0, MOST_CHIPS).map((name) =>
        tag("button", { textContent: sheet.nodes[name].op, title: name,
          className: name === current ? "here" : "", onclick: () => activate(name) })),
      names.length > MOST_CHIPS ? `and ${names.length - MOST_CHIPS} more` : "");

  const show = (name) => {
    const focused = document.activeElement?.closest?.(".ow-source") === element;
    const kind = sheet.modules[name]; // of what is folded into one node
    const node = sheet.nodes[name] ?? (kind && folded(kind, name));
    shown = name;
    element.replaceChildren(
      tag("header", {}, tag("b", { textContent: node?.op ?? "" }), tag("span", { textContent: name }),
        tag("button", { textContent: "\u00d7", title: "Close", ariaLabel: "Close", onclick: close })),
      facts(name, node),
    );
    if (!node?.line) {
      const silent = kind
        ? `${node.module ? "A module" : kind}, folded. Press + on its box to expand it.`
        : "The file does not say which line made this node.";
      element.append(tag("div", { className: "place", textContent: silent }));
    } else if (node.function < 0) {
      const gone = `${node.place}, which is not here or has changed since the export`;
      element.append(tag("div", { className: "place", textContent: gone }),
        tag("div", { className: "code" }, tag("div", {}, tag("i", { textContent: node.line }), node.text)),
        chips(made(node), name));
    } else {
      const { file, name: title } = sheet.functions[node.function];
      element.append(tag("div", { className: "place", textContent: `${file} \u00b7 ${title}` }),
        code(node), chips(made(node), name));
    }
    element.hidden = false;
    const here = element.querySelector(".code .here");
    const list = here?.parentElement;
    if (here) list.scrollTop = here.offsetTop - list.clientHeight / 2;
    if (focused) (here ?? element.querySelector("button")).focus({ preventScroll: true });
  };

  const again = () => shown !== null && show(shown);
  return {
    element,
    show,
    load: ({ nodes, lines, ...rest }) => {
      const node = ([op, fx, target, module, below, at]) =>
        ({ op, fx, target, module, below: lines[below], ...lines[at] });
      sheet = { ...rest, nodes: Object.fromEntries(Object.entries(nodes).map(([k, v]) => [k, node(v)])) };
      again(); // a cell below may have marked nodes before the source was unpacked
    },
    maker: (name) => sheet.stubs[name], // of the value that a stub of a cut edge stands for
    heat: (next) => {
      heat = next;
      again();
    },
  };
};

const makeLegend = () => {
  const [low, bar, high] = [tag("span", {}), tag("i", {}), tag("span", {})];
  const element = tag("div", { className: "ow-legend", hidden: true }, low, bar, high);
  return {
    element,
    heat: ({ palette, swatches, ends }) => {
      element.hidden = !palette;
      if (!palette) return;
      const key = ([background, words]) => [tag("b", { style: `background: ${background}` }), tag("span", {}, words)];
      element.replaceChildren(...(ends ? [low, bar, high] : swatches.flatMap(key)));
      if (!ends) return;
      bar.style.background = `linear-gradient(to right, ${palette.map(([color]) => color).join()})`;
      [low.textContent, high.textContent] = ends;
    },
  };
};
