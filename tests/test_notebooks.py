"""The rules of a lesson, held over every notebook; each rule is shown to be able to fail."""

import ast
import copy
import re
import runpy
import statistics
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import get_sanitize_patterns

from onnx_workbench import errors
from onnx_workbench.brief import REST
from onnx_workbench.lessons.course import LESSONS, notebook

NOTEBOOKS = sorted(Path(__file__).parent.parent.joinpath("notebooks").glob("*.ipynb"))
NAMES = [path.name for path in NOTEBOOKS]
GLOSSARY = (NOTEBOOKS[0].parent / "glossary.md").read_text("utf-8")
TERMS = {*re.findall(r'<a id="([a-z-]+)"></a>', GLOSSARY)}
TERMS |= {heading.replace(" ", "-") for heading in re.findall(r"(?m)^## ([a-z ]+)$", GLOSSARY)}
"""The anchors that work on GitHub and in JupyterLab, which keeps the case of a heading."""
WIDGET = "application/vnd.jupyter.widget-view+json"
MACHINE = re.compile(r"/(home|root|Users|work|tmp|private|usr|opt|mnt)/|[A-Z]:\\\\|site-packages")
SILENT = re.compile(r"observe|simplefilter|check_model|assert_close|disable|quantize_|onnx\.save")
"""Calls that may end a cell and show nothing."""
VERSION = re.compile(r"\b(?:torch|PyTorch|onnx|ONNX Runtime|Python|Netron) \d+\.\d+(?!.*or newer)")


