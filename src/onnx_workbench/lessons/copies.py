"""The learner's copy of the notebooks: ``python -m onnx_workbench.lessons.copies notebooks``.

It is made once, with outputs cleared, and what a learner wrote is never overwritten. The folder
holds the exported files in ``models/`` and the progress, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import files
from ..errors import InputError

RECORD = ".course.json"
"""File name -> hash of the sources that were copied; it marks a folder as a learner's copy."""


def copy(originals: Path, folder: Path, fresh: bool = False) -> Iterator[str]:
    """Make or update ``folder``, and yield what a learner should know, a sentence each.

    A notebook whose sources the learner did not change follows its original, and keeps the outputs
    of the cells that stay the same. One that they changed is kept; if the original changed as well,
    the new one is put beside it. ``fresh`` renames the folder first, progress included.
    """
    if fresh and folder.exists():
        aside = folder.with_name(time.strftime(f"{folder.name}-%Y-%m-%d-%H%M%S"))
        folder.rename(aside)
        yield f"Your work so far is in {aside}."
    (folder / "models").mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    copied = _json(record.read_bytes()) if record.exists() else None
    copied = copied if isinstance(copied, dict) else {}  # then every other notebook is kept
    for original in sorted([*originals.glob("*.ipynb"), *originals.glob("*.md")]):
        new, mine = _read(original), folder / original.name
        if not mine.exists():
            _write(mine, new)
        elif _sources(held := _read(mine)) == _sources(new):
            pass
        elif _hash(held) == copied.get(mine.name):
            _write(mine, new, held)
        else:
            if copied.get(mine.name) != _hash(new):
                beside = mine.with_name(f"{mine.stem}.{_hash(new)[:6]}{mine.suffix}")
                if not beside.exists():
                    _write(beside, new)
                yield f"{mine.name} has your work, so its new version is {beside.name}."
            continue
        copied[mine.name] = _hash(new)
    files.write(record, json.dumps(copied, indent=1))


def home(originals: Path) -> Path:
    """``course/`` beside the notebooks, or in the user's data folder if that cannot be written."""
    beside = originals.resolve().parent / "course"
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside
    from jupyter_core.paths import jupyter_data_dir

    return Path(jupyter_data_dir(), "onnx-workbench", "course")


def _read(path: Path) -> Any:
    """A notebook as JSON, another file as text. A notebook that is broken counts as text, too."""
    data = path.read_bytes()
    content = _json(data) if path.suffix == ".ipynb" else None
    try:
        _sources(content)
    except (TypeError, KeyError):
        return data.decode("utf-8", "replace")
    return content


def _json(data: bytes) -> Any:
    """None for what is no JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def _write(path: Path, new: Any, held: Any = None) -> None:
    """Write a notebook without outputs, but with those of ``held`` where a cell is the same."""
    if isinstance(new, str):
        files.write(path, new)
        return
    ran: dict[str, list[Any]] = {}  # two cells may have one source: each keeps its own outputs
    for cell in (held or {"cells": []})["cells"]:
        ran.setdefault(_source(cell), []).append(cell)
    for cell in new["cells"]:
        if cell["cell_type"] == "code":
            same = ran.get(_source(cell))
            old = same.pop(0) if same else {}
            cell["outputs"] = old.get("outputs", [])
            cell["execution_count"] = old.get("execution_count")
    files.write(path, json.dumps(new, indent=1, ensure_ascii=False) + "\n")


def _source(cell: Any) -> str:
    return cell["cell_type"] + "".join(cell["source"])


def _sources(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [_source(one) for one in content["cells"]]


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(_sources(content)).encode()).hexdigest()


def main(words: list[str] | None = None) -> None:
    """Print what a learner should know to stderr, and the folder to stdout."""
    options = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    options.add_argument("notebooks", type=Path)
    options.add_argument("--fresh", action="store_true", help="set the old copy aside")
    asked = options.parse_args(words)
    folder = home(asked.notebooks)
    if folder.parent != asked.notebooks.resolve().parent:
        print(f"The project is read-only, so your copy is in {folder}.", file=sys.stderr)
    try:
        for sentence in copy(asked.notebooks, folder, asked.fresh):
            print(sentence, file=sys.stderr)
    except (OSError, InputError) as error:
        sys.exit(str(error))
    print(folder)


if __name__ == "__main__":
    main()
