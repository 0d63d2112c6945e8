// Runs in the sandboxed frame, after netron's own modules and netron.js. It asks no server for
// anything. Messages: frame -> cell {type: ready | drawn | picture | activate | side | step | close |
// screen | failed}, cell -> frame {type: open | theme | room | mark | activate | heat | fit | close}.
(() => {
  "use strict";
  const { View } = modules.load("view");
  const { CellHost, fill, inner } = modules.load("cell");
  const cell = window.parent;
  const say = (message, transfer = []) => cell.postMessage(message, "*", transfer);
  const element = (id) => document.getElementById(id);
  const MANY = 1000; // nodes: more are no picture, and are not laid out anew for the words of a heat

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

  // Netron leaves a margin around the graph.
  const MARGIN = 100;
  const size = () =>
    ["width", "height"].map((side) => Number(element("canvas").getAttribute(side)) - 2 * MARGIN);
  const zoomNow = () => element("canvas").getBoundingClientRect().width / element("canvas").getAttribute("width");

  // The graph in this zoom: in the middle, or where most of its first nodes are.
  const look = (zoom) => {
    const target = element("target");
    const [width, height] = size();
    inner.zoom(view.target, zoom);
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

  // The first look is one that can be read; the whole of the graph is one key away, and back.
  const begin = () => look(1);
  const fit = () => {
    if (!view.target) return; // it is being drawn
    const target = element("target");
    const [width, height] = size();
    const whole = Math.min(1, target.clientWidth / (width + 40), target.clientHeight / (height + 40));
    touched = true;
    if (Math.abs(zoomNow() / whole - 1) > 0.01) return look(whole);
    begin();
    view.target.scrollTo(shown());
  };

  // How much of the page the graph has, and where Netron's sidebar stands, if it is to be seen.
  const room = ({ graph, side }) => {
    const { style, classList } = document.documentElement;
    const set = (names, pixels) => names.forEach((name, at) => style.setProperty(name, `${pixels[at]}px`));
    set(["--wide", "--high"], graph);
    classList.toggle("aside", Boolean(side));
    if (side) set(["--side-x", "--side-y", "--side-wide", "--side-high"], side);
    if (!ready || !view.target) return;
    if (shown().length) view.target.scrollTo(shown()); // the panel may stand before it now
    else if (!touched) begin();
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
    body.nodes.some((node) => fits(node) || bodies(node).some((below) => holds(below, fits)));
  const stands = (one, fits) => fits(one.value) || folded(one).some((body) => holds(body, fits));

  // The calls that lead from these nodes to such a node, each into a function.
  const route = (nodes, fits, seen = new Set()) => {
    for (const call of nodes.flatMap(within)) {
      const inner = seen.has(call.type) ? [] : (call.type.nodes ?? []);
      seen.add(call.type);
      if (inner.flatMap(within).some(fits)) return [call];
      const more = route(inner, fits, seen);
      if (more.length) return [call, ...more];
    }
    return [];
  };

  // Leaves a function of the model that is open, where the node is not in it, and opens the node's own.
  const enter = async (name) => {
    const fits = (node) => key(node) === name;
    const all = () => [...drawn()];
    const here = () => all().some((one) => stands(one, fits));
    while (!here() && (await view.popTarget()));
    if (here()) return;
    for (const call of route(all().map(({ value }) => value), fits)) await view.pushTarget(call.type, call);
  };

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

  // What is selected: the nodes that a line or Python marked, or the one that was clicked; `at` is the
  // one of them that the panel shows.
  let marked = [];
  let at = "";
  let quiet = false; // what Netron's sidebar chooses is no choice of the reader
  const find = (name) => [...drawn()].find(({ value }) => key(value) === name);
  const sidebar = (act) => {
    const target = element("target"); // which would take the focus from the cell
    target.focus = () => {};
    quiet = true;
    act();
    quiet = false;
    delete target.focus;
  };
  const properties = (found) =>
    sidebar(() => (found ? view.showNodeProperties(found.value) : inner.sidebar(view).close()));

  // Beside a selection the other nodes are pale, but for those around it.
  const dim = () => {
    const selected = document.querySelectorAll("#canvas .graph-node.select");
    element("canvas")?.classList.toggle("chosen", selected.length > 0);
    document.querySelectorAll("#canvas .around").forEach((one) => one.classList.remove("around"));
    for (const one of selected) {
      let outer = one;
      while ((outer = outer.parentElement.closest(".graph-node"))) outer.classList.add("around");
    }
  };
  const select = () => {
    const names = new Set(marked.length || !at ? marked : [at]);
    view.target?.clearSelection();
    for (const one of drawn()) {
      const current = marked.length > 1 && stands(one, (node) => key(node) === at);
      one.shape.element.classList.toggle("current", current);
      if (!stands(one, (node) => names.has(key(node)))) continue;
      one.shape.select();
      inner.choose(one.graph, one.shape);
    }
    dim();
  };
  // Netron closes its sidebar, and forgets what is selected, when it draws.
  const chooseAgain = () => {
    if (at && find(at) && !inner.depth(view)) properties(find(at));
    select();
  };
  const shown = () =>
    [".current", ".graph-node.select"].flatMap((one) => document.querySelector(`#canvas ${one}`) ?? []).slice(0, 1);
  const show = async (open) => {
    await drawing;
    if (at) await enter(at);
    const found = (open && (await reveal(at))) || find(at);
    properties(found);
    select();
    view.target.scrollTo(shown());
    depict();
  };
  const mark = async ({ names, at: number = 0, open = names.length === 1 }) => {
    marked = names;
    at = names[number] ?? "";
    if (ready) await show(open);
  };
  const close = () => mark({ names: [] });
  const activate = async (name) => {
    await opened;
    await drawing;
    await enter(name);
    const found = await reveal(name);
    found?.graph.activate(found.value, "target");
    view.target.scrollTo(found ? [found.shape.element] : []);
  };

  // Colors are rules of Netron's own sheet: its SVG export copies that sheet over inline styles.
  const rules = element("grapher").sheet;
  for (const own of [
    ".node-item text { font-size: 14px; }",
    ".node-argument > text, .edge-label { font-size: 13px; }",
    ".select > .node.node-border { stroke: #cf222e; stroke-width: 4px; }",
  ]) {
    rules.insertRule(own, rules.cssRules.length);
  }
  const usual = rules.cssRules.length;
  let heat = {};
  const level = (node) => {
    const own = Object.hasOwn(heat.levels, key(node)) ? heat.levels[key(node)] : undefined;
    const below = () => bodies(node).flatMap((body) => body.nodes.map(level));
    return own ?? Math.max(-1, ...below());
  };

  // The words of the heat for a box, as in the static picture.
  const within = (node) => [node, ...bodies(node).flatMap((body) => body.nodes.flatMap(within))];
  const words = (node) => {
    if (!heat.values || !isNode(node)) return "";
    const all = within(node).map(key);
    const hot = all.filter((name) => Object.hasOwn(heat.values, name));
    if (!hot.length) return "";
    const said = heat.shown[hot.reduce((most, name) => (heat.values[name] > heat.values[most] ? name : most))];
    if (all.length === 1) return said;
    return heat.ends ? `up to ${said}` : `${hot.length} ${said}`;
  };
  let constants = {};
  fill({ words, constant: (name) => Object.hasOwn(constants, name ?? "") && constants[name] });
  const rule = (name, [color, ink]) => {
    const item = `.graph-node.${name} > .node-item-type >`;
    rules.insertRule(`${item} path { fill: ${color}; }`, rules.cssRules.length);
    rules.insertRule(`${item} text { fill: ${ink}; }`, rules.cssRules.length);
  };
  const paint = () => {
    for (const { value, shape } of drawn()) {
      const { classList } = shape.element;
      classList.remove(...[...classList].filter((name) => /^heat/.test(name)));
      if (heat.levels) classList.add(`heat${level(value)}`);
    }
    for (const stop of stops()) stop.setAttribute("role", "button");
    for (const { value, shape } of drawn()) {
      const said = [value.type.name, value.name, words(value)].filter(Boolean).join(", ");
      shape.element.querySelector(":scope > .node-item-type")?.setAttribute("aria-label", said);
    }
    element("canvas").setAttribute("role", "group");
    element("canvas").setAttribute("aria-label", `${document.title}. ${KEYS}`);
  };
  const warm = (message) => {
    heat = message.heat;
    while (rules.cssRules.length > usual) rules.deleteRule(usual);
    if (heat.levels) {
      rule("heat-1", heat.cold);
      for (const used of new Set(Object.values(heat.levels))) rule(`heat${used}`, heat.palette[used]);
    }
    if (!ready) return;
    paint();
    depict();
    if (nodes().length <= MANY) redraw();
  };
  let stale = false;
  const redraw = async () => {
    stale = true;
    await drawing;
    if (stale) view.refresh();
    stale = false;
  };

  // A browser paints anew, at each click, also what is far away: of a big graph, most of it.
  // An IntersectionObserver would look at each of many thousand parts at each frame.
  let parts = [];
  const hideFar = () => {
    if (!parts.length) return;
    const { clientWidth: wide, clientHeight: high } = element("target");
    const { left, top } = element("canvas").getBoundingClientRect();
    const zoom = zoomNow();
    const near = (from, length, side) => from < 2 * side && from + length * zoom > -side;
    for (const one of parts) {
      const seen = near(left + one.x * zoom, one.width, wide) && near(top + one.y * zoom, one.height, high);
      if (seen !== one.seen) one.part.style.visibility = seen ? "" : "hidden";
      one.seen = seen;
    }
  };
  const resized = new ResizeObserver(hideFar);
  const findParts = (many = nodes().length > MANY) => {
    for (const { part } of parts) part.style.visibility = "";
    parts = [];
    if (!element("canvas")) return; // Netron could not draw
    const { left, top } = element("canvas").getBoundingClientRect();
    const zoom = zoomNow();
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
    element("canvas").classList.remove("chosen"); // on paper the others are not pale
    const focused = document.hasFocus() && document.activeElement;
    const done = exported(file); // takes the canvas out for a moment, and the focus with it
    if (focused) focused.focus({ preventScroll: true });
    await done;
    findParts();
    chooseAgain();
  };

  // Whatever draws anew draws without our colors and marks. One drawing waits for the other: Netron
  // ends a layout that is under way when the next begins.
  let drawing = Promise.resolve();
  const unfocused = (act) => {
    const target = element("target");
    if (!document.hasFocus()) target.focus = () => {}; // Netron takes it from the cell when it draws
    return act().finally(() => delete target.focus);
  };
  for (const name of inner.draws) {
    const draw = view[name].bind(view);
    const dressed = async (args) => {
      const result = await unfocused(() => draw(...args)); // closes Netron's sidebar
      if (!element("canvas")) return result; // Netron could not draw
      findParts();
      paint();
      stopAt(stops()[0]);
      chooseAgain();
      depict();
      return result;
    };
    view[name] = (...args) => {
      const result = drawing.then(() => dressed(args));
      drawing = result.catch(() => {});
      return result;
    };
  }

  // A node is chosen by a click on it, in a sidebar, or in the panel.
  const report = (node) => {
    if (key(node) === at && !marked.length) return;
    at = key(node);
    marked = [];
    document.querySelector("#canvas .current")?.classList.remove("current");
    touched = true;
    say({ type: "activate", name: at });
    depict(1500); // a picture takes a moment, for which the next click would have to wait
  };
  const patchChoice = ({ prototype }) => {
    const { select, activate } = prototype;
    if (Object.hasOwn(prototype, "heard")) return;
    prototype.heard = true;
    prototype.select = function (values, source) {
      if (!values && window.event?.type === "keydown" && window.event.key !== "Escape") return null; // any key
      if (source === "sidebar" && isNode(values?.[0]) && !quiet) report(values[0]);
      const elements = select.call(this, values, source);
      dim();
      return elements;
    };
    prototype.activate = function (value, source) {
      if (!isNode(value)) return activate.call(this, value, source);
      report(value);
      if (source === "sidebar") return activate.call(this, value, source);
      // The line first: the cell would hear of it and paint it only after what Netron changes here.
      const now = () => // not closed since, but perhaps drawn anew
        at === key(value) && activate.call(find(at)?.graph ?? this, find(at)?.value ?? value, source);
      const painted = (frames) => frames ? requestAnimationFrame(() => painted(frames - 1)) : setTimeout(now);
      painted(3); // the cell may be a frame or two behind
      return [];
    };
  };

  // By keyboard: the graph is one stop of Tab.
  const KEYS = "Up and down go along the edges, left and right to the node before and after, Enter is " +
    "a click, F shows the whole graph, N and P go through the marked nodes, Escape closes the panel.";
  const stops = () => [...document.querySelectorAll("#canvas .graph-node > .node-item-type")];
  const stopAt = (stop) => {
    document.querySelector("#canvas [tabindex]")?.removeAttribute("tabindex");
    stop?.setAttribute("tabindex", "0");
  };
  const beside = (stop, step) => {
    const all = stops();
    return all[all.indexOf(stop) + step];
  };
  const along = (stop, [end, other]) => {
    const { graph, shape } = [...drawn()].find(({ shape }) => shape.element === stop.closest(".graph-node"));
    const ends = [...graph.edges.values()].filter(({ label }) => label[end] === shape);
    const next = ends.map(({ label }) => label[other].element).find((one) => one.matches(".graph-node"));
    return next?.querySelector(":scope > .node-item-type");
  };
  const goTo = (next) => {
    if (!next) return;
    stopAt(next);
    next.closest(".graph-node").style.visibility = ""; // what is hidden takes no focus
    next.focus({ preventScroll: true });
    view.target.scrollTo([next]);
  };
  const onNode = {
    ArrowDown: (stop) => goTo(along(stop, ["from", "to"])),
    ArrowUp: (stop) => goTo(along(stop, ["to", "from"])),
    ArrowRight: (stop) => goTo(beside(stop, 1)),
    ArrowLeft: (stop) => goTo(beside(stop, -1)),
  };
  const anywhere = {
    f: fit,
    n: () => say({ type: "step", by: 1 }),
    p: () => say({ type: "step", by: -1 }),
  };
  const press = (target) =>
    target.matches("[role=button]:not(button)") && target.dispatchEvent(new MouseEvent("click", { bubbles: true }));
  window.addEventListener("keydown", (event) => {
    const { key, target, altKey, ctrlKey, metaKey } = event;
    if (altKey || ctrlKey || metaKey || !ready || target.matches("input, select")) return;
    if (Number(element("menu").style.opacity) >= 1) { // Netron's menu has keys of its own,
      if (key !== "Escape") return;
      event.stopPropagation(); // but where its sidebar is open, Escape would close that
      return inner.closeMenu(view);
    }
    if (key === "Escape") return close(), say({ type: "close" }); // a click may come before an answer
    const stop = target.closest("#canvas [tabindex]");
    const act = (stop && onNode[key]) ?? anywhere[key];
    if (act) act(stop);
    else if (![" ", "Enter"].includes(key) || !press(target)) return;
    event.preventDefault();
    event.stopPropagation(); // Netron scrolls by arrows
  }, { capture: true });

  // What in Netron's page answers to a mouse alone. Its sidebar is one of the panel's tabs.
  const MOUSE = ".sidebar-item-value-expander, .sidebar-item-value-button, [style*='cursor: pointer']";
  let told = "";
  const dressSidebar = () => {
    for (const one of element("sidebar").querySelectorAll(MOUSE)) {
      Object.assign(one, { tabIndex: 0, role: "button" });
      if (one.matches(".sidebar-item-value-expander")) one.ariaLabel = "Details";
    }
    for (const one of element("sidebar").querySelectorAll("input")) one.ariaLabel ||= one.value || one.placeholder;
    const depth = inner.depth(view);
    back.hidden = depth < 2;
    const title = depth ? element("sidebar-title").textContent.replace(/ Properties$/, "") : "";
    if (title !== told) say({ type: "side", title: (told = title) });
  };
  const back = Object.assign(document.createElement("button"), { id: "back", textContent: "\u2039 Back", hidden: true });
  back.onclick = () => inner.back(view);
  element("sidebar").prepend(back);
  new MutationObserver(dressSidebar).observe(element("sidebar"), { childList: true, subtree: true });
  Object.assign(element("menu-button"), { tabIndex: 0, role: "button", ariaLabel: "Menu" });
  for (const one of document.querySelectorAll("#toolbar [title]")) one.ariaLabel = one.title;
  document.querySelector("meta[name=viewport]").content = "width=device-width"; // a page may be enlarged

  // The picture follows what is on the screen, when it has come to rest.
  const UNPRINTABLE = /[\x00-\x08\x0b\x0c\x0e-\x1f]/g; // no XML may hold them, a name may
  let ready = false;
  let resting = 0;
  const depict = (rest = 300) => {
    clearTimeout(resting);
    resting = setTimeout(async () => {
      resting = 0;
      if (!ready || !element("canvas") || nodes().length > MANY) return;
      const svg = withLegend((await host.picture()).replace(UNPRINTABLE, "\ufffd"));
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

  let touched = false; // by the reader: a frame that gets another size before shows its graph anew
  for (const name of ["pointerdown", "wheel", "keydown"]) {
    const by = () => {
      touched = true;
      document.documentElement.classList.toggle("keys", name === "keydown");
    };
    window.addEventListener(name, by, { capture: true });
  }

  let opened = Promise.resolve();
  const open = async (message) => {
    ready = touched = false;
    constants = message.constants;
    warm(message);
    await unfocused(() => host.open(message));
    patchChoice(view.target.constructor);
    const [width, height] = size();
    say({ type: "drawn", width: width + 40, height: height + 40 });
    await new Promise(requestAnimationFrame); // the cell may have changed the frame's height
    await new Promise(requestAnimationFrame);
    begin();
    findParts();
    ready = true;
    if (heat !== message.heat) warm({ heat }); // it came during the drawing
    if (at) await show(marked.length < 2);
    else depict();
  };

  // Netron's SVG export looks for its sheet by name.
  Object.defineProperty(element("grapher").sheet, "href", { value: "/grapher.css" });
  const hears = {
    theme: ({ dark }) => theme(dark),
    open: (message) => {
      opened = open(message).catch((error) => say({ type: "failed", why: error.message }));
    },
    room,
    mark,
    fit,
    close: () => {
      close();
      if (document.hasFocus()) document.querySelector("#canvas [tabindex]")?.focus({ preventScroll: true });
    },
    activate: ({ name }) => activate(name),
    heat: warm,
  };
  window.addEventListener("message", ({ source, data }) => {
    if (source !== cell) return;
    hears[data.type]?.(data);
  });
  view.start().catch((error) => say({ type: "failed", why: error.message }));
})();
