// What the saved page adds to its HTML. floors.js stands before it, where the model came far enough
// to have floors: `saved`, `model` and `render` are its names.

const [SOURCE_FLOOR, ONNX_FLOOR] = [0, 4];

for (const button of document.querySelectorAll(".copy")) {
  const repair = button.parentElement.querySelector("span");
  button.hidden = false;
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(repair.textContent);
      button.textContent = "Copied";
    } catch { // a page from a file may not have the clipboard: select the text instead
      getSelection().selectAllChildren(repair);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };
}

addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});

const place = document.querySelector(".live");
if (place) {
  render({ model, el: place });
  const boxes = [...document.querySelectorAll("a[data-rows]")];
  const rowsOf = (box) => box.dataset.rows.split(" ").map(Number);

  const choose = (floor, rows, event) => {
    event.preventDefault();
    model.set("chosen", [floor, ...rows]);
    place.scrollIntoView({ block: "nearest" });
  };
  for (const box of boxes) {
    box.addEventListener("click", (event) => choose(ONNX_FLOOR, rowsOf(box), event));
  }
  for (const link of document.querySelectorAll("a[data-row]")) {
    const rows = [Number(link.dataset.row)];
    link.addEventListener("click", (event) => choose(SOURCE_FLOOR, rows, event));
  }

  const mark = () => {
    const [floor, ...rows] = model.get("chosen");
    const wanted = new Set(rows);
    const links = saved._sheet.links.filter((link) => wanted.has(link[floor]));
    const lit = new Set(links.map((link) => link[ONNX_FLOOR]));
    for (const box of boxes) {
      const marked = rowsOf(box).some((row) => lit.has(row));
      box.classList.toggle("lit", marked);
      if (marked) box.setAttribute("aria-current", "true");
      else box.removeAttribute("aria-current");
    }
  };
  model.on("change:chosen", mark);
  mark();
}
