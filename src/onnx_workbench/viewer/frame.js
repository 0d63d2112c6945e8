// Runs in the sandboxed frame, after netron's own modules and netron.js. It asks no server for
// anything. Messages: frame -> cell {type: ready | drawn | picture | activate |
// failed}, cell -> frame {type: open | theme | mark | activate | heat}.
(() => {
  "use strict";
  const { View } = modules.load("view");
  const { CellHost, inner } = modules.load("cell");
  const cell = window.parent;
  const say = (message, transfer = []) => cell.postMessage(message, "*", transfer);
  const element = (id) => document.getElementById(id);
  const MOST_NODES_IN_A_PICTURE = 1000;

  // A frame that is out of sight gets no animation frames: without them the graph would be drawn,
  // and the frame take its height, only when the reader scrolls there.
  const soon = window.requestAnimationFrame.bind(window);
  window.requestAnimationFrame = (callback) => {
    let called = false;
    const once = (time) => {
      if (!called) callback(time);
      called = true;
    };
    setTimeout(() => once(performance.now()), 100);
    return soon(once);
  };

  // Netron leaves a margin around the graph. Smaller text than this is not read: a larger graph
  // opens where most of its first nodes are instead of being seen whole.
  const MARGIN = 100;
  const SMALLEST = 0.66;
  const size = () =>
    ["width", "height"].map((side) => Number(element("canvas").getAttribute(side)) - 2 * MARGIN);
  const fit = () => {
    const target = element("target");
    const [width, height] = size();
    const whole = Math.min(target.clientWidth / (width + 40), target.clientHeight / (height + 40));
    view.target.zoom = Math.min(1, Math.max(SMALLEST, whole));
    const zoom = view.target.zoom;
    const places = (one) => [...document.querySelectorAll(one)].map((each) => each.getBoundingClientRect());
    const [all] = places("#canvas");
    const amid = (many) => many.sort((one, other) => one.left - other.left)[many.length >> 1];
    const seen = ({ top }) => top < all.top + zoom * MARGIN + target.clientHeight;
    const { left, width: wide } =
      width * zoom > target.clientWidth ? amid(places(".graph-node, .graph-input").filter(seen)) : all;
    target.scrollTo({
      left: target.scrollLeft + left + (wide - target.clientWidth) / 2,
      top: zoom * MARGIN - Math.max(20, (target.clientHeight - zoom * height) / 2),
      behavior: "instant",
    });
    inner.forgetScroll(view.target);
  };

  // JupyterLab's theme is not the system's, which Netron's sheets ask for.
  const theme = (dark) => {
    for (const sheet of document.styleSheets) {
      for (const rule of sheet.cssRules) {
        if (rule instanceof CSSMediaRule && (rule.dark ??= /color-scheme: dark/.test(rule.conditionText))) {
          rule.media.mediaText = dark ? "all" : "not all";
        }
      }
    }
  };

  const host = new CellHost();
  const view = new View(host);

  // What a node goes by, as origin.py has it: its name, or where it has none its first output.
  const key = (node) => String(node.name || node.outputs?.[0]?.value?.[0]?.name || "");
  const isNode = (value) => Array.isArray(value?.outputs) && !Array.isArray(value.nodes);
  const bodies = (node) =>
    (node.attributes ?? []).filter(({ type }) => type === "graph").map(({ value }) => value);

  // Every node on the screen, also those of bodies that are expanded in place.
  function* drawn(graph = view.target) {
    for (const [value, shape] of inner.drawn(graph)) {
      if (isNode(value)) yield { graph, value, shape };
      for (const { target } of shape.blocks ?? []) {
        yield* drawn(target ?? null);
      }
    }
  }
  const nodes = () => document.querySelectorAll("#canvas .graph-node");
  const folded = ({ graph, value }) => bodies(value).filter((body) => !graph.blocks?.has(body));
  const holds = (body, fits) =>
    body.nodes.some((node) => fits(node) || bodies(node).some((inner) => holds(inner, fits)));

  // Opens what the node is folded into, level by level.
  const reveal = async (name) => {
    const fits = (node) => key(node) === name;
    for (;;) {
      const all = [...drawn()];
      const found = all.find(({ value }) => fits(value));
      if (found) return found;
      const holder = all.find((one) => folded(one).some((body) => holds(body, fits)));
      if (!holder) return null;
      for (const body of folded(holder)) holder.graph.blocks.add(body);
      const rect = holder.shape.element.getBoundingClientRect();
      await view.refresh({ value: holder.value, rect });
    }
  };

  let marked = new Set();
  let closing = false;
  const select = (scroll) => {
    const fits = (node) => marked.has(key(node));
    const elements = [];
    view.target?.clearSelection();
    for (const one of drawn()) {
      if (fits(one.value) || folded(one).some((body) => holds(body, fits))) {
        elements.push(...one.shape.select());
        inner.choose(one.graph, one.shape);
      }
    }
    if (scroll) view.target?.scrollTo(elements.slice(0, 1));
  };
  const mark = async (names) => {
    const sidebar = names.length && inner.sidebar(view);
    if (sidebar) {
      const target = element("target"); // the sidebar shows another node, and would take the focus
      target.focus = () => {};
      closing = true; // the sidebar beneath it chooses its node once more
      sidebar.close();
      closing = false;
      delete target.focus;
    }
    marked = new Set(names);
    if (names.length === 1) await reveal(names[0]);
    select(true);
    depict();
  };
  const activate = async (name) => {
    const found = await reveal(name);
    found?.graph.activate(found.value, "target");
    view.target.scrollTo(found ? [found.shape.element] : []);
  };

  // Colors are rules of Netron's own sheet: its SVG export copies that sheet over inline styles.
  const rules = element("grapher").sheet;
  const usual = rules.cssRules.length;
  let heat = {};
  const level = (node) => {
    const own = heat.levels[key(node)];
    const inner = () => bodies(node).flatMap((body) => body.nodes.map(level));
    return own ?? Math.max(-1, ...inner());
  };
  const rule = (name, [fill, ink]) => {
    const item = `.graph-node.${name} > .node-item-type >`;
    rules.insertRule(`${item} path { fill: ${fill}; }`, rules.cssRules.length);
    rules.insertRule(`${item} text { fill: ${ink}; }`, rules.cssRules.length);
  };
  const paint = () => {
    for (const { value, shape } of drawn()) {
      const { classList } = shape.element;
      classList.remove(...[...classList].filter((name) => /^heat/.test(name)));
      if (heat.levels) classList.add(`heat${level(value)}`);
    }
  };
  const repaint = () => {
    while (rules.cssRules.length > usual) rules.deleteRule(usual);
    if (heat.levels) {
      rule("heat-1", heat.cold);
      for (const used of new Set(Object.values(heat.levels))) rule(`heat${used}`, heat.palette[used]);
    }
    paint();
    depict();
  };

  // A browser paints anew, at each click, also what is far away: of a big graph, most of it.
  // An IntersectionObserver would look at each of many thousand parts at each frame.
  let parts = [];
  const hideFar = () => {
    if (!parts.length) return;
    const { clientWidth: wide, clientHeight: high } = element("target");
    const { left, top, width } = element("canvas").getBoundingClientRect();
    const zoom = width / element("canvas").getAttribute("width");
    const near = (from, length, side) => from < 2 * side && from + length * zoom > -side;
    for (const one of parts) {
      const seen = near(left + one.x * zoom, one.width, wide) && near(top + one.y * zoom, one.height, high);
      if (seen !== one.seen) one.part.style.visibility = seen ? "" : "hidden";
      one.seen = seen;
    }
  };
  const resized = new ResizeObserver(hideFar);
  const findParts = (many = nodes().length > MOST_NODES_IN_A_PICTURE) => {
    for (const { part } of parts) part.style.visibility = "";
    parts = [];
    if (!element("canvas")) return; // Netron could not draw
    const { left, top, width } = element("canvas").getBoundingClientRect();
    const zoom = width / element("canvas").getAttribute("width");
    const all = "#canvas :is(.graph-node, #edge-paths > path, #edge-paths-hit-test > path)";
    parts = [...(many ? document.querySelectorAll(all) : [])].map((part) => {
      const box = part.getBoundingClientRect();
      const [x, y] = [(box.left - left) / zoom, (box.top - top) / zoom];
      return { part, x, y, width: box.width / zoom, height: box.height / zoom, seen: true };
    });
    resized.disconnect();
    for (const name of ["canvas", "target"]) resized.observe(element(name)); // zoomed, or narrower
    hideFar();
  };
  element("target").addEventListener("scroll", hideFar, { passive: true });
  const exported = view.export.bind(view);
  view.export = async (file) => {
    findParts(false);
    await exported(file);
    findParts();
  };

  // Whatever draws anew draws without our colors and marks.
  for (const name of inner.draws) {
    const draw = view[name].bind(view);
    view[name] = async (...args) => {
      const result = await draw(...args);
      findParts();
      paint();
      stopAt(stops()[0]);
      if (marked.size) select(false);
      depict();
      return result;
    };
  }

  // A node is chosen by a click on it, in a sidebar, or in the panel.
  let chosen = null;
  const report = (node) => {
    if (key(node) === chosen && !marked.size) return;
    chosen = key(node);
    marked = new Set();
    touched = true;
    say({ type: "activate", name: chosen });
    depict(1500); // a picture takes a moment, for which the next click would have to wait
  };
  const hear = ({ prototype }) => {
    const { select, activate } = prototype;
    if (Object.hasOwn(prototype, "heard")) return;
    prototype.heard = true;
    prototype.select = function (values, source) {
      if (source === "sidebar" && isNode(values?.[0]) && !closing) report(values[0]);
      return select.call(this, values, source);
    };
    prototype.activate = function (value, source) {
      if (!isNode(value)) return activate.call(this, value, source);
      report(value);
      if (source === "sidebar") return activate.call(this, value, source);
      // The line first: the cell would hear of it and paint it only after what Netron changes here.
      const then = () => setTimeout(() => activate.call(this, value, source));
      requestAnimationFrame(() => requestAnimationFrame(then)); // the cell may be a frame behind
      return [];
    };
  };

  // By keyboard: the graph is one stop of Tab, arrows go from node to node, Enter is a click.
  const stops = () => [...document.querySelectorAll("#canvas .graph-node > .node-item-type")];
  const stopAt = (stop) => {
    document.querySelector("#canvas [tabindex]")?.removeAttribute("tabindex");
    stop?.setAttribute("tabindex", "0");
  };
  const STEP = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  window.addEventListener("keydown", (event) => {
    const at = event.target.closest?.("#canvas [tabindex]");
    if (!at || !(event.key in STEP || event.key === "Enter")) return;
    event.preventDefault();
    event.stopPropagation(); // Netron scrolls by arrows
    if (event.key === "Enter") return at.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    const all = stops();
    const next = all[all.indexOf(at) + STEP[event.key]];
    if (!next) return;
    stopAt(next);
    next.closest(".graph-node").style.visibility = ""; // what is hidden takes no focus
    next.focus({ preventScroll: true });
    view.target.scrollTo([next]);
  }, { capture: true });

  // The picture follows what is on the screen, when it has come to rest.
  let ready = false;
  let resting = 0;
  const depict = (rest = 300) => {
    clearTimeout(resting);
    resting = setTimeout(async () => {
      resting = 0;
      if (!ready || nodes().length > MOST_NODES_IN_A_PICTURE) return;
      const svg = withLegend(await host.picture());
      const png = await rendered(svg);
      say({ type: "picture", svg, png }, png ? [png] : []);
    }, rest);
  };

  // Netron's export puts the scroll position back, which would stop a scroll that is under way.
  element("target").addEventListener("scroll", () => resting && depict());

  // The legend of the static picture, below what Netron drew.
  const withLegend = (svg) => {
    if (!heat.legend) return svg;
    const [legend, long, high] = heat.legend;
    const { documentElement: root } = new DOMParser().parseFromString(svg, "image/svg+xml");
    const [wide, tall] = ["width", "height"].map((side) => Number(root.getAttribute(side)));
    const width = Math.ceil(Math.max(wide, long + 24));
    root.setAttribute("x", (width - wide) / 2);
    return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${Math.ceil(tall + high)}"
      font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="#fff"/>
      ${new XMLSerializer().serializeToString(root)}
      <g transform="translate(${(width - long) / 2} ${tall + 8})">${legend}</g></svg>`;
  };

  const LONGEST_SIDE = 8192; // pixels; browsers refuse larger canvases
  const rendered = async (svg) => {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
    await image.decode();
    const scale = Math.min(2, LONGEST_SIDE / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = image.width * scale;
    canvas.height = image.height * scale;
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve));
    return blob?.arrayBuffer();
  };

  // A frame that gets another size before the reader has moved anything shows its graph anew.
  let touched = false;
  for (const name of ["pointerdown", "wheel", "keydown"]) {
    window.addEventListener(name, () => (touched = true), { capture: true });
  }
  window.addEventListener("resize", () => ready && !touched && !marked.size && fit());

  const open = async (message) => {
    ready = touched = false;
    await host.open(message);
    hear(view.target.constructor);
    const [width, height] = size();
    say({ type: "drawn", width: width + 40, height: height + 40 });
    await new Promise(requestAnimationFrame); // the cell may have changed the frame's height
    await new Promise(requestAnimationFrame);
    fit();
    findParts();
    ready = true;
    paint();
    stopAt(stops()[0]);
    select(marked.size > 0);
    depict();
  };

  // Beside the panel of the cell, Netron's own sidebar must leave room for the graph.
  const narrow = document.createElement("style");
  narrow.textContent = `#sidebar { max-width: 24em; }
    #canvas :focus-visible { outline: 3px solid #1976d2; outline-offset: 2px; }
    #target[style*="42em"] { width: max(40vw, calc(100vw - 24em)) !important; }`;
  document.head.append(narrow);

  // Netron's SVG export looks for its sheet by name.
  Object.defineProperty(element("grapher").sheet, "href", { value: "/grapher.css" });
  const hears = {
    theme: ({ dark }) => theme(dark),
    open: (message) => open(message).catch((error) => say({ type: "failed", why: error.message })),
    mark: ({ names }) => mark(names),
    activate: ({ name }) => activate(name),
    heat: (message) => {
      heat = message.heat;
      repaint();
    },
  };
  window.addEventListener("message", ({ source, data }) => {
    if (source !== cell) return;
    hears[data.type]?.(data);
  });
  view.start().catch((error) => say({ type: "failed", why: error.message }));
})();
