// What stands beside and below the graph, in the notebook's own page: the panel, in tabs what is known
// of the node that was clicked, and the legend of the heat. netron.py puts this file in front of
// bridge.js, and still.js, which has `make`, in front of both. Everything that comes from a model is set
// as text, never as markup.

const PANEL_STYLE = `
  .ow-view [hidden] { display: none !important; }
  .ow-panel { --line: var(--jp-border-color2, #d0d7de); --paper: var(--jp-layout-color1, #fff);
    --shade: var(--jp-layout-color2, #f6f8fa); position: relative; z-index: 1; min-width: 0; min-height: 0; box-sizing: border-box;
    flex: 0 0 clamp(220px, var(--wide, 380px), 40%); display: flex; flex-direction: column;
    border-left: 1px solid var(--line); font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif);
    color: var(--jp-ui-font-color1, #24292f); background: var(--paper); }
  .narrow > .ow-panel { flex: 0 0 min(var(--tall, 300px), 60%); border-left: 0; border-top: 1px solid var(--line); }
  .ow-panel.through { pointer-events: none; background: none; } /* Netron's sidebar, in the frame beneath */
  .ow-panel > :is(header, .ow-tabs, .ow-edge) { pointer-events: auto; background: var(--paper); }
  .ow-panel > .ow-edge { position: absolute; z-index: 1; inset: 0 auto 0 -4px; width: 7px; cursor: ew-resize;
    background: none; touch-action: none; }
  .narrow .ow-edge { inset: -4px 0 auto 0; width: auto; height: 7px; cursor: ns-resize; }
  .ow-edge:is(:hover, :focus-visible) { background: var(--jp-brand-color1, #1976d2) !important; opacity: .6; }
  .ow-panel header { display: flex; align-items: baseline; gap: 8px; padding: 8px 12px 2px; }
  .ow-panel header b { font-size: 14px; min-width: 0; overflow-wrap: anywhere; }
  .ow-panel header button { flex: none; }
  .ow-panel header span { flex: 1; overflow-wrap: anywhere; opacity: .8; }
  .ow-panel button { font: inherit; color: inherit; background: none; border: 0; padding: 0 2px;
    cursor: pointer; text-align: left; border-radius: 4px; }
  .ow-panel button:hover { background: var(--jp-layout-color2, #eaeef2); }
  .ow-view :focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2); outline-offset: -2px; }
  .ow-tabs { display: flex; gap: 2px; padding: 2px 8px 0; border-bottom: 1px solid var(--line); }
  .ow-tabs [role=tab] { padding: 4px 8px; border-radius: 4px 4px 0 0; border-bottom: 2px solid transparent; }
  .ow-tabs [aria-selected=true] { font-weight: 600; border-bottom-color: currentcolor; }
  .ow-page { flex: 1; min-height: 0; display: flex; flex-direction: column; overflow: auto; position: relative; }
  .ow-page dl { flex: none; display: grid; grid-template-columns: auto 1fr; gap: 0 12px; margin: 0; padding: 8px 12px; }
  .ow-page dl:empty { display: none; }
  .ow-page :is(dt, dd) { float: none; width: auto; margin: 0; padding: 0; overflow-wrap: anywhere; }
  .ow-page dt { font-weight: 400; opacity: .75; white-space: nowrap; }
  .ow-source .place { padding: 5px 12px; border-block: 1px solid var(--line); overflow-wrap: anywhere;
    background: var(--shade); }
  .ow-source .code { flex: 1; min-height: 9em; overflow: auto; position: relative; padding: 6px 0; tab-size: 4;
    font: 13px/1.6 var(--jp-code-font-family, ui-monospace, monospace); }
  .ow-source .code > * { display: flex; width: 100%; white-space: pre-wrap; overflow-wrap: anywhere;
    box-sizing: border-box; padding: 0 12px 0 0; border-radius: 0; border-left: 3px solid transparent; }
  .ow-source .code i { flex: 0 0 3.2em; padding-right: 1em; text-align: right; font-style: normal;
    opacity: .75; user-select: none; }
  .ow-source .code span { padding-left: 6ch; text-indent: -6ch; }
  .ow-source .code button.made { border-left-color: #d4a72c; }
  .ow-source .code button.here { background: #d4a72c38; border-left-color: #bf8700; }
  .ow-source .made-by { flex: none; padding: 6px 12px; border-top: 1px solid var(--line); max-height: 7em;
    overflow: auto; }
  .ow-source .made-by button { border: 1px solid var(--line); margin: 2px 4px 2px 0; padding: 0 7px; }
  .ow-source .made-by button.here { background: #d4a72c38; border-color: #bf8700; }
  .ow-rank { padding: 4px 0; }
  .ow-rank > * { width: 100%; display: flex; gap: 8px; padding: 1px 12px !important; border-radius: 0 !important;
    background: linear-gradient(to right, var(--jp-border-color2, #d0d7de) var(--share), transparent 0)
      0 100% / 100% 3px no-repeat !important; }
  .ow-rank [aria-current=true] { font-weight: 700; }
  .ow-rank span { flex: 1; min-width: 0; overflow-wrap: anywhere; }
  .ow-legend { display: flex; flex-wrap: wrap; justify-content: center; gap: 2px 8px; align-items: center; padding: 6px;
    font: 12px var(--jp-ui-font-family, sans-serif); color: var(--jp-ui-font-color1, #24292f); }
  .ow-legend i { width: 160px; height: 10px; border-radius: 5px; }
  .ow-legend b { width: 12px; height: 12px; border-radius: 2px; }
  .ow-legend b ~ b { margin-left: 10px; }`;

