// The view in the notebook page: one sandboxed frame, and what goes between it and the kernel.
// Kernel: the trait `_sent` holds all that is drawn first, `_page` names the model of the front-end;
// {ask: "whole"} and {ask: "page"} are answered in a custom message with the same id. A kernel that runs
// the cells below answers late, but has sent before.
// Frame: see frame.js. Only messages of our own frame are heard. `tag`, `makePanel` and `makeLegend`
// are those of panel.js, `cover` that of still.js, which netron.py puts in front of this file.

const SANDBOX = "allow-scripts allow-downloads allow-popups";
const PATIENCE = 20000; // ms until a frame that says nothing is given up
const STYLE = `
  .ow-netron { display: flex; overflow: hidden; box-sizing: border-box; border-radius: 6px;
    border: 1px solid var(--jp-border-color2, #d0d7de); }
  .ow-graph { position: relative; flex: 1 1 auto; min-width: 0; min-height: 160px; overflow: hidden;
    resize: vertical; }
  .ow-netron iframe { position: absolute; inset: 0; width: 100%; height: 100%; border: 0;
    opacity: 0; transition: opacity .15s; }
  .ow-netron.drawn iframe { opacity: 1; }
  .ow-netron.drawn .ow-still, .ow-netron.drawn .ow-note { display: none; }
  .ow-netron .ow-still { max-width: 100%; display: block; margin: 8px auto; }
  .ow-netron:not(.still) .ow-still { animation: ow-appear .3s 1.2s both; }
  @keyframes ow-appear { from { opacity: 0; } }
  .ow-netron .ow-note { position: absolute; left: 12px; bottom: 8px; padding: 2px 8px;
    font: 12px var(--jp-ui-font-family, sans-serif); color: #57606a; background: #fffffff0;
    border-radius: 4px; z-index: 1; }
  .ow-netron.still .ow-graph { overflow: auto; background: #fff; }
  .ow-netron.still .ow-note { position: static; padding: 10px 14px 2px; }
  .ow-netron.still :is(iframe, .ow-whole) { display: none; }
  .ow-whole:not([hidden]) ~ iframe { top: 36px; height: calc(100% - 36px); }
  .ow-whole { position: absolute; left: 50%; top: 5px; transform: translateX(-50%); z-index: 1;
    padding: 4px 12px; cursor: pointer; border-radius: 6px; color: var(--jp-ui-font-color1, #24292f);
    font: 12px var(--jp-ui-font-family, sans-serif); background: var(--jp-layout-color1, #fff);
    border: 1px solid var(--jp-border-color2, #d0d7de); }
  ${PANEL_STYLE}`;

const instead = (said, why) => `${said} (${why.replace(/\.$/, "")}), so this is a static picture.`;

// Listeners go as they are called: the page holds on to the signal of a view that is gone.
const atEnd = (signal, act) => signal.addEventListener("abort", act, { once: true });