@cache
def read(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def text_of(output):
    parts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
    data = output.get("data", {})
    return "\n".join(
        parts + [v for k, v in data.items() if isinstance(v, str) and k != "image/png"]
    )


def named_like_a_lesson(name, notebook):
    """NN-verb-object.ipynb, and the number opens the title."""
    if not re.fullmatch(r"\d\d(-[a-z]+){1,4}\.ipynb", name):
        yield f"{name} is not named NN-verb-object.ipynb"
    title = notebook.cells[0].source.splitlines()[0]
    if name[:2] != "00" and not title.startswith(f"# {name[:2]} "):
        yield f"the title is {title!r}"


def short_cells(name, notebook):
    counts = [
        len([line for line in cell.source.splitlines() if line.strip()]) for cell in code(notebook)
    ]
    if max(counts) > 8 or statistics.median(counts) > 3:
        yield f"cells have {statistics.median(counts)} lines in the median, {max(counts)} at most"


def nothing_hidden(name, notebook):
    for cell in code(notebook):
        if re.search(r"(?m);\s*$|^\s*[!%]|nbval|NBVAL", cell.source):
            yield f"a semicolon, a magic or an nbval mark in {cell.source!r}"
        if set(cell.metadata.get("tags", [])) - {"raises-exception"}:
            yield f"tags {cell.metadata.tags}"


def plain_code(name, notebook):
    """What a learner copies: no assert, and of the package only what it offers."""
    for cell in code(notebook):
        if re.search(r"(?m)^assert |^from onnx_workbench(?!\.lessons)", cell.source):
            yield f"an assert or a private helper in {cell.source!r}"


def rendered(name, notebook):
    counts = [cell.execution_count for cell in code(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"run in the order {counts}"
    for cell in code(notebook):
        last = ast.parse(cell.source).body[-1]
        shows = isinstance(last, ast.Expr) and not SILENT.search(cell.source)
        if shows and not cell.outputs:
            yield f"no output under {cell.source!r}"
        if ".plot(" in cell.source and not any(
            "image/png" in o.get("data", {}) for o in cell.outputs
        ):
            yield f"no picture under {cell.source!r}"


def clean_outputs(name, notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                yield f"stderr under {cell.source!r}"
            if WIDGET in output.get("data", {}):
                yield f"a widget view without a kernel under {cell.source!r}"
            if found := MACHINE.search(text_of(output)):
                yield f"a path of a machine ({found[0]}) under {cell.source!r}"


def seen_untrusted(name, notebook):
    """Of a fresh clone's notebooks, which are not trusted, JupyterLab shows a PNG and no SVG."""
    for cell in code(notebook):
        for data in (output.get("data", {}) for output in cell.outputs):
            if "image/svg+xml" in data and not 0 < len(data.get("image/png", "")) < 80_000:
                yield f"no small PNG beside the SVG under {cell.source!r}"


def errors_in_few_lines(name, notebook):
    """As IPython shows them: where the user's line is, and how to see the rest."""
    for cell in code(notebook):
        for output in cell.outputs:
            planned = hasattr(errors, output.get("ename", ""))
            lines = output.get("traceback", [])
            if planned and not ("Cell In[" in str(lines) and lines[-1] == REST and len(lines) < 25):
                yield f"{len(lines)} lines of an error under {cell.source!r}"


def taught_as_a_lesson(name, notebook):
    words = prose(notebook)
    wanted = ["**Predict:**", "**Notice:**"]
    if name[:2] != "00":
        wanted += ["**The question:**", "## Exercise", "## On your own"]
    yield from (f"no {word}" for word in wanted if word not in words)
    if found := VERSION.search(words):
        yield f"a version in prose ({found[0]}): print it instead"
    linked = set(re.findall(r"\]\((\d\d-[^)]+)\)", words))
    yield from (f"a link to {link}, which is no lesson" for link in linked - {*NAMES})
    terms = set(re.findall(r"\]\(glossary\.md#?([^)]*)\)", words)) - {""}
    yield from (f"a link to the glossary's {term}, which is not there" for term in terms - TERMS)


RULES = [
    named_like_a_lesson,
    short_cells,
    nothing_hidden,
    plain_code,
    rendered,
    clean_outputs,
    seen_untrusted,
    errors_in_few_lines,
    taught_as_a_lesson,
]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem[:2])
def test_a_lesson_keeps_the_rules(path):
    assert [breach for rule in RULES for breach in rule(path.name, read(path))] == []


def test_nbval_reads_every_rule():
    """It skips a rule that has no replacement."""
    rules = NOTEBOOKS[0].parents[1].joinpath("tests/nbval.cfg").read_text("ascii")
    assert len(get_sanitize_patterns(rules)) == len(re.findall(r"(?m)^\[\w+\]$", rules))


def test_the_lessons_are_all_here():
    assert [notebook(number) for number in LESSONS] == NAMES


def test_the_tables_of_lessons_have_their_titles_and_questions():
    """Those of lesson 00 and of the README; where this fails, run notebooks/minutes.py."""
    filled = runpy.run_path(str(NOTEBOOKS[0].with_name("minutes.py")))["filled"]
    readme = NOTEBOOKS[0].parents[1].joinpath("README.md").read_text("utf-8")
    for page, folder in ((prose(read(NOTEBOOKS[0])), ""), (readme, "notebooks/")):
        then, now = (re.sub(r"(?m) \d+ \|$", "", text) for text in (page, filled(page, folder)))
        assert then == now
        assert len(re.findall(r"(?m)^\| \[\d\d .* \d+ \|$", page)) == len(LESSONS)


def test_the_glossary_links_what_is_there():
    links = re.findall(r"\]\(([^)#]*)#?([^)]*)\)", GLOSSARY)
    assert {page for page, _ in links} <= {"", *NAMES}
    assert {term for page, term in links if not page} <= TERMS
    terms = re.findall(r"(?m)^## (.+)$", GLOSSARY)
    assert terms == sorted(terms, key=str.lower)


TITLE = read(NOTEBOOKS[1]).cells[0].source
VIEW = nbformat.v4.new_output("display_data", {WIDGET: {"model_id": "1"}})
DRAWN = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})
FAILED = nbformat.v4.new_output("error", ename="InputError", traceback=["InputError: no"] * 3)
BREACHES = [
    (short_cells, "cell", {"source": "x = 1\n" * 9}),
    (nothing_hidden, "cell", {"source": "plot();"}),
    (nothing_hidden, "cell", {"source": "!pip list"}),
    (nothing_hidden, "cell", {"source": "# NBVAL_SKIP\n1"}),
    (nothing_hidden, "cell", {"metadata": nbformat.from_dict({"tags": ["nbval-skip"]})}),
    (plain_code, "cell", {"source": "assert True"}),
    (plain_code, "cell", {"source": "from onnx_workbench.ort import run"}),
    (rendered, "cell", {"execution_count": 77}),
    (rendered, "cell", {"source": "axes = race.plot()", "outputs": []}),
    (rendered, "cell", {"source": "1 + 1", "outputs": []}),
    (clean_outputs, "output", {"name": "stderr"}),
    (clean_outputs, "output", {"text": "/home/ada/model.onnx"}),
    (clean_outputs, "cell", {"outputs": [VIEW]}),
    (seen_untrusted, "cell", {"outputs": [DRAWN]}),
    (errors_in_few_lines, "cell", {"outputs": [FAILED]}),
    (named_like_a_lesson, "title", {"source": "# Check"}),
    (taught_as_a_lesson, "title", {"source": "# 01 Check"}),
    (taught_as_a_lesson, "title", {"source": f"{TITLE} torch 2.13."}),
    (taught_as_a_lesson, "title", {"source": f"{TITLE} [a](77-b)"}),
    (taught_as_a_lesson, "title", {"source": f"{TITLE} [a](glossary.md#nonsense)"}),
]


@pytest.mark.parametrize(("rule", "place", "change"), BREACHES)
def test_a_breach_of_each_rule_is_found(rule, place, change):
    """In a copy of a lesson: its title is wrong, or its first cell that has an output."""
    lesson = copy.deepcopy(read(NOTEBOOKS[1]))
    cell = next(cell for cell in code(lesson) if cell.outputs)
    assert list(rule(NOTEBOOKS[1].name, lesson)) == []
    {"cell": cell, "output": cell.outputs[0], "title": lesson.cells[0]}[place].update(change)
    assert list(rule(NOTEBOOKS[1].name, lesson))


def test_a_lesson_is_named_by_its_number():
    assert list(named_like_a_lesson("Untitled1.ipynb", read(NOTEBOOKS[1])))
