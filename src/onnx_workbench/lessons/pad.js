// A pad: strokes are drawn as SVG in the text colour of the page, so that both themes fit.
// What the reader gets is made as the data was: the drawing fitted to the frame, then averaged
// over 8 x 8 cells.

const SIDE = 8;
const BRUSH = 1.15; // width of a stroke, in cells; as thick as in the data
const FINE = 12; // sub-pixels a cell when a drawing is averaged
const PAUSE = 40; // ms between two readings while the hand moves

const SVG = "http://www.w3.org/2000/svg";

function make(parent, name, attributes = {}, text = "") {
  const svg = ["svg", "g", "rect", "path", "polyline"].includes(name);
  const node = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text) node.textContent = text;
  parent.append(node);
  return node;
}

/** Where the strokes end up when their box is centred and fills the frame. */
function fitted(strokes) {
  const points = strokes.flat();
  const [xs, ys] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const box = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const span = Math.max(box[1] - box[0], box[3] - box[2], 1);
  const scale = (SIDE - BRUSH) / span;
  const [cx, cy] = [(box[0] + box[1]) / 2, (box[2] + box[3]) / 2];
  return strokes.map((s) =>
    s.map(([x, y]) => [(x - cx) * scale + SIDE / 2, (y - cy) * scale + SIDE / 2]),
  );
}

/** Strokes -> 64 grey values in [0, 1]. */
function averaged(strokes) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE * FINE;
  const pen = canvas.getContext("2d");
  pen.scale(FINE, FINE);
  Object.assign(pen, { lineWidth: BRUSH, lineCap: "round", lineJoin: "round" });
  for (const stroke of fitted(strokes)) {
    pen.beginPath();
    pen.moveTo(...stroke[0]);
    for (const point of stroke) pen.lineTo(...point);
    pen.stroke();
  }
  const ink = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  const cells = new Array(SIDE * SIDE).fill(0);
  for (let y = 0; y < canvas.height; y++)
    for (let x = 0; x < canvas.width; x++) {
      const cell = Math.floor(y / FINE) * SIDE + Math.floor(x / FINE);
      cells[cell] += ink[4 * (y * canvas.width + x) + 3] / 255 / FINE ** 2;
    }
  return cells;
}

function grid(parent, label) {
  const svg = make(parent, "svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img", "aria-label": label });
  const cells = make(svg, "g");
  for (let i = 0; i < SIDE * SIDE; i++)
    make(cells, "rect", { x: i % SIDE, y: Math.floor(i / SIDE), width: 1, height: 1 });
  const show = (pixels) =>
    [...cells.children].forEach((cell, i) => cell.setAttribute("fill-opacity", pixels[i] ?? 0));
  return { svg, cells, show };
}

/** Ten rows of digit, bar and percent. */
function bars(parent) {
  const table = make(parent, "div", { class: "ow-pad-bars" });
  const rows = [...Array(10).keys()].map((digit) => {
    const row = make(table, "div");
    make(row, "span", {}, String(digit));
    return { row, bar: make(make(row, "span"), "i"), percent: make(row, "span") };
  });
  return (probabilities) => {
    const best = probabilities.indexOf(Math.max(...probabilities));
    rows.forEach(({ row, bar, percent }, digit) => {
      const share = probabilities[digit] ?? 0;
      bar.style.width = `${100 * share}%`;
      percent.textContent = probabilities.length ? `${Math.round(100 * share)} %` : "";
      row.classList.toggle("ow-pad-best", digit === best);
    });
    return best;
  };
}

/** The notebook has uses of its own for arrows and space. */
function claim(event) {
  event.preventDefault();
  event.stopPropagation();
}

