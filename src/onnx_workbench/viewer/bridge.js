// The view in the notebook page: one sandboxed frame, and what goes between it and the kernel.
// Kernel: {ask: "model" | "page"} is answered in a custom message with the same id.
// Frame: see frame.js. Only messages of our own frame are heard.

// Front-ends that this page already has, by their key: several views share one transfer.
const pages = (globalThis[Symbol.for("onnx-workbench.netron")] ??= new Map());

const SANDBOX = "allow-scripts allow-downloads allow-popups";
const PATIENCE = 20000; // ms until a silent kernel or frame is given up
const STYLE = `
  .ow-netron { position: relative; overflow: hidden; resize: vertical; box-sizing: border-box;
    border: 1px solid var(--jp-border-color2, #d0d7de); border-radius: 6px; min-height: 160px; }
  .ow-netron iframe { position: absolute; inset: 0; width: 100%; height: 100%; border: 0;
    opacity: 0; transition: opacity .15s; }
  .ow-netron.drawn iframe { opacity: 1; }
  .ow-netron .ow-still { max-width: 100%; display: block; margin: 8px auto;
    animation: ow-appear .3s 1.2s both; }
  @keyframes ow-appear { from { opacity: 0; } }
  .ow-netron.drawn .ow-still, .ow-netron.drawn .ow-note { display: none; }
  .ow-netron .ow-note { position: absolute; left: 12px; bottom: 8px; padding: 2px 8px; z-index: 1;
    font: 12px var(--jp-ui-font-family, sans-serif); border-radius: 4px; color: #57606a;
    background: #ffffffe0; }
  .ow-netron.still { overflow: auto; background: #fff; }
  .ow-netron.still iframe { display: none; }`;

const tag = (name, attributes) => Object.assign(document.createElement(name), attributes);

const ask = (model, question, signal) =>
  new Promise((resolve, reject) => {
    const id = Math.random().toString(36).slice(2);
    const done = (settle, value) => {
      model.off("msg:custom", hear);
      clearTimeout(timer);
      settle(value);
    };
    const hear = (content, buffers) => {
      if (content.id === id) content.why ? done(reject, new Error(content.why)) : done(resolve, { content, buffers });
    };
    const timer = setTimeout(
      () => done(reject, new Error("No kernel answers: run this cell to see Netron.")), PATIENCE);
    signal.addEventListener("abort", () => done(reject, new Error("closed")));
    model.on("msg:custom", hear);
    model.send({ ask: question, id });
  });

const inflate = (buffer) =>
  new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip")));

const page = async (model, key, signal) => {
  if (!pages.has(key)) {
    const coming = ask(model, "page", signal).then(({ buffers }) => inflate(buffers[0]).text());
    coming.catch(() => pages.delete(key)); // whoever waits asks again for itself
    pages.set(key, coming);
  }
  return pages.get(key).catch((error) => {
    if (error.message !== "closed" || signal.aborted) throw error;
    return page(model, key, signal);
  });
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
  signal.addEventListener("abort", () => observer.disconnect());
};

function render({ model, el }) {
  const life = new AbortController();
  const { signal } = life;
  const box = tag("div", { className: "ow-netron" });
  const note = tag("div", { className: "ow-note", textContent: "Loading Netron…" });
  const still = tag("img", { className: "ow-still", alt: model.get("_summary") });
  still.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(model.get("_picture"))}`;
  const frame = tag("iframe", { title: "Netron" });
  frame.sandbox = SANDBOX;
  box.style.height = `${model.get("height")}px`;
  box.append(still, note);
  el.append(tag("style", { textContent: STYLE }), box);

  const give_up = (error) => {
    if (signal.aborted) return;
    note.textContent = error.message;
    box.classList.add("still");
    box.classList.remove("drawn");
    frame.remove();
  };
  const tell = (message) => frame.contentWindow?.postMessage(message, "*");
  const theme = () => tell({ type: "theme", dark: isDark(el) });
  let opened = null;
  let patience = 0;

  const hears = {
    // Again whenever the notebook moves the frame, which loads it anew.
    ready: () => { theme(); tell({ type: "open", ...opened }); },
    drawn: ({ height }) => {
      clearTimeout(patience);
      box.style.height = `${Math.min(model.get("height"), Math.max(220, height))}px`;
      box.classList.add("drawn");
    },
    picture: ({ svg }) => model.send({ picture: String(svg) }),
    activate: ({ name }) => { model.set("selected", String(name)); model.save_changes(); },
    failed: ({ why }) => give_up(new Error(`Netron could not draw this model: ${why}`)),
  };
  window.addEventListener("message", ({ source, data }) => {
    if (source && source === frame.contentWindow) hears[data?.type]?.(data);
  }, { signal });
  followTheme(el, theme, signal);

  (async () => {
    const { content, buffers } = await ask(model, "model", signal);
    opened = {
      name: content.name,
      model: await inflate(buffers[0]).arrayBuffer(),
      metadata: await inflate(buffers[1]).text(),
    };
    frame.srcdoc = await page(model, content.page, signal);
    if (signal.aborted) return;
    box.append(frame);
    patience = setTimeout(() => give_up(new Error("Netron did not start in this page.")), PATIENCE);
  })().catch(give_up);

  return () => life.abort();
}

export default { render };
