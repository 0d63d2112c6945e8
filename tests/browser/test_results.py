"""What results, errors, plots and progress bars look like in JupyterLab, and once saved."""

from __future__ import annotations

import pytest

from .conftest import at_rest, expect, until

pytestmark = pytest.mark.browser

CELLS = """\
import os, time, torch, onnx_workbench as ow
from pathlib import Path
from onnx import parser
from onnx_workbench import formatting, plots, progress
class Step(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x
ow.view(parser.parse_model(
    '<ir_version: 10, opset_import: ["": 20]> half (float[2] x) => (float[2] y) { y = Relu(x) }'))
===
class Found(formatting.Report):
    def _parts(self):
        code = formatting.Code("mixed = self.attention(query, key, value) " * 5)
        yield "A finding. " * 40
        yield formatting.Table(
            [(code, "A reason. " * 40, formatting.Percent(0.5))], ("line", "why", "share"))
Found()
===
plots.blocks({"eager": [4e-3, 5e-3], "fast": [2e-3, 3e-3]}, title="fast is 2x as fast as eager")
===
os.environ.pop("TQDM_DISABLE", None)
with progress.bar("audit", total=600) as step:
    while not Path("seen").exists():
        step("contract")
        with progress.bar("probe") as inner:
            inner()
        time.sleep(0.1)
print("done")
===
ow.capture(Step().eval(), torch.ones(3))"""
BAR, ERROR = 3, 4

# Of the outputs of a cell that take room.
HEIGHTS = """at => [...jupyterapp.shell.currentWidget.content.widgets[at].outputArea.node.children]
  .filter(child => !child.matches(".jp-OutputArea-promptOverlay") && child.offsetHeight)
  .map(child => child.offsetHeight)"""
# A page that is loaded now, and hears of no end, hides the bar. Each step draws a new element.
HIDES_BY_ITSELF = """() => {
  const bar = document.querySelector(".ow-progress");
  const [animation] = bar?.getAnimations() ?? [];
  animation?.finish();
  return animation && bar.offsetHeight === 0;
}"""


@pytest.fixture(scope="module")
def opened(open_cells, kernel):
    return open_cells(CELLS, kernel)


@pytest.fixture
def notebook(opened, lab):
    """With outputs, whichever test is the first."""
    if not opened.outputs(ERROR):
        (lab.folder / "seen").touch()
        opened.run_all()
    return opened


def test_one_bar_shows_then_nothing_is_left_and_neither_in_the_saved_notebook(opened, lab):
    notebook, page, bar = opened, opened.page, opened.page.locator(".ow-progress")
    (lab.folder / "seen").unlink(missing_ok=True)
    notebook.do("notebook:clear-all-cell-outputs")
    page.evaluate("() => void jupyterapp.commands.execute('notebook:run-all-cells')")
    bar.first.wait_for()  # visible, beside a view and its style
    expect(bar).to_have_count(1)
    page.wait_for_function("() => document.querySelector('.ow-progress')?.offsetHeight > 10")
    expect(bar).to_contain_text("contract")
    page.wait_for_function(HIDES_BY_ITSELF)
    (lab.folder / "seen").touch()
    page.get_by_text("CaptureError: Step could not").wait_for()
    expect(bar).to_have_count(0)
    page.wait_for_function(f"at => ({HEIGHTS})(at).length === 1", arg=BAR)
    (printed,) = page.evaluate(HEIGHTS, BAR)
    assert notebook.outputs(BAR)[0]["data"] == {}
    notebook.save()
    notebook.open_again()
    page.get_by_text("CaptureError: Step could not").wait_for()
    same = f"([at, high]) => String(({HEIGHTS})(at)) === String(high)"
    page.wait_for_function(same, arg=[BAR, printed])


def test_error_is_a_few_lines(notebook):
    notebook.page.wait_for_function(f"at => ({HEIGHTS})(at)[0] < 400", arg=ERROR)
    outputs = notebook.page.locator(".jp-OutputArea-output")
    text = outputs.filter(has_text="CaptureError: Step could not").inner_text()
    assert "----> 7         if x.sum() > 0:" in text
    assert text.rstrip().endswith("%tb")


@pytest.mark.parametrize(("theme", "width"), [("Dark", 800), ("Light", 1280)])
def test_nothing_is_cut_and_everything_reads(notebook, width, theme):
    page = notebook.page
    page.set_viewport_size({"width": width, "height": 1000})
    notebook.do("apputils:change-theme", theme=f"JupyterLab {theme}")
    light = str(theme == "Light").lower()
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
    table = page.locator(".jp-RenderedHTMLCommon table").first
    box = table.locator("xpath=..")
    output = page.locator(".jp-OutputArea-output").filter(has=page.locator("table")).first
    until(page, lambda: output.evaluate("output => output.scrollWidth <= output.clientWidth"))
    assert box.evaluate("box => box.scrollWidth > box.clientWidth"), "long code scrolls in its box"
    code, why = table.locator("td").nth(0), table.locator("td").nth(1)
    assert at_rest(code.locator("code"))["height"] < 30, "code does not wrap"
    assert at_rest(why)["height"] > 30, "prose does"
    plot = page.locator(".jp-RenderedImage img").first
    expect(plot).to_have_css("background-color", "rgba(0, 0, 0, 0)")  # no card behind the plot
    until(page, lambda: at_rest(plot)["width"] <= at_rest(output)["width"])
