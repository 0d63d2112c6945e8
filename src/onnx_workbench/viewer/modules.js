// A registry in place of the browser's module loader: the frame is one inline script, because a
// notebook page may forbid `blob:` and `data:` scripts (VS Code does). frontend.py wraps each of
// netron's modules in `modules.define("name", (exports) => { ... })`.
const modules = (function registry() {
  const factories = new Map();
  const loaded = new Map();
  const name = (id) => id.replace(/^\.\//, "").replace(/\.js$/, "");
  const load = (id) => {
    const key = name(id);
    if (!loaded.has(key)) {
      if (!factories.has(key)) throw new Error(`The module '${key}' is not part of this page.`);
      const exports = {};
      loaded.set(key, exports);
      factories.get(key)(exports);
    }
    return loaded.get(key);
  };
  return {
    define: (id, factory) => factories.set(id, factory),
    has: (id) => factories.has(name(id)),
    load,
    import: async (id) => load(id),
    // The same registry with a few modules, as the source of a worker that runs the last of them.
    worker: (...ids) =>
      `const modules = (${registry})();` +
      ids.map((id) => `modules.define("${id}", ${factories.get(id)});`).join("") +
      `modules.load("${ids.at(-1)}");`,
  };
})();
