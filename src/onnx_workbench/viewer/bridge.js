// The view in the notebook page: one sandboxed frame, and what goes between it and the kernel.
// Kernel: the trait `_sent` holds all that is drawn first, `_page` names the model of the front-end;
// {ask: "whole"}, the graph that is not folded, and {ask: "page"} are answered by bytes in a custom message
// with the same id. A kernel that runs the cells below answers late, but has sent before.
// Frame: see frame.js. Only messages of our own frame are heard. `makePanel` and `makeLegend` are
// those of panel.js, `make` and `cover` those of still.js; netron.py puts both in front of this file.

const SANDBOX = "allow-scripts allow-downloads allow-popups";
const PATIENCE = 20000; // ms until a frame that says nothing is given up
const STYLE = `
  .ow-view { color: var(--jp-ui-font-color1, #24292f); background: var(--jp-layout-color1, #fff);
    font: 13px/1.5 var(--jp-ui-font-family, system-ui, sans-serif); }
  .ow-netron { position: relative; display: flex; overflow: hidden; box-sizing: border-box; resize: vertical;
    height: var(--high); min-height: 160px; border-radius: 6px; border: 1px solid var(--jp-border-color2, #d0d7de); }
  .ow-netron.narrow { flex-direction: column; }
  .ow-netron.narrow:has(> .ow-panel:not([hidden])) { height: calc(var(--high) + var(--tall, 300px)); }
  .ow-graph { position: relative; flex: 1; min-width: 0; min-height: 0; overflow: hidden; }
  .ow-netron iframe { position: absolute; inset: 0; width: 100%; height: 100%; border: 0;
    opacity: 0; transition: opacity .15s; }
  .ow-netron.drawn iframe { opacity: 1; }
  .ow-netron.drawn .ow-graph { visibility: hidden; }
  .ow-netron .ow-still { max-width: 100%; display: block; margin: 8px auto; }
  .ow-netron:not(.still) .ow-still { animation: ow-appear .3s 1.2s both; }
  @keyframes ow-appear { from { opacity: 0; } }
  .ow-netron .ow-note { position: absolute; left: 12px; bottom: 8px; padding: 2px 8px;
    font: 12px var(--jp-ui-font-family, sans-serif); color: #57606a; background: #fffffff0;
    border-radius: 4px; z-index: 1; }
  .ow-netron.still .ow-graph { overflow: auto; background: #fff; }
  .ow-netron.still .ow-note { position: static; padding: 10px 14px 2px; }
  .ow-netron.still iframe { display: none; }
  .ow-bar { display: flex; align-items: center; flex-wrap: wrap; gap: 4px 6px; padding: 2px 0 4px; visibility: hidden; }
  .ow-view:has(> .drawn) .ow-bar { visibility: visible; }
  .ow-view:has(> .still) .ow-bar { display: none; }
  .ow-bar b { flex: 1; min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .ow-bar button { padding: 2px 10px; cursor: pointer; border-radius: 5px; font: inherit; color: inherit;
    background: none; border: 1px solid var(--jp-border-color2, #d0d7de); }
  .ow-bar button:hover { background: var(--jp-layout-color2, #eaeef2); }
  .ow-bar output { padding: 0 6px; }
  .ow-view:fullscreen { display: flex; flex-direction: column; padding: 6px; }
  .ow-view:fullscreen > .ow-netron { flex: 1; min-height: 0; height: auto !important; resize: none; }
  ${PANEL_STYLE}`;

const instead = (said, why) => `${said} (${why.replace(/\.$/, "")}), so this is a static picture.`;

// `once`, since the page keeps the signal of a closed view: its listeners must not keep the view.
const atEnd = (signal, act) => signal.addEventListener("abort", act, { once: true });

// A separate function, whose closure does not keep the view: anywidget never drops it.
const ending = (life) => () => life.abort();

const ask = (model, question, signal, unanswered) =>
  new Promise((resolve, reject) => {
    const id = Math.random().toString(36).slice(2);
    const patience = setTimeout(unanswered, PATIENCE);
    const done = (settle, value) => {
      clearTimeout(patience);
      model.off("msg:custom", hear);
      settle(value);
    };
    const hear = (content, [part]) => content.id === id && done(resolve, part);
    atEnd(signal, () => done(reject, new Error("closed")));
    model.on("msg:custom", hear);
    model.send({ ask: question, id }); // throws where the kernel is gone
  });

const inflate = (buffer) =>
  new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip")));

// All views of a notebook share one, which its widget manager has as a model of its own. A page that was
// loaded anew lacks that model where the kernel failed to tell of its widgets; some hosts have no manager.
const frontEnd = async (model, askKernel) => {
  const manager = model.widget_manager ?? {};
  const pages = (manager.netronPages ??= new Map());
  const id = model.get("_page").replace("IPY_MODEL_", "");
  if (!pages.has(id)) {
    const known = await manager.get_model?.(id).then((page) => page.get("packed"), () => null);
    const packed = known ?? (await askKernel("page"));
    if (!pages.has(id)) pages.set(id, inflate(packed).text());
  }
  return pages.get(id);
};

