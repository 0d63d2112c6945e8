// Netron's host, made for a notebook cell, and whatever else of netron 9 is private: no other file
// uses such a name. frontend.py refuses a netron that lacks one of them.
modules.define("cell", (exports) => {
  "use strict";
  const { Host } = modules.load("browser");
  const { BinaryStream } = modules.load("base");
  const { Node, Argument } = modules.load("grapher");
  const IN_VAIN = ["&Open...", "Report &Issue"]; // commands that do nothing in a cell

  exports.CellHost = class extends Host {
    #metadata = "[]";
    #picture = null;

    // Netron's browser host checks its age, asks for consent and reports home here.
    async view(view) {
      this._view = view;
    }

    async start() {
      for (const group of this._view._menu.items) {
        group.items = group.items.filter(({ label }) => !IN_VAIN.includes(label));
      }
      window.parent.postMessage({ type: "ready" }, "*");
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

    // After some seconds of a layout Netron's view asks whether to cancel it, and takes the focus.
    async message(text, alert, ...more) {
      return alert ? super.message(text, alert, ...more) : new Promise(() => {});
    }

    openURL(url) {
      window.open(url, "", "noopener"); // in this frame it would take the graph's place
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
      if (name === "fullscreen") window.parent.postMessage({ type: "screen" }, "*");
    }

    async open({ name, model, metadata }) {
      this.#metadata = metadata;
      document.title = name;
      const opened = await this._view.open({
        identifier: "model.onnx", // the name decides which reader is tried; the title is the name
        stream: new BinaryStream(new Uint8Array(model)),
        asset: (file) => this.asset(file),
        fetch: (file) => this.fetch(file),
        require: (id) => this.require(id),
        error: (error) => this.exception(error),
      });
      if (!opened) throw new Error("Netron found no model in the file.");
    }

    // What is on the screen, as Netron's own SVG export writes it.
    async picture() {
      const target = document.getElementById("target");
      const { scrollLeft, scrollTop } = target;
      const svg = new Promise((resolve) => (this.#picture = resolve));
      try {
        await this._view.export("picture.svg");
      } finally {
        this.#picture = null;
      }
      target.scrollTo({ left: scrollLeft, top: scrollTop, behavior: "instant" });
      return svg;
    }
  };

  // Boxes say more than Netron writes into them: `words` of a node as a last line, and `constant`,
  // the value of a weight by its name, in place of its shape.
  exports.fill = ({ words, constant }) => {
    const [buildNode, buildArgument] = [Node.prototype.build, Argument.prototype.build];
    Node.prototype.build = function (...args) {
      const said = words(this.value);
      if (said) {
        const list = this.blocks.find(({ argument }) => argument) ?? this.list();
        list.on("click", () => this.context.activate(this.value, "target"));
        list.add(list.argument("", said));
      }
      return buildNode.apply(this, args);
    };
    Argument.prototype.build = function (...args) {
      const said = constant(this.value?.value?.[0]?.name);
      if (said) Object.assign(this, { separator: " = ", content: said });
      else this.content = this.content.replace?.(/^\u3008(.*)\u3009$/, "  $1") ?? this.content; // few fonts have these
      return buildArgument.apply(this, args);
    };
  };

  // The other names of netron 9 that are not its interface.
  exports.inner = {
    drawn: (graph) => graph?._table ?? [], // [value, shape] of each node
    choose: (graph, shape) => graph._selection.add(shape),
    sidebar: (view) => view._sidebar,
    depth: (view) => view._sidebar._stack?.length ?? 0, // of what the sidebar shows
    back: (view) => view._sidebar._update(view._sidebar._stack.slice(0, -1)),
    closeMenu: (view) => view._menu.close(),
    draws: ["refresh", "_updatePath"], // the methods of a view that draw anew
    // Netron's own zoom stops at the height of a graph that is wide and low.
    zoom: (graph, zoom) => {
      const canvas = document.getElementById("canvas");
      for (const side of ["width", "height"]) {
        canvas.style[side] = `${zoom * canvas.getAttribute(side)}px`;
      }
      graph._zoom = zoom;
    },
    forgetScroll: (graph) => {
      delete graph._scrollLeft;
      delete graph._scrollTop;
    },
  };
});
