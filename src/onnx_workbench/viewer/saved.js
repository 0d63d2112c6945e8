// Stands for the kernel in a file that view.save() wrote: `saved` holds the traits and the answers.
const kernel = (saved) => {
  const ears = new Map();
  const say = (event, ...args) => [...(ears.get(event) ?? [])].forEach((act) => act(...args));
  const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  return {
    get: (name) => saved.traits[name],
    set: (name, value) => {
      saved.traits[name] = value;
      say(`change:${name}`);
    },
    save_changes: () => {},
    on: (event, act) => ears.set(event, (ears.get(event) ?? new Set()).add(act)),
    off: (event, act) => ears.get(event)?.delete(act),
    send: async ({ ask, id, whole }) => {
      const [content, parts] = saved.answers[whole ? "whole" : ask] ?? [];
      await null; // an answer never comes before the question has been asked to its end
      if (parts) say("msg:custom", { ...content, id }, parts.map(bytes));
    },
  };
};

render({ model: kernel(saved), el: document.querySelector("main") });
