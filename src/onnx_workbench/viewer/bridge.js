// The view in the notebook page: one sandboxed frame, and what goes between it and the kernel.
// Kernel: {ask: "model" | "page"} is answered in a custom message with the same id.
// Frame: see frame.js. Only messages of our own frame are heard.

// Front-ends that this page already has, by their key: several views share one transfer.
const pages = (globalThis[Symbol.for("onnx-workbench.netron")] ??= new Map());

const SANDBOX = "allow-scripts allow-downloads allow-popups";
const PATIENCE = 20000; // ms until silence is remarked upon
const STYLE = `
  .ow-netron { position: relative; overflow: hidden; resize: vertical; box-sizing: border-box;
    border: 1px solid var(--jp-border-color2, #d0d7de); border-radius: 6px; min-height: 160px; }
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
  .ow-netron.still { overflow: auto; background: #fff; }
  .ow-netron.still .ow-note { position: static; padding: 10px 14px 2px; }
  .ow-netron.still iframe { display: none; }`;

const tag = (name, attributes) => Object.assign(document.createElement(name), attributes);

// The answer may take long: a kernel that runs a cell answers after it.
const ask = (model, question, signal) =>
  new Promise((resolve, reject) => {
    const id = Math.random().toString(36).slice(2);
    const done = (settle, value) => {
      model.off("msg:custom", hear);
      settle(value);
    };
    const hear = (content, buffers) => {
      if (content.id !== id) return;
      if (content.why) done(reject, new Error(content.why));
      else done(resolve, { content, buffers });
    };
    signal.addEventListener("abort", () => done(reject, new Error("closed")));
    model.on("msg:custom", hear);
    model.send({ ask: question, id });
  });

const inflate = (buffer) =>
  new Response(new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip")));

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const page = async (model, key, signal) => {
  if (pages.has(key)) {
    const text = await Promise.race([pages.get(key).catch(() => null), sleep(PATIENCE)]);
    if (text) return text; // else the view that asked was closed, or its kernel is gone
  }
  const coming = ask(model, "page", signal).then(({ buffers }) => inflate(buffers[0]).text());
  pages.set(key, coming);
  return coming;
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
  const note = tag("div", { className: "ow-note", textContent: "Loading Netron\u2026" });
  const still = tag("img", { className: "ow-still", alt: model.get("_summary") });
  still.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(model.get("_picture"))}`;
  const frame = tag("iframe", { title: "Netron" });
  frame.sandbox = SANDBOX;
  box.style.height = `${model.get("height")}px`;
  box.append(note, still);
  el.append(tag("style", { textContent: STYLE }), box);

  let waiting;
  const wait = (remark) => (waiting = setTimeout(remark, PATIENCE));
  const standStill = (sentence) => {
    note.textContent = sentence;
    box.classList.add("still");
    box.classList.remove("drawn");
  };
  const giveUp = (error) => {
    clearTimeout(waiting);
    frame.remove();
    standStill(error.message);
  };
  const tell = (message) => frame.contentWindow?.postMessage(message, "*");
  const theme = () => tell({ type: "theme", dark: isDark(el) });

  const show = async () => {
    wait(() => standStill("The kernel is busy or gone: Netron comes when it answers."));
    const { content, buffers } = await ask(model, "model", signal);
    const opened = {
      type: "open",
      name: content.name,
      model: await inflate(buffers[0]).arrayBuffer(),
      metadata: await inflate(buffers[1]).text(),
    };
    frame.srcdoc = await page(model, content.page, signal);
    clearTimeout(waiting);
    signal.throwIfAborted();
    box.classList.remove("still");
    box.append(frame);
    wait(() => giveUp(new Error("Netron did not start here, so this is a static picture.")));
    return opened;
  };
  const coming = show();
  coming.catch((error) => signal.aborted || giveUp(error));

  const hears = {
    // Once more whenever the notebook moves the frame, which loads it anew.
    ready: async () => {
      clearTimeout(waiting);
      note.textContent = "Drawing\u2026";
      theme();
      tell(await coming);
    },
    drawn: ({ height }) => {
      box.style.height = `${Math.min(model.get("height"), Math.max(220, height))}px`;
      box.classList.add("drawn");
    },
    picture: ({ svg }) => model.send({ picture: String(svg) }),
    activate: ({ name }) => {
      model.set("selected", String(name));
      model.save_changes();
    },
    failed: ({ why }) => giveUp(new Error(`Netron could not draw this model: ${why}`)),
  };
  const hear = ({ source, data }) => {
    if (source && source === frame.contentWindow) hears[data?.type]?.(data);
  };
  window.addEventListener("message", hear, { signal });
  followTheme(el, theme, signal);

  return () => {
    clearTimeout(waiting);
    life.abort();
  };
}

export default { render };