/** Strokes of the pointer and of the keys: `changed` hears of every new point. */
function listen(svg, cursor, strokes, changed) {
  let drawing = false;
  let [column, row] = [3, 3];
  const add = (point, fresh) => {
    if (fresh) strokes.push([]);
    strokes.at(-1).push(point);
    changed();
  };
  const place = (event) => {
    const box = svg.getBoundingClientRect();
    return [
      (SIDE * (event.clientX - box.left)) / box.width,
      (SIDE * (event.clientY - box.top)) / box.height,
    ];
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    event.preventDefault();
    svg.setPointerCapture(event.pointerId);
    drawing = true;
    add(place(event), true);
  });
  svg.addEventListener("pointermove", (event) => drawing && add(place(event), false));
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"])
    svg.addEventListener(end, () => (drawing = false));

  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  svg.addEventListener("keydown", (event) => {
    const here = () => [column + 0.5, row + 0.5];
    if (event.key in steps) {
      const before = here();
      column = Math.min(SIDE - 1, Math.max(0, column + steps[event.key][0]));
      row = Math.min(SIDE - 1, Math.max(0, row + steps[event.key][1]));
      cursor.setAttribute("x", column);
      cursor.setAttribute("y", row);
      if (!event.shiftKey) return claim(event);
      if (String(strokes.at(-1)?.at(-1)) !== String(before)) add(before, true);
      add(here(), false);
    } else if (event.key === " ") add(here(), true);
    else return;
    claim(event);
  });
}

function render({ model, el }) {
  el.classList.add("ow-pad");
  const left = make(el, "div", { class: "ow-pad-left" });
  const pad = grid(left, "Draw a digit: mouse or finger, or arrow keys with Shift held");
  pad.svg.classList.add("ow-pad-paper");
  pad.svg.setAttribute("tabindex", "0");
  const lines = make(pad.svg, "g", { class: "ow-pad-ink" });
  const cursor = make(pad.svg, "rect", { class: "ow-pad-cursor", x: 3, y: 3, width: 1, height: 1 });
  const buttons = make(left, "div");
  const clear = make(buttons, "button", { type: "button" }, "Clear");
  const other = make(buttons, "button", { type: "button" }, "A real one");
  const right = make(el, "div", { class: "ow-pad-right" });
  const head = make(right, "div", { class: "ow-pad-head" });
  const small = grid(make(head, "div", { class: "ow-pad-small" }), "the 8 by 8 pixels that the reader gets");
  const says = make(head, "div", { class: "ow-pad-says", "aria-live": "polite" });
  const probable = bars(right);

  const strokes = [];
  const samples = model.get("samples");
  let sample = 0;
  let timer = null;

  const put = (pixels) => {
    model.set("pixels", pixels);
    model.save_changes();
  };
  const drawn = () => {
    timer = null;
    if (strokes.length) put(averaged(strokes));
  };
  const paint = () => {
    pad.show([]);
    lines.replaceChildren();
    for (const stroke of strokes) {
      const points = (stroke.length > 1 ? stroke : [stroke[0], stroke[0]]).map((p) => p.join()).join(" ");
      make(lines, "polyline", { points, "stroke-width": BRUSH });
    }
    timer ??= setTimeout(drawn, PAUSE);
  };
  const showSample = (pixels) => {
    strokes.length = 0;
    lines.replaceChildren();
    pad.show(pixels);
    put(pixels);
  };
  const showPixels = () => {
    small.show(model.get("pixels"));
  };
  const showAnswer = () => {
    const best = probable(model.get("probabilities"));
    const empty = !model.get("pixels").some((value) => value > 0);
    says.textContent = model.get("error") || (empty ? "Draw a digit" : `reads ${best}`);
    says.classList.toggle("ow-pad-error", Boolean(model.get("error")));
  };

  listen(pad.svg, cursor, strokes, paint);
  clear.addEventListener("click", () => showSample(new Array(SIDE * SIDE).fill(0)));
  other.addEventListener("click", () => showSample(samples[(sample = (sample + 1) % samples.length)]));
  pad.show(model.get("pixels"));
  showPixels();
  showAnswer();
  model.on("change:pixels", showPixels);
  model.on("change:probabilities", showAnswer);
  model.on("change:error", showAnswer);
  return () => {
    clearTimeout(timer);
    model.off("change:pixels", showPixels);
    model.off("change:probabilities", showAnswer);
    model.off("change:error", showAnswer);
  };
}

export default { render };
