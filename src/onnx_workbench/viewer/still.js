// A cell has the static picture in an output of its own, before the widget's (still.py). It is hidden
// while the widget is there. Returns what ends that; the widget is in the page only after `render`.
const cover = (el) => {
  let picture;
  const observer = new ResizeObserver(() => {
    observer.disconnect();
    picture = pictureBefore(el);
    if (picture) picture.style.display = "none";
  });
  observer.observe(el);
  return () => {
    observer.disconnect();
    if (picture) picture.style.display = "";
  };
};

// Children that are false or empty are left out.
const make = (name, { style = {}, data = {}, ...rest } = {}, ...children) => {
  const element = Object.assign(document.createElement(name), rest);
  Object.assign(element.dataset, data);
  for (const [key, value] of Object.entries(style)) element.style.setProperty(key, value);
  element.append(...children.filter(Boolean));
  return element;
};

// The element before this one, or before one that it is in, which holds our picture and nothing else.
const pictureBefore = (el) => {
  for (let at = el; at; at = at.parentElement) {
    const output = at.previousElementSibling;
    const picture = output?.querySelector('img[src*="ow-still"], svg.ow-still');
    if (picture && picture.textContent.trim() === output.textContent.trim()) return output;
  }
};