const MOST_CHIPS = 60;
const STEP = 24; // pixels that a key moves the edge

// The edge of the panel, which a drag or an arrow key moves; it stands at the left, or above.
const makeEdge = (panel) => {
  const edge = make("div", { className: "ow-edge", role: "separator", tabIndex: 0, ariaLabel: "Size of the panel" });
  const narrow = () => panel.parentElement.classList.contains("narrow");
  const move = (pixels) => panel.style.setProperty(narrow() ? "--tall" : "--wide", `${Math.max(120, pixels)}px`);
  edge.onpointerdown = ({ pointerId }) => {
    edge.setPointerCapture(pointerId);
    edge.onpointermove = ({ clientX, clientY }) => {
      const { right, bottom } = panel.getBoundingClientRect();
      move(narrow() ? bottom - clientY : right - clientX);
    };
  };
  edge.onlostpointercapture = () => (edge.onpointermove = null);
  edge.onkeydown = (event) => {
    const by = { ArrowLeft: 1, ArrowUp: 1, ArrowRight: -1, ArrowDown: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    move((narrow() ? panel.offsetHeight : panel.offsetWidth) + by * STEP);
  };
  const measured = () => {
    const [part, whole] = [panel, panel.parentElement].map((one) => (narrow() ? one.offsetHeight : one.offsetWidth));
    edge.ariaOrientation = narrow() ? "horizontal" : "vertical";
    edge.ariaValueNow = Math.round((100 * part) / whole);
  };
  return { edge, measured };
};

// `mark` is called with the nodes of a line, `activate` with one node, `close` when the reader is done,
// and `changed` when another tab is to be seen.
const makePanel = ({ mark, activate, close, changed }) => {
  let sheet = { nodes: {}, functions: [], stubs: {}, modules: {} };
  let heat = {};
  let facts = {};
  let shown = null; // the node
  let side = ""; // the title of what Netron's sidebar shows
  let wanted = "Source"; // the tab that the reader chose
  let asked = false; // whether Netron's sidebar shows what the reader asked of it
  const element = make("aside", { className: "ow-panel", hidden: true, ariaLabel: "Node" });
  const [operator, named] = [make("b", {}), make("span", {})];
  const closing = make("button", { textContent: "\u00d7", title: "Close (Escape)", ariaLabel: "Close", onclick: close });
  const header = make("header", {}, operator, named, closing);
  const tabs = make("div", { className: "ow-tabs", role: "tablist" });
  const page = make("section", { role: "tabpanel", tabIndex: 0 });
  const { edge, measured } = makeEdge(element);
  element.append(edge, header, tabs, page);
  element.onkeydown = (event) => {
    const { key, target } = event;
    event.stopPropagation(); // a notebook has shortcuts of one letter
    if (key === "Escape") close();
    const tab = target.role === "tab";
    const all = [...element.querySelectorAll(tab ? "[role=tab]" : ".code button, .ow-rank button")];
    const step = (tab ? { ArrowRight: 1, ArrowLeft: -1 } : { ArrowDown: 1, ArrowUp: -1 })[key];
    const next = all.includes(target) && step && all[all.indexOf(target) + step];
    if (!next) return;
    event.preventDefault();
    if (tab) choose(next.textContent);
    else next.focus();
  };

  const names = (fits) => Object.keys(sheet.nodes).filter((name) => fits(sheet.nodes[name]));
  const made = ({ line, place }) => (line ? names((other) => other.line === line && other.place === place) : []);
  const calling = (line) => names(({ below }) => below === line);
  const inside = (outer) => names(({ module }) => `${module}.`.startsWith(`${outer}.`));
  // A box: of a module, or of neighbors of no module.
  const folded = (kind, name) => {
    const module = name.replace(/ .*/, "");
    return { op: kind, module: inside(module).length ? module : "" };
  };

  const origin = (name, node) => {
    const list = make("dl", {});
    const row = (term, value) => value && list.append(make("dt", { textContent: term }), make("dd", {}, value));
    row("FX node", node?.fx && `${node.fx} = ${node.target}`);
    const below = node?.below;
    if (below?.place) {
      const onclick = () => mark(calling(below));
      row("calls", make("button", { textContent: below.place, title: "Mark its nodes", onclick }));
      row("", make("code", { textContent: below.text }));
    }
    const module = node?.module;
    if (module) {
      const onclick = () => mark(inside(module));
      row("module", make("button", { textContent: module, title: "Mark its nodes", onclick }));
    }
    row(heat.ends ? "value" : "compared", heat.shown?.[name]);
    return list;
  };

  // What heat() and a trace beside the view say: the node's own, and all nodes from the greatest down.
  const rank = () => {
    const all = Object.entries(heat.values).sort(([, one], [, other]) => other - one);
    const most = Math.max(Math.abs(all[0][1]), Math.abs(all.at(-1)[1]));
    const rows = all.slice(0, MOST_CHIPS).map(([name, value]) => {
      const parts = [make("span", { textContent: `${sheet.nodes[name]?.op ?? ""} ${name}` }), heat.shown[name]];
      const row = make("button", { ariaCurrent: name === shown, onclick: () => activate(name) }, ...parts);
      row.style.setProperty("--share", `${(100 * Math.abs(value)) / most || 0}%`);
      return row;
    });
    const more = all.length > MOST_CHIPS ? [make("div", { textContent: `and ${all.length - MOST_CHIPS} more` })] : [];
    return make("div", { className: "ow-rank" }, ...rows, ...more);
  };
  const numbers = (kind) => {
    const rows = facts[kind]?.[shown] ?? [];
    const hot = heat.ends && kind === (heat.unit === "s" ? "Times" : "Values");
    const cells = ([term, said]) => [make("dt", {}, term), make("dd", {}, said)];
    const page = () => [make("dl", {}, ...rows.flatMap(cells)), ...(hot ? [rank()] : [])];
    return rows.length || hot ? page : null;
  };

  const code = (node) => {
    const { first, lines } = sheet.functions[node.function];
    const owners = new Set(
      Object.values(sheet.nodes).filter((n) => n.function === node.function).map((n) => n.line),
    );
    const rows = lines.map((text, index) => {
      const number = first + index;
      const parts = [make("i", { textContent: number }), make("span", { textContent: text || " " })];
      if (!owners.has(number)) return make("div", {}, ...parts);
      const here = number === node.line;
      const nodes = () => made({ ...node, line: number, place: node.place.replace(/\d+$/, number) });
      return make("button", { className: here ? "made here" : "made", ariaCurrent: here,
        title: "Mark the nodes that this line made", onclick: () => mark(nodes()) }, ...parts);
    });
    return make("div", { className: "code" }, ...rows);
  };

  const chips = (names, current) =>
    make("div", { className: "made-by" }, "This line made ",
      ...names.slice(0, MOST_CHIPS).map((name) =>
        make("button", { textContent: sheet.nodes[name].op, title: name,
          className: name === current ? "here" : "", onclick: () => activate(name) })),
      names.length > MOST_CHIPS ? `and ${names.length - MOST_CHIPS} more` : "");

  const source = (name, node, kind) => {
    const parts = [origin(name, node)];
    if (!node?.line) {
      const silent = kind
        ? `${node.module ? "A module" : kind}, folded. Press + on its box to expand it.`
        : "The file does not say which line made this node.";
      return [...parts, make("div", { className: "place", textContent: silent })];
    }
    if (node.function < 0) {
      const gone = `${node.place}, which is not here or has changed since the export`;
      return [...parts, make("div", { className: "place", textContent: gone }),
        make("div", { className: "code" }, make("div", {}, make("i", { textContent: node.line }), node.text)),
        chips(made(node), name)];
    }
    const { file, name: title } = sheet.functions[node.function];
    return [...parts, make("div", { className: "place", textContent: `${file} \u00b7 ${title}` }),
      code(node), chips(made(node), name)];
  };

  // The name of a tab -> a function that makes its contents; empty tabs are left out.
  const pages = (node, kind) => {
    const known = shown !== null;
    const all = {
      Source: known && (() => source(shown, node, kind)),
      [side]: side && (() => []),
      Values: known && numbers("Values"),
      Times: known && numbers("Times"),
    };
    return Object.fromEntries(Object.entries(all).filter(([, contents]) => contents));
  };
  const draw = () => {
    const kind = sheet.modules[shown]; // of what is folded into one node
    const node = sheet.nodes[shown] ?? (kind && folded(kind, shown));
    const all = pages(node, kind);
    const name = [asked ? side : wanted, "Source", side].find((tab) => all[tab]);
    element.hidden = !name;
    if (!name) return changed();
    const focused = element.contains(document.activeElement) && document.activeElement;
    [operator.textContent, named.textContent] = [node?.op ?? side, shown ?? ""];
    tabs.replaceChildren(...Object.keys(all).map((tab) =>
      make("button", { textContent: tab, role: "tab", ariaSelected: tab === name, tabIndex: tab === name ? 0 : -1,
        onclick: () => choose(tab) })));
    element.classList.toggle("through", name === side);
    page.tabIndex = name === side ? -1 : 0;
    page.className = `ow-page ow-${name.toLowerCase()}`;
    page.ariaLabel = name;
    page.replaceChildren(...all[name]());
    const here = page.querySelector(".here, [aria-current=true]");
    const list = here?.closest(".code") ?? page;
    if (here) list.scrollTop = here.offsetTop - list.clientHeight / 2;
    if (focused && !focused.isConnected) {
      const next = focused.role === "tab" ? tabs.querySelector("[aria-selected=true]") : here;
      (next ?? closing).focus({ preventScroll: true });
    }
    changed();
  };
  const choose = (tab) => {
    [wanted, asked] = [tab, tab === side && asked];
    draw();
  };

  const again = () => element.hidden || draw();
  return {
    element,
    page,
    measured,
    node: () => shown,
    isBox: () => Boolean(sheet.modules[shown]),
    isThrough: () => !element.hidden && element.classList.contains("through"),
    show: (name) => {
      shown = name;
      draw();
    },
    hide: () => {
      [shown, side, asked] = [null, "", false];
      draw();
    },
    side: (title) => {
      [side, asked] = [title, title !== "" && title !== "Node"];
      draw();
    },
    load: ({ nodes, lines, ...rest }) => {
      const node = ([op, fx, target, module, below, at]) =>
        ({ op, fx, target, module, below: lines[below], ...lines[at] });
      const bare = (known) => Object.assign(Object.create(null), known); // a node may be named "constructor"
      const made = Object.fromEntries(Object.entries(nodes).map(([k, v]) => [k, node(v)]));
      sheet = { ...rest, nodes: bare(made), stubs: bare(rest.stubs), modules: bare(rest.modules) };
      again(); // a cell below may have marked nodes before the source was unpacked
    },
    maker: (name) => sheet.stubs[name], // of the value that a stub of a cut edge stands for
    heat: (next) => {
      heat = next;
      again();
    },
    facts: (next) => {
      facts = next;
      again();
    },
  };
};

const makeLegend = () => {
  const [low, bar, high] = [make("span", {}), make("i", {}), make("span", {})];
  const element = make("div", { className: "ow-legend", hidden: true }, low, bar, high);
  return {
    element,
    heat: ({ palette, swatches, ends }) => {
      element.hidden = !palette;
      if (!palette) return;
      const key = ([background, words]) => [make("b", { style: { background } }), make("span", {}, words)];
      element.replaceChildren(...(ends ? [low, bar, high] : swatches.flatMap(key)));
      if (!ends) return;
      bar.style.background = `linear-gradient(to right, ${palette.map(([color]) => color).join()})`;
      [low.textContent, high.textContent] = ends;
    },
  };
};
