"""The learner's copy: made once, refreshed where untouched, never overwritten."""

from __future__ import annotations

import json
import os

import pytest

from onnx_workbench.lessons.copies import copy, main
from onnx_workbench.lessons.course import progress, record

OUTPUT = {"output_type": "stream", "name": "stdout", "text": ["4"]}


def cell(source, kind="code", outputs=()):
    more = {"outputs": [*outputs], "execution_count": 3} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {}, "source": [source], **more}


def write(path, *cells):
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4}), encoding="utf-8")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.fixture
def place(tmp_path):
    """The original notebook with an output, a page of text, and where the copy goes."""
    originals = tmp_path / "notebooks"
    originals.mkdir()
    write(originals / "03.ipynb", cell("# 03", "markdown"), cell("2 + 2", outputs=[OUTPUT]))
    (originals / "glossary.md").write_text("opset", encoding="utf-8")
    return originals, tmp_path / "course"


def test_the_first_copy_has_no_outputs_and_the_second_start_changes_nothing(place):
    originals, course = place
    assert list(copy(*place)) == []
    assert read(course / "03.ipynb")[1] == cell("2 + 2") | {"execution_count": None}
    assert read(originals / "03.ipynb")[1]["outputs"] == [OUTPUT]
    assert (course / "glossary.md").read_text() == "opset"
    assert (course / "models").is_dir()
    write(course / "03.ipynb", cell("# 03", "markdown"), cell("2 + 2", outputs=[OUTPUT]))
    before = (course / "03.ipynb").read_bytes()
    assert list(copy(*place)) == []
    assert (course / "03.ipynb").read_bytes() == before


def test_a_notebook_that_was_only_run_follows_its_original_and_keeps_the_outputs_that_fit(place):
    originals, course = place
    list(copy(*place))
    write(course / "03.ipynb", cell("# 03", "markdown"), cell("2 + 2", outputs=[OUTPUT]))
    write(originals / "03.ipynb", cell("2 + 2"), cell("2 + 3"), cell("2 + 2"))
    (originals / "glossary.md").write_text("opset, IR", encoding="utf-8")
    assert list(copy(*place)) == []
    kept, added, again = read(course / "03.ipynb")
    assert (kept["outputs"], kept["execution_count"]) == ([OUTPUT], 3)
    assert added["outputs"] == again["outputs"] == []
    assert (course / "glossary.md").read_text() == "opset, IR"


def test_a_notebook_with_work_in_it_is_kept_and_the_new_one_is_put_beside_it_once(place):
    originals, course = place
    list(copy(*place))
    write(course / "03.ipynb", cell("2 + 2"), cell("mine"))
    assert list(copy(*place)) == []
    write(originals / "03.ipynb", cell("new"))
    (sentence,) = copy(*place)
    (beside,) = course.glob("03.*.ipynb")
    assert beside.name in sentence
    assert [one["source"] for one in read(beside)] == [["new"]]
    write(beside, cell("mine, too"))
    assert list(copy(*place)) == [sentence]
    assert read(beside)[0]["source"] == ["mine, too"]
    assert read(course / "03.ipynb")[1]["source"] == ["mine"]


CELLS = b'{"cells": [{"cell_type": "code", "source": 3}]}', b'{"cells": [{}]}', b'{"cells": 1}'


@pytest.mark.parametrize("broken", [b"{", b"[]", *CELLS, b"\xff"])
def test_a_copy_that_is_no_notebook_any_more_is_kept_and_so_is_all_without_its_record(
    place, broken
):
    originals, course = place
    list(copy(*place))
    (course / "03.ipynb").write_bytes(broken)
    list(copy(*place))
    assert (course / "03.ipynb").read_bytes() == broken
    (course / ".course.json").write_bytes(broken)
    (originals / "glossary.md").write_text("new", encoding="utf-8")
    list(copy(*place))
    assert (course / "03.ipynb").read_bytes() == broken
    assert (course / "glossary.md").read_text(encoding="utf-8") == "opset"


def test_fresh_sets_the_old_copy_aside_with_its_progress(place, monkeypatch):
    _, course = place
    list(copy(*place))
    monkeypatch.delenv("ONNX_WORKBENCH_HOME", raising=False)
    monkeypatch.chdir(course)
    assert record("01") == ""
    assert progress().solved == {"01"}
    assert (course / "progress.json").exists()
    monkeypatch.chdir(course.parent)
    (sentence,) = copy(*place, fresh=True)
    (aside,) = course.parent.glob("course-*")
    assert str(aside) in sentence
    assert (aside / "progress.json").exists()
    monkeypatch.chdir(course)
    assert progress().solved == frozenset()


def test_a_read_only_checkout_gets_its_copy_in_the_users_data_folder(place, monkeypatch, capsys):
    originals, course = place
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(originals.parent / "data"))
    main([str(originals)])
    assert capsys.readouterr() == (f"{course}\n", "")
    writable = os.access
    shut = lambda path, mode: path != course and writable(path, mode)  # noqa: E731
    monkeypatch.setattr("os.access", shut)
    main([str(originals)])
    there = originals.parent / "data" / "onnx-workbench" / "course"
    shown = capsys.readouterr()
    assert shown.out == f"{there}\n"
    assert str(there) in shown.err
    assert (there / "03.ipynb").exists()


def test_a_copy_that_cannot_be_made_says_why_in_a_line(place):
    originals, course = place
    course.write_text("in the way")
    with pytest.raises(SystemExit, match="course"):
        main([str(originals)])
    assert course.read_text() == "in the way"
