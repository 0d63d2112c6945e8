// Three lists beside each other. Everything that comes from a model is set as text, never as markup.

const STYLE = `
  .ow-columns { container-type: inline-size; color: var(--jp-ui-font-color1, #24292f); }
  .ow-columns > div { display: grid; grid-template-columns: 5fr 3fr 4fr; gap: 1px;
    border: 1px solid var(--jp-border-color2, #d0d7de); border-radius: 6px; overflow: hidden;
    background: var(--jp-border-color2, #d0d7de); }
  .ow-columns section { background: var(--jp-layout-color1, #fff); min-width: 0; display: flex;
    flex-direction: column; max-height: 420px; }
  .ow-columns h4 { margin: 0; padding: 5px 12px; font: 600 12px var(--jp-ui-font-family, sans-serif);
    background: var(--jp-layout-color2, #f6f8fa); }
  .ow-columns ol { margin: 0; padding: 4px 0; list-style: none; overflow: auto; position: relative;
    font: 12px/1.6 var(--jp-code-font-family, ui-monospace, monospace); }
  .ow-columns li > * { display: flex; gap: 1em; width: 100%; min-width: max-content; border: 0;
    box-sizing: border-box; padding: 0 12px; background: none; color: inherit; font: inherit;
    white-space: pre; text-align: left; border-left: 3px solid transparent; }
  .ow-columns i { font-style: normal; opacity: .6; user-select: none; }
  .ow-columns section:not(:first-child) i:empty { display: none; }
  .ow-columns section:first-child i { min-width: 2.4em; text-align: right; }
  .ow-columns .title { opacity: .6; }
  .ow-columns button { cursor: pointer; }
  .ow-columns button:hover { background: var(--jp-layout-color2, #eaeef2); }
  .ow-columns button:focus-visible { outline: 2px solid var(--jp-brand-color1, #1976d2);
    outline-offset: -2px; }
  .ow-columns .marked { background: #d4a72c38; border-left-color: #d4a72c; }
  .ow-columns [aria-pressed=true] { border-left-color: #bf8700; font-weight: 700; }
  @container (max-width: 620px) {
    .ow-columns > div { grid-template-columns: 1fr; }
    .ow-columns section { max-height: 200px; }
  }`;

const make = (name, attributes, ...children) => {
  const element = Object.assign(document.createElement(name), attributes);
  element.append(...children);
  return element;
};

const render = ({ model, el }) => {
  const { columns, links } = model.get("_sheet");
  const buttons = columns.map(() => new Map());
  const lists = columns.map((rows, column) => make("ol", {}, ...rows.map(([key, margin, text]) => {
    const parts = [make("i", { textContent: margin }), make("span", { textContent: text })];
    if (key < 0) return make("li", {}, make("div", { className: margin === "" ? "title" : "" }, ...parts));
    const button = make("button", { type: "button", onclick: () => choose(column, key) }, ...parts);
    buttons[column].set(key, button);
    return make("li", {}, button);
  })));

  const choose = (column, key) => {
    const [before, row] = model.get("chosen");
    model.set("chosen", before === column && row === key ? [] : [column, key]);
    model.save_changes();
  };

  const show = () => {
    const [column, key] = model.get("chosen");
    const hits = links.filter((link) => key >= 0 && link[column] === key);
    buttons.forEach((of, other) => {
      const marked = new Set(hits.map((link) => link[other]));
      let first = null;
      for (const [row, button] of of) {
        const pressed = other === column && row === key;
        button.classList.toggle("marked", marked.has(row) || pressed);
        button.setAttribute("aria-pressed", pressed);
        if (marked.has(row)) first ??= button;
      }
      const list = lists[other];
      const below = first ? first.offsetTop - list.scrollTop : 0;
      if (below < 0 || below > list.clientHeight - 20) list.scrollTop += below - list.clientHeight / 3;
    });
  };

  const titles = ["Source", "FX", "ONNX"];
  const sections = lists.map((list, i) => {
    list.ariaLabel = titles[i];
    return make("section", {}, make("h4", { textContent: titles[i] }), list);
  });
  el.classList.add("ow-columns");
  el.append(make("style", { textContent: STYLE }), make("div", {}, ...sections));
  model.on("change:chosen", show);
  requestAnimationFrame(show); // when it stands in the page, and can be scrolled
  return () => model.off("change:chosen", show);
};

export default { render };
