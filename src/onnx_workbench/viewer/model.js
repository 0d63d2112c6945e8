// What a widget asks of its model, for a page without a kernel; `say` tells those who listen.
const makeModel = (traits) => {
  const ears = new Map();
  const say = (event, ...args) => [...(ears.get(event) ?? [])].forEach((act) => act(...args));
  return {
    say,
    get: (name) => traits[name],
    set: (name, value) => {
      traits[name] = value;
      say(`change:${name}`);
    },
    save_changes: () => say("saved"),
    on: (event, act) => ears.set(event, (ears.get(event) ?? new Set()).add(act)),
    off: (event, act) => ears.get(event)?.delete(act),
  };
};
