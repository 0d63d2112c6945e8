// Stands for the kernel in a file that view.save() wrote: `saved` holds the traits and the graphs.
const kernel = (saved) => {
  const ears = new Map();
  const say = (event, ...args) => [...(ears.get(event) ?? [])].forEach((act) => act(...args));
  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const { _sent: first, whole } = saved.graphs;
  saved.traits._sent = { ...first, parts: first.parts.map(bytes), page: bytes(first.page) };
  return {
    get: (name) => saved.traits[name],
    set: (name, value) => {
      saved.traits[name] = value;
      say(`change:${name}`);
    },
    save_changes: () => {},
    on: (event, act) => ears.set(event, (ears.get(event) ?? new Set()).add(act)),
    off: (event, act) => ears.get(event)?.delete(act),
    send: async ({ ask, id }) => {
      await null; // an answer never comes before the question has been asked to its end
      if (ask) say("msg:custom", { ...whole, id }, whole.parts.map(bytes));
    },
  };
};

render({ model: kernel(saved), el: document.querySelector("main") });
