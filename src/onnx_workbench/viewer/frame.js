// Runs in the sandboxed frame, after netron's own modules: netron's host, made for a notebook cell.
// It asks no server for anything. Messages: frame -> cell {type: ready | drawn | picture | activate |
// failed}, cell -> frame {type: open | theme}.
(() => {
  "use strict";
  const { Host } = modules.load("browser");
  const { View } = modules.load("view");
  const { BinaryStream } = modules.load("base");
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

  class CellHost extends Host {
    #metadata = "[]";
    #picture = null;

    // Netron's browser host checks its age, asks for consent and reports home here.
    async view(view) {
      this._view = view;
    }

    async start() {
      say({ type: "ready" });
    }

    // Formats that the page does not hold never match.
    async require(id) {
      return modules.has(id) ? modules.load(id) : { ModelFactory: class { async match() {} } };
    }

    worker() {
      const source = modules.worker("dagre", "worker");
      return new Worker(`data:text/javascript;charset=utf-8,${encodeURIComponent(source)}`);
    }

    async asset(file) {
      return file === "onnx-metadata.json" ? this.#metadata : "[]";
    }

    async fetch(file) {
      throw new Error(`'${file}' stays in the kernel.`);
    }

    async export(file, blob) {
      if (this.#picture) {
        this.#picture(await blob.text());
      } else {
        await super.export(file, blob);
      }
    }

    get save() {
      return undefined; // tensors cannot be saved from here: their values stay in the kernel
    }

    event() {}

    exception(error) {
      console.warn(`Netron: ${error?.message}`);
    }

    get() {}

    set() {}

    delete() {}

    async execute(name) {
      if (name === "about") this._view.about();
    }

    async open({ name, model, metadata }) {
      this.#metadata = metadata;
      const opened = await this._view.open({
        identifier: "model.onnx", // the name decides which reader is tried; the title is the name
        stream: new BinaryStream(new Uint8Array(model)),
        asset: (file) => this.asset(file),
        fetch: (file) => this.fetch(file),
        require: (id) => this.require(id),
        error: (error) => this.exception(error),
      });
      if (!opened) throw new Error("Netron found no model in the file.");
      document.title = name;
    }

    // What is on the screen, as Netron's own SVG export writes it.
    async picture() {
      const target = element("target");
      const { scrollLeft, scrollTop } = target;
      const svg = new Promise((resolve) => (this.#picture = resolve));
      await this._view.export("picture.svg");
      target.scrollTo({ left: scrollLeft, top: scrollTop, behavior: "instant" });
      this.#picture = null;
      return svg;
    }
  }

  // Netron leaves a margin around the graph. Smaller text than this is not read: a larger graph
  // opens at its first input instead of being seen whole.
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
    const first = document.querySelector("#canvas .graph-input") ?? element("canvas");
    const { left, width: wide } = (width * zoom > target.clientWidth ? first : element("canvas"))
      .getBoundingClientRect();
    target.scrollTo({
      left: target.scrollLeft + left + (wide - target.clientWidth) / 2,
      top: zoom * MARGIN - Math.max(20, (target.clientHeight - zoom * height) / 2),
      behavior: "instant",
    });
    delete view.target._scrollLeft;
    delete view.target._scrollTop;
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
  const show = view.showNodeProperties.bind(view);
  view.showNodeProperties = (node, source) => {
    if (node) say({ type: "activate", name: String(node.name ?? "") });
    return show(node, source);
  };

  const open = async (message) => {
    await host.open(message);
    const [width, height] = size();
    say({ type: "drawn", width: width + 40, height: height + 40 });
    await new Promise(requestAnimationFrame); // the cell may have changed the frame's height
    await new Promise(requestAnimationFrame);
    fit();
    const nodes = document.querySelectorAll("#canvas .graph-node").length;
    if (nodes <= MOST_NODES_IN_A_PICTURE) say({ type: "picture", svg: await host.picture() });
  };

  // Netron's SVG export looks for its sheet by name.
  Object.defineProperty(element("grapher").sheet, "href", { value: "/grapher.css" });
  window.addEventListener("message", ({ source, data }) => {
    if (source !== cell) return;
    if (data.type === "theme") theme(data.dark);
    if (data.type === "open") open(data).catch((error) => say({ type: "failed", why: error.message }));
  });
  view.start().catch((error) => say({ type: "failed", why: error.message }));
})();
