// Netron's host, made for a notebook cell, and whatever else of netron 9 is private: no other file
// uses such a name. frontend.py refuses a netron that lacks one of them.
modules.define("cell", (exports) => {
  "use strict";
  const { Host } = modules.load("browser");
  const { BinaryStream } = modules.load("base");

  exports.CellHost = class extends Host {
    #metadata = "[]";
    #picture = null;

    // Netron's browser host checks its age, asks for consent and reports home here.
    async view(view) {
      this._view = view;
    }

    async start() {
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
      const target = document.getElementById("target");
      const { scrollLeft, scrollTop } = target;
      const svg = new Promise((resolve) => (this.#picture = resolve));
      await this._view.export("picture.svg");
      target.scrollTo({ left: scrollLeft, top: scrollTop, behavior: "instant" });
      this.#picture = null;
      return svg;
    }
  };

  exports.inner = {
    drawn: (graph) => graph?._table ?? [], // [value, shape] of each node
    choose: (graph, shape) => graph._selection.add(shape),
    forgetScroll: (graph) => {
      delete graph._scrollLeft;
      delete graph._scrollTop;
    },
    sidebar: (view) => (view._sidebar._stack?.length ? view._sidebar : null),
    draws: ["refresh", "_updatePath"], // the methods of a view that draw anew
  };
});
