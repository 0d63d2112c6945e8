// Stands for the kernel in a file that save() wrote: of each view `saved` holds the traits, the graph
// and the nodes that a choice in it marks in the other one.
const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
const page = new Map([["packed", bytes(saved.page)]]);
const widget_manager = { get_model: async () => page };

const kernel = ({ traits, sent, whole }) => {
  const model = makeModel({ ...traits, _page: "", _sent: { ...sent, parts: sent.parts.map(bytes) } });
  const send = async ({ ask, id }) => {
    await null; // answer asynchronously, as a kernel does
    if (ask) model.say("msg:custom", { id }, [bytes(whole)]);
  };
  return { ...model, widget_manager, send };
};

const models = saved.views.map(kernel);
models.forEach((model, at) => {
  const { related = {} } = saved.views[at];
  model.on("saved", () => {
    const marked = model.get("marked");
    const names = (marked.length ? marked : [model.get("_open")]).flatMap((name) => related[name] ?? []);
    models[1 - at]?.set("marked", [...new Set(names)]);
  });
  const el = document.body.appendChild(document.createElement("main"));
  render({ model, el });
});
