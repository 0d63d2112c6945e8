"""The view on pages that are stricter than JupyterLab's: drawn, or a static picture and a sentence.

The kernel is that of a saved file, whose own policy is taken off, so that the host's alone counts.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from urllib.parse import quote

import pytest
import sheets
from onnx import parser

from onnx_workbench import view
from onnx_workbench.lessons import draw_digit
from onnx_workbench.lineage.floors import Floors
from onnx_workbench.viewer import frontend
from onnx_workbench.viewer.saved import document
from onnx_workbench.viewer.still import captioned

from .conftest import KEEP_EVAL

pytestmark = pytest.mark.browser

HALF = (
    '<ir_version: 10, opset_import: ["": 20]> '
    "half (float[2] x) => (float[2] y) { [relu] y = Relu(x) }"
)
HOST, OUTPUT = "https://host.test/", "https://output.test/"

VS_CODE = (
    "default-src 'none'; "
    "script-src 'self' https://*.vscode-cdn.net 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' https://*.vscode-cdn.net 'unsafe-inline'; "
    "img-src 'self' https://*.vscode-cdn.net https: http: data:; "
    "font-src 'self' https://*.vscode-cdn.net https:; connect-src https:; child-src https: data:"
)
ALONE = "<script>window.parent = window.top = window; window.frameElement = null;</script>"


# Netron asks for an update half a year after it was built: no test may depend on the day.
LATER = """
const now = Date;
window.Date = class extends now {
  constructor(...when) { super(...(when.length ? when : [now.now() + 3650 * 864e5])); }
  static now() { return now.now() + 3650 * 864e5; }
};
"""


@pytest.fixture(scope="module")
def shown_by(browser):
    """A frame of a host's page that shows a view, and the requests that it made."""
    context = browser.new_context(viewport={"width": 900, "height": 600})
    context.set_default_timeout(20_000)
    context.add_init_script(KEEP_EVAL + LATER)

    def open_(policy="", sandbox="", script="", patience=20_000):
        netron = view(parser.parse_model(HALF))
        html = document("half", [netron._saved()], netron._esm, frontend.shared().packed)
        meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">' if policy else ""
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', meta + script, html)
        html = html.replace("PATIENCE = 20000", f"PATIENCE = {patience}")
        html = html.replace('<script type="module">', '<script type="module" nonce="host">')
        host = f'<iframe src="{OUTPUT}" sandbox="allow-scripts {sandbox}" width="880" height="560">'
        page, asked = context.new_page(), []

        def answer(route):
            if route.request.url.startswith(("data:", "blob:")):
                return route.continue_()
            asked.append(route.request.url)
            body = host if route.request.url == HOST else html
            route.fulfill(body=body, content_type="text/html; charset=utf-8")

        page.route("**/*", answer)
        page.goto(HOST)
        return page.locator("body > iframe").element_handle().content_frame(), asked

    yield open_
    context.close()


@pytest.mark.parametrize(
    "host",
    [
        {
            "policy": VS_CODE,
            "script": ALONE,
            "sandbox": "allow-same-origin allow-forms allow-pointer-lock allow-downloads",
        },
        {"sandbox": "allow-forms allow-popups allow-downloads"},
    ],
    ids=["vs code", "colab"],
)
def test_a_graph_is_drawn_and_answers_a_click(shown_by, host):
    """VS Code: the policy and the script of its notebook webview, as microsoft/vscode has them in
    contrib/notebook/browser/view/renderers/backLayerWebView.ts (behind the setting
    `notebook.experimental.enableCsp`, without which there is no policy) and
    contrib/webview/browser/pre/index.html.

    Colab: each output stands in a sandboxed frame of another origin, by its own notebook
    snippets/advanced_outputs.ipynb and googlecolab/colabtools issue 6. Which policy that frame
    has is not published; the test below says what happens when it is too strict.
    """
    output, asked = shown_by(**host)
    output.locator(".ow-netron.drawn").wait_for()
    graph = output.locator(".ow-netron iframe").element_handle().content_frame()
    graph.locator("#node-name-relu").click()
    output.get_by_text("The file does not say which line made this node.").wait_for()
    assert asked == [HOST, OUTPUT]