// Light or dark, by what is really behind the cell: works in any notebook application.
const isDark = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, a = 1] = getComputedStyle(at).backgroundColor.match(/[\d.]+/g)?.map(Number) ?? [];
    if (a > 0.5 && r !== undefined) return 0.299 * r + 0.587 * g + 0.114 * b < 128;
  }
  return false;
};

const followTheme = (element, tell, signal) => {
  const look = () => tell(isDark(element));
  const observer = new MutationObserver(look);
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true });
  }
  atEnd(signal, () => observer.disconnect());
};

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  const note = make("div", { className: "ow-note", textContent: "Loading Netron\u2026" });
  const still = make("img", { className: "ow-still", alt: model.get("_summary") });
  const frame = make("iframe");
  frame.sandbox = SANDBOX;
  const tell = (message) => frame.contentWindow?.postMessage(message, "*");
  const keep = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const panel = makePanel({
    mark: (names) => keep("marked", names),
    activate: (name) => tell({ type: "activate", name }),
    close: () => {
      if (panel.element.contains(document.activeElement)) frame.focus();
      close();
      tell({ type: "close" });
    },
    changed: () => measureSoon(),
  });
  const legend = makeLegend();
  const button = (words, title, onclick) => make("button", { textContent: words, title, onclick });
  const title = make("b");
  const count = make("output");
  const steps = make("span", { hidden: true }, button("Previous", "Previous marked node (P)", () => step(-1)),
    count, button("Next", "Next marked node (N)", () => step(1)));
  const whole = make("button", { className: "ow-whole", hidden: true });
  const fit = button("Fit", "Show the whole graph, or go back (F)", () => tell({ type: "fit" }));
  const screen = button("Full screen", "Escape leaves it", () =>
    document.fullscreenElement ? document.exitFullscreen() : view.requestFullscreen());
  screen.hidden = !document.fullscreenEnabled;
  const bar = make("div", { className: "ow-bar" }, title, steps, whole, fit, screen);
  bar.onkeydown = (event) => {
    event.stopPropagation(); // a notebook has shortcuts of one letter
    ({ f: () => fit.click(), n: () => step(1), p: () => step(-1) })[event.key]?.();
  };
  const graph = make("div", { className: "ow-graph" }, note, still);
  const box = make("div", { className: "ow-netron" }, graph, panel.element);
  const view = make("div", { className: "ow-view" }, bar, box, legend.element);
  box.style.setProperty("--high", `${model.get("height")}px`);
  el.append(make("style", { textContent: STYLE }), view);

  // The frame lies under the panel too, whose tabs may show Netron's sidebar. It hears what is left for
  // the graph, and where the sidebar stands.
  const NARROW = 760; // pixels: below, the panel stands below the graph
  const measure = () => {
    box.classList.toggle("narrow", box.clientWidth <= NARROW);
    const [from, page] = [frame, panel.page].map((one) => one.getBoundingClientRect());
    const side = panel.isThrough() && [page.left - from.left, page.top - from.top, page.width, page.height];
    tell({ type: "room", graph: [graph.clientWidth, graph.clientHeight], side });
    panel.measured();
  };
  // The line is painted first: a graph with less room takes a moment.
  const measureSoon = () => requestAnimationFrame(() => setTimeout(measure));
  const sized = new ResizeObserver(measureSoon);
  for (const one of [box, graph, panel.page]) sized.observe(one);

  // The nodes that are marked, and the one of them that the reader looks at.
  let at = 0;
  const go = (open) => {
    const names = model.get("marked");
    steps.hidden = names.length < 2;
    count.textContent = `${at + 1} of ${names.length}`;
    tell({ type: "mark", names, at, open });
    if (names.length) panel.show(names[at]);
    else panel.hide();
  };
  const step = (by) => {
    const { length } = model.get("marked");
    at = length && (at + by + length) % length;
    if (length) go(true);
  };
  const unmark = () => {
    quiet = true; // in the frame it is done already
    model.set("marked", []);
    quiet = false;
    steps.hidden = true;
  };
  const close = () => {
    unmark();
    keep("_open", "");
    panel.hide();
  };

  let quiet = false; // whether a change of `marked` is our own
  let waiting; // the timer of a frame that says nothing
  let counting; // the timer of the seconds of a drawing
  const giveUp = (why) => {
    clearTimeout(waiting);
    clearInterval(counting);
    frame.remove();
    note.textContent = why;
    box.classList.add("still");
    box.classList.remove("drawn");
  };
  const theme = () => tell({ type: "theme", dark: isDark(el) });
  const askKernel = (question) =>
    ask(model, question, signal, () => {
      note.textContent = "The kernel does not answer. If it was restarted, run the cell.";
    });

  const show = async () => {
    const { why, name, nodes: count, folded, parts } = model.get("_sent");
    if (why) throw { told: why };
    const [graph, metadata, source] = parts.map(inflate);
    const { constants, ...sheet } = JSON.parse(await source.text());
    panel.load(sheet);
    title.textContent = name;
    frame.title = `Graph of ${name}`;
    whole.hidden = !folded;
    const opened = { name, count, constants, model: await graph.arrayBuffer(), metadata: await metadata.text() };
    frame.srcdoc = await frontEnd(model, askKernel);
    signal.throwIfAborted();
    panel.element.before(frame);
    waiting = setTimeout(
      () => giveUp("Netron did not start here, so this is a static picture."), PATIENCE);
    return opened;
  };
  const failed = ({ message, told }) =>
    signal.aborted || giveUp(told ?? instead("Netron did not start here", message));
  const coming = show();
  coming.catch(failed);
  let all = null; // the whole of a folded graph, while it is shown

  // A big graph takes seconds: the note counts them, as a sign of progress.
  const draw = async () => {
    const { count, ...opened } = await coming;
    signal.throwIfAborted();
    const nodes = `${count.toLocaleString("en")} nodes`;
    whole.textContent = all ? "Fold" : `Show all ${nodes}`;
    const start = Date.now();
    const remark = () => {
      const seconds = Math.floor((Date.now() - start) / 1000);
      note.textContent = `Drawing ${nodes}\u2026${seconds > 1 ? ` ${seconds} s` : ""}`;
    };
    clearInterval(counting);
    counting = setInterval(remark, 1000);
    remark();
    theme();
    measure();
    tell({ type: "open", ...opened, model: all ?? opened.model, heat: model.get("_heat") });
    const clickedBefore = !model.get("marked").length && panel.node();
    if (clickedBefore) tell({ type: "mark", names: [clickedBefore] });
    else go();
  };
  // From the folded graph to the whole, which the kernel has, and back.
  whole.onclick = async () => {
    frame.focus({ preventScroll: true }); // the bar, hidden until the graph is drawn, would lose it
    box.classList.remove("drawn");
    note.textContent = "Asking the kernel, which may be busy\u2026";
    try {
      all = all ? null : await inflate(await askKernel("whole")).arrayBuffer();
    } catch ({ message }) {
      box.classList.add("drawn");
      whole.textContent = `No answer from the kernel (${message}): run the cell, and try again`;
      return;
    }
    if (panel.isBox()) close(); // which the other graph has not
    draw().catch(failed);
  };

  const hears = {
    // Sent again when the notebook moves the frame, since that reloads it.
    ready: () => {
      clearTimeout(waiting);
      panel.side("");
      draw().catch(failed);
    },
    drawn: ({ height }) => {
      clearInterval(counting);
      box.style.setProperty("--high", `${Math.min(model.get("height"), Math.max(220, height))}px`);
      box.classList.add("drawn");
    },
    picture: ({ svg, png }) =>
      model.send({ picture: String(svg) }, undefined, png instanceof ArrayBuffer ? [png] : []),
    activate: ({ name }) => {
      const maker = panel.maker(String(name));
      if (maker) return tell({ type: "activate", name: maker });
      panel.show(String(name));
      unmark();
      model.set("_open", String(name));
      keep("selected", String(name));
    },
    side: (message) => panel.side(String(message.title)),
    step: ({ by }) => step(Number(by)),
    screen: () => screen.click(),
    close,
    failed: ({ why }) => giveUp(instead("Netron could not draw this model", String(why))),
  };
  const hear = ({ source, data }) => {
    if (source && source === frame.contentWindow) hears[data?.type]?.(data);
  };
  window.addEventListener("message", hear, { signal });
  followTheme(el, theme, signal);

  const follow = (name, act) => {
    model.on(`change:${name}`, act);
    atEnd(signal, () => model.off(`change:${name}`, act));
    act();
  };
  follow("_heat", () => {
    const now = model.get("_heat");
    panel.heat(now);
    legend.heat(now);
    tell({ type: "heat", heat: now });
  });
  follow("_picture", () => {
    still.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(model.get("_picture"))}`;
  });
  follow("facts", () => panel.facts(model.get("facts")));
  follow("marked", () => {
    if (quiet) return;
    at = 0;
    go();
  });
  if (!model.get("marked").length && model.get("selected")) panel.show(model.get("selected"));

  const uncover = cover(el);
  atEnd(signal, () => {
    uncover();
    sized.disconnect();
    const deaf = { onclick: null, onkeydown: null, onpointerdown: null, onlostpointercapture: null };
    for (const one of view.querySelectorAll("*")) Object.assign(one, deaf); // a handler keeps the whole view
    clearTimeout(waiting);
    clearInterval(counting);
    el.replaceChildren();
  });
  return ending(life);
}

export default { render };