// A function of its own, which holds nothing else: anywidget keeps it for as long as the page lives.
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
    const hear = (content, parts) => content.id === id && done(resolve, { ...content, parts });
    atEnd(signal, () => done(reject, new Error("closed")));
    model.on("msg:custom", hear);
    model.send({ ask: question, id });
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
    const packed = known ?? (await askKernel("page")).parts[0];
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
  const note = tag("div", { className: "ow-note", textContent: "Loading Netron\u2026" });
  const still = tag("img", { className: "ow-still", alt: model.get("_summary") });
  const frame = tag("iframe", { title: "Netron" });
  frame.sandbox = SANDBOX;
  const tell = (message) => frame.contentWindow?.postMessage(message, "*");
  const keep = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const panel = makePanel({
    mark: (names) => keep("marked", names),
    activate: (name) => tell({ type: "activate", name }),
  });
  const legend = makeLegend();
  const whole = tag("button", { className: "ow-whole", hidden: true });
  const graph = tag("div", { className: "ow-graph" }, note, still, whole);
  const box = tag("div", { className: "ow-netron" }, graph, panel.element);
  graph.style.height = `${model.get("height")}px`;
  el.append(tag("style", { textContent: STYLE }), tag("div", { className: "ow-view" }, box, legend.element));

  let clicked = false;
  let waiting;
  let counting;
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

  const unpack = async ({ name, nodes, folded, parts: [graph, manual, source] }) => {
    panel.load(JSON.parse(await inflate(source).text()));
    whole.hidden = !folded;
    whole.textContent = `Show all ${nodes.toLocaleString("en")} nodes`;
    return {
      type: "open",
      name,
      count: nodes,
      model: await inflate(graph).arrayBuffer(),
      metadata: await inflate(manual).text(),
    };
  };
  const show = async () => {
    const sent = model.get("_sent");
    if (sent.why) throw { told: sent.why };
    const opened = await unpack(sent);
    frame.srcdoc = await frontEnd(model, askKernel);
    signal.throwIfAborted();
    graph.append(frame);
    waiting = setTimeout(
      () => giveUp("Netron did not start here, so this is a static picture."), PATIENCE);
    return opened;
  };
  const failed = ({ message, told }) =>
    signal.aborted || giveUp(told ?? instead("Netron did not start here", message));
  let coming = show();
  coming.catch(failed);

  // A big graph takes seconds: the note counts them, so that nobody takes it for dead.
  const draw = async () => {
    const opened = await coming;
    signal.throwIfAborted();
    const start = Date.now();
    const remark = () => {
      const seconds = Math.floor((Date.now() - start) / 1000);
      const of = opened.count ? ` ${opened.count.toLocaleString("en")} nodes` : "";
      note.textContent = `Drawing${of}\u2026${seconds > 1 ? ` ${seconds} s` : ""}`;
    };
    clearInterval(counting);
    counting = setInterval(remark, 1000);
    remark();
    theme();
    tell(opened);
    tell({ type: "heat", heat: model.get("_heat") });
    tell({ type: "mark", names: model.get("marked") });
  };
  whole.onclick = () => {
    box.classList.remove("drawn");
    note.textContent = "Asking the kernel, which may be busy\u2026";
    coming = askKernel("whole").then(unpack);
    draw().catch(failed);
  };

  const hears = {
    // Once more whenever the notebook moves the frame, which loads it anew.
    ready: () => {
      clearTimeout(waiting);
      draw().catch(failed);
    },
    drawn: ({ height }) => {
      clearInterval(counting);
      const above = graph.clientHeight - frame.clientHeight; // the button's row
      graph.style.height = `${Math.min(model.get("height"), Math.max(220, height + above))}px`;
      box.classList.add("drawn");
    },
    picture: ({ svg, png }) =>
      model.send({ picture: String(svg) }, undefined, png instanceof ArrayBuffer ? [png] : []),
    activate: ({ name }) => {
      const maker = panel.maker(String(name));
      if (maker) return tell({ type: "activate", name: maker });
      frame.style.width = `${frame.clientWidth}px`; // the line first: a narrower graph is laid out anew
      panel.show(String(name));
      requestAnimationFrame(() => setTimeout(() => (frame.style.width = "")));
      clicked = true; // a click takes the marks away, in the frame it already has
      model.set("marked", []);
      clicked = false;
      keep("selected", String(name));
    },
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
  };
  const heat = () => {
    const now = model.get("_heat");
    panel.heat(now);
    legend.heat(now);
    tell({ type: "heat", heat: now });
  };
  const picture = () => {
    still.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(model.get("_picture"))}`;
  };
  follow("_heat", heat);
  follow("_picture", picture);
  follow("marked", () => {
    if (clicked) return;
    const names = model.get("marked");
    tell({ type: "mark", names });
    if (names.length) panel.show(names[0]);
  });
  heat();
  picture();
  const [open = model.get("selected")] = model.get("marked");
  if (open) panel.show(open);

  const uncover = cover(el);
  atEnd(signal, () => {
    uncover();
    clearTimeout(waiting);
    clearInterval(counting);
    el.replaceChildren();
  });
  return ending(life);
}

export default { render };
