// A pad: strokes are drawn as SVG in the text color of the page, so that both themes fit.
// What the reader gets is made as the data was: the drawing fitted to the frame, then averaged
// over 8 x 8 cells.

const SIDE = 8;
const BRUSH = 1.15; // width of a stroke, in cells; as thick as in the data
const FINE = 12; // sub-pixels a cell when a drawing is averaged
const PAUSE = 40; // ms between two readings while the hand moves
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const range = (count) => [...Array(count).keys()];
const inside = (at) => Math.min(SIDE - 1, Math.max(0, at));
const cells = range(SIDE * SIDE)
  .map((at) => `<rect x="${at % SIDE}" y="${Math.floor(at / SIDE)}" width="1" height="1"/>`)
  .join("");
const grid = (label, more = "") =>
  `<svg viewBox="0 0 ${SIDE} ${SIDE}" role="img" aria-label="${label}" ${more}><g>${cells}</g>`;

// No text of a model or of a reader is in this markup.
const PAGE = `
  <div>
    ${grid("Draw a digit: mouse or finger, or arrow keys with Shift held", 'class="ow-pad-paper" tabindex="0"')}
      <g class="ow-pad-ink"></g><rect class="ow-pad-cursor" x="3" y="3" width="1" height="1"/></svg>
    <div><button type="button">Clear</button><button type="button">A real one</button></div>
  </div>
  <div>
    <div class="ow-pad-head">
      <div class="ow-pad-small">${grid("the 8 by 8 pixels that the reader gets")}</svg></div>
      <div class="ow-pad-says" aria-live="polite"></div>
    </div>
    <div class="ow-pad-bars">
      ${range(10).map((digit) => `<div><span>${digit}</span><span><i></i></span><span></span></div>`).join("")}
    </div>
  </div>`;

const fill = (svg, pixels) =>
  [...svg.firstElementChild.children].forEach((cell, at) => cell.setAttribute("fill-opacity", pixels[at] ?? 0));

/** Where the strokes end up when their box is centered and fills the frame. */
function fitted(strokes) {
  const points = strokes.flat();
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const scale = (SIDE - BRUSH) / Math.max(right - left, bottom - top, 1);
  const place = (at, low, high) => (at - (low + high) / 2) * scale + SIDE / 2;
  return strokes.map((stroke) => stroke.map(([x, y]) => [place(x, left, right), place(y, top, bottom)]));
}

/** Strokes -> 64 gray values in [0, 1]. */
function averaged(strokes) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE * FINE, height: SIDE * FINE });
  const pen = canvas.getContext("2d");
  pen.scale(FINE, FINE);
  Object.assign(pen, { lineWidth: BRUSH, lineCap: "round", lineJoin: "round" });
  for (const stroke of fitted(strokes)) {
    const [x, y] = stroke[0];
    pen.beginPath();
    pen.moveTo(x - 0.001, y); // a canvas draws no line without a length, and so no dot
    for (const point of stroke) pen.lineTo(...point);
    pen.stroke();
  }
  const ink = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  const pixels = new Array(SIDE * SIDE).fill(0);
  for (const at of range(canvas.width * canvas.height)) {
    const [x, y] = [at % canvas.width, Math.floor(at / canvas.width)];
    pixels[Math.floor(y / FINE) * SIDE + Math.floor(x / FINE)] += ink[4 * at + 3] / 255 / FINE ** 2;
  }
  return pixels;
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
  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = svg.getBoundingClientRect();
    return [(SIDE * (clientX - left)) / width, (SIDE * (clientY - top)) / height];
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

  svg.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault(); // the notebook has uses of its own for arrows and space
    event.stopPropagation();
    const before = [column + 0.5, row + 0.5];
    if (!step) return add(before, true);
    [column, row] = [inside(column + step[0]), inside(row + step[1])];
    cursor.setAttribute("x", column);
    cursor.setAttribute("y", row);
    if (!event.shiftKey) return;
    if (String(strokes.at(-1)?.at(-1)) !== String(before)) add(before, true);
    add([column + 0.5, row + 0.5], false);
  });
}

function render({ model, el }) {
  el.classList.add("ow-pad");
  el.innerHTML = PAGE;
  const [paper, lines, cursor, small, says] = ["paper", "ink", "cursor", "small svg", "says"].map((name) =>
    el.querySelector(`.ow-pad-${name}`),
  );
  const [clear, other] = el.querySelectorAll("button");
  const bars = [...el.querySelector(".ow-pad-bars").children];
  const [strokes, samples] = [[], model.get("samples")];
  let sample = 0;
  let timer = null;

  const put = (pixels) => {
    model.set("pixels", pixels);
    model.save_changes();
  };
  const read = () => {
    timer = null;
    if (strokes.length) put(averaged(strokes));
  };
  const paint = () => {
    fill(paper, []);
    lines.innerHTML = strokes
      .map((stroke) => (stroke.length > 1 ? stroke : [...stroke, ...stroke]).map((point) => point.join()).join(" "))
      .map((points) => `<polyline points="${points}" stroke-width="${BRUSH}"/>`)
      .join("");
    timer ??= setTimeout(read, PAUSE);
  };
  const show = (pixels) => {
    strokes.length = 0;
    lines.replaceChildren();
    fill(paper, pixels);
    put(pixels);
  };
  const showAnswer = () => {
    const empty = !model.get("pixels").some((value) => value > 0);
    const [shares, error] = [empty ? [] : model.get("probabilities"), model.get("error")];
    const best = shares.indexOf(Math.max(...shares));
    bars.forEach((bar, digit) => {
      bar.querySelector("i").style.width = `${100 * (shares[digit] ?? 0)}%`;
      bar.lastElementChild.textContent = shares.length ? `${Math.round(100 * shares[digit])} %` : "";
      bar.classList.toggle("ow-pad-best", digit === best);
    });
    says.textContent = error || (empty ? "Draw a digit" : `reads ${best}`);
    says.classList.toggle("ow-pad-error", Boolean(error));
  };
  const showPixels = () => {
    fill(small, model.get("pixels"));
    showAnswer();
  };

  listen(paper, cursor, strokes, paint);
  clear.onclick = () => show(new Array(SIDE * SIDE).fill(0));
  other.onclick = () => show(samples[(sample = (sample + 1) % samples.length)]);
  fill(paper, model.get("pixels"));
  showPixels();
  const heard = { pixels: showPixels, probabilities: showAnswer, error: showAnswer };
  for (const [name, act] of Object.entries(heard)) model.on(`change:${name}`, act);
  const uncover = cover(el);
  return () => {
    uncover();
    clearTimeout(timer);
    for (const [name, act] of Object.entries(heard)) model.off(`change:${name}`, act);
  };
}

export default { render };