BARE = """<!doctype html><div><img alt="" src="data:image/svg+xml,%s"></div><div id="output"></div>
<script type="module">
const array = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
const bytes = (text) => new DataView(array(text).buffer);
const revive = (name, value) => (value?.bytes === undefined ? value : bytes(value.bytes));
const { state, page } = JSON.parse(%s, revive);
const ears = new Map();
const say = (event, ...args) => [...(ears.get(event) ?? [])].forEach((act) => act(...args));
const model = {
  get: (name) => state[name],
  set: (name, value) => {
    state[name] = value;
    say(`change:${name}`);
  },
  save_changes: () => {},
  on: (event, act) => ears.set(event, (ears.get(event) ?? new Set()).add(act)),
  off: (event, act) => ears.get(event)?.delete(act),
  send: ({ ask, id }) => setTimeout(() => ask === "page" && say("msg:custom", { id }, [page])),
};
const module = URL.createObjectURL(new Blob([state._esm], { type: "text/javascript" }));
const { default: widget } = await import(module);
window.state = state;
window.end = widget.render({ model, el: document.getElementById("output") });
</script>"""


@pytest.mark.parametrize(
    ("make", "live", "touched", "trait"),
    [
        (lambda: view(parser.parse_model(HALF)), "#output .ow-netron.drawn", "iframe", "_sent"),
        (lambda: Floors(sheets.small()), "#output .ow-floors", "text=torch.relu", "chosen"),
        (lambda: draw_digit(lambda image: image), "#output.ow-pad", "button >> nth=0", "pixels"),
    ],
    ids=["view", "floors", "pad"],
)
def test_a_host_needs_no_more_than_a_page_and_a_model(browser, make, live, touched, trait):
    """A model as anywidget's specification has it, and nothing of JupyterLab: no widget manager, no
    style sheet. The widget hides the picture before it, and gives it back at its end."""
    widget = make()
    shown = {"state": widget.get_state(), "page": frontend.shared().packed}
    coded = json.dumps(shown, default=lambda part: {"bytes": base64.b64encode(part).decode()})
    page, asked = browser.new_page(), []
    page.add_init_script(KEEP_EVAL)

    def answer(route):
        if route.request.url.startswith(("data:", "blob:")):
            return route.continue_()
        asked.append(route.request.url)
        data = json.dumps(coded).replace("</", "<\\/")
        body = BARE % (quote(captioned(widget._still())), data)
        route.fulfill(body=body, content_type="text/html; charset=utf-8")

    page.route("**/*", answer)
    page.goto(HOST)
    page.locator(live).wait_for()
    picture = page.locator("img").first
    picture.wait_for(state="hidden")
    before = page.evaluate(f"JSON.stringify(state.{trait})")
    page.locator(f"#output >> {touched}").first.click()
    assert trait == "_sent" or page.evaluate(f"JSON.stringify(state.{trait})") != before
    page.evaluate("end()")
    picture.wait_for()
    assert asked == [HOST]
    page.close()


TRUSTED = "Failed to set the 'srcdoc' property on 'HTMLIFrameElement': This document requires "
NO_WAY = "throw new Error('no way');"


@pytest.mark.parametrize(
    ("host", "added", "told"),
    [
        ({"policy": "script-src 'nonce-host'", "patience": 500}, {}, "did not start here"),
        (
            {"policy": "worker-src 'none'"},
            {},
            "could not draw this model (Unknown worker error type 'error')",
        ),
        (
            {"policy": "require-trusted-types-for 'script'"},
            {},
            f"did not start here ({TRUSTED}'TrustedHTML' assignment)",
        ),
        ({"patience": 500}, {"browser.js": NO_WAY}, "did not start here"),
        (
            {},
            {"view.js": f"view.View.prototype.open = async () => {{ {NO_WAY} }};"},
            "could not draw this model (no way)",
        ),
    ],
    ids=["no script", "no worker", "no frame", "another netron", "another view"],
)
def test_a_page_or_a_netron_that_cannot_draw_shows_the_static_picture_and_says_so(
    shown_by, monkeypatch, tmp_path, host, added, told
):
    """A netron whose files are of another shape is refused by the kernel: tests/test_viewer.py."""
    for file, code in added.items():
        folder = tmp_path / "netron"
        left_out = shutil.ignore_patterns("*.py", "*.ico")
        shutil.copytree(frontend.installed(), folder, ignore=left_out)
        with (folder / file).open("a", encoding="utf-8") as netron:
            netron.write(f"\n{code}\n")
        monkeypatch.setattr(frontend, "installed", lambda folder=folder: folder)
    output, asked = shown_by(**host)
    output.locator(".ow-netron.still").wait_for()
    assert output.locator(".ow-note").inner_text() == f"Netron {told}, so this is a static picture."
    still = output.locator(".ow-still")
    assert still.is_visible()
    assert still.evaluate("(image) => image.decode().then(() => image.naturalHeight > 100)")
    assert asked == [HOST, OUTPUT]
