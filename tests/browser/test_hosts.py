"""The view on pages that are stricter than JupyterLab's: drawn, or a static picture and a sentence.

The kernel is that of a saved file, whose own policy is taken off, so that the host's alone counts.
"""

from __future__ import annotations

import re
import shutil

import pytest
from onnx import parser

from onnx_workbench import view
from onnx_workbench.viewer import frontend
from onnx_workbench.viewer.saved import document

from .conftest import KEEP_EVAL, WAIT, expect

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
MANAGED, BARE = (
    "{ ...model, widget_manager, send };",
    """{ ...model, send: async ({ id }) => {
  await null;
  model.say("msg:custom", { id }, [page.get("packed")]);
} };""",
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
    context.set_default_timeout(WAIT * 1000)
    context.add_init_script(KEEP_EVAL + LATER)
    page = context.new_page()

    def open_(policy="", sandbox="", script="", patience=20_000, bare=False):
        netron = view(parser.parse_model(HALF))
        html = document("half", [netron._saved()], netron._esm, frontend.shared().packed)
        meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">' if policy else ""
        html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', meta + script, html)
        html = html.replace("PATIENCE = 20000", f"PATIENCE = {patience}")
        html = html.replace(MANAGED, BARE) if bare else html
        html = html.replace('<script type="module">', '<script type="module" nonce="host">')
        host = f'<iframe src="{OUTPUT}" sandbox="allow-scripts {sandbox}" width="880" height="560">'
        asked = []

        def answer(route):
            if route.request.url.startswith(("data:", "blob:")):
                return route.continue_()
            asked.append(route.request.url)
            body = host if route.request.url == HOST else html
            route.fulfill(body=body, content_type="text/html; charset=utf-8")

        page.unroute("**/*")
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
        {"bare": True},
    ],
    ids=["vs code", "colab", "bare"],
)
def test_a_graph_is_drawn_and_answers_a_click(shown_by, host):
    """VS Code: the policy and the script of its notebook webview, as microsoft/vscode has them in
    contrib/notebook/browser/view/renderers/backLayerWebView.ts (behind the setting
    `notebook.experimental.enableCsp`, without which there is no policy) and
    contrib/webview/browser/pre/index.html.

    Colab: each output stands in a sandboxed frame of another origin, by its own notebook
    snippets/advanced_outputs.ipynb and googlecolab/colabtools issue 6. Which policy that frame
    has is not published; the test below says what happens when it is too strict.

    Bare: no widget manager, only a model as anywidget's specification has it.
    """
    output, asked = shown_by(**host)
    output.locator(".ow-netron.drawn").wait_for()
    graph = output.locator(".ow-netron iframe").element_handle().content_frame()
    graph.locator("#node-name-relu").click()
    output.get_by_text("The file does not say which line made this node.").wait_for()
    assert asked == [HOST, OUTPUT]


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
        (
            {},
            {"view.js": f"view.View.prototype.open = async () => {{ {NO_WAY} }};"},
            "could not draw this model (no way)",
        ),
    ],
    ids=["no script", "no worker", "no frame", "another view"],
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
    said = f"Netron {told}, so this is a static picture."
    expect(output.locator(".ow-note")).to_have_text(said)
    still = output.locator(".ow-still")
    expect(still).to_be_visible()
    assert still.evaluate("(image) => image.decode().then(() => image.naturalHeight > 100)")
    assert asked == [HOST, OUTPUT]
