"""Write beside the target, then rename: whatever fails, the old file stands and nothing is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import InputError


def target(path: str | os.PathLike[str], suffix: str = "") -> Path:
    """The path of a file to be written, checked before any work is done for it.

    Raises:
        InputError: no path, another suffix, a folder in its place, or a parent that is not there.

    >>> target("no/such/folder/report.html")
    Traceback (most recent call last):
        ...
    onnx_workbench.errors.InputError: The folder 'no/such/folder' of 'report.html' does not exist. \
Make it first, or pass a path in a folder that exists.
    """
    try:
        file = Path(os.fsdecode(path) if isinstance(path, bytes) else path)
        name, exists, is_folder = file.name, file.parent.is_dir(), file.is_dir()
        os.lstat(file)
    except FileNotFoundError:
        pass
    except (TypeError, ValueError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path!r:.200} is no path of a file: {why}. Pass another one.") from error
    if not name or (suffix and file.suffix != suffix):
        raise InputError(
            f"The path {os.fspath(file)!r} does not end in {suffix or 'a file name'}. "
            f"Pass {(name or 'model') + suffix!r}."
        )
    if not exists:
        raise InputError(
            f"The folder {str(file.parent)!r} of {name!r} does not exist. "
            "Make it first, or pass a path in a folder that exists."
        )
    if is_folder:
        raise InputError(
            f"{str(file)!r} is a folder, and a file is to be written there. Pass another name."
        )
    return file


def write(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Put ``content`` (text as UTF-8) at ``path``, whole or not at all, and return the path.

    >>> write(getfixture("tmp_path") / "a.txt", "hello").read_text()
    'hello'

    Raises:
        InputError: as for :func:`target`, or the system refuses to write there.
    """
    file = target(path)
    try:
        with replacing(file) as folder:
            data = content.encode() if isinstance(content, str) else content
            (folder / file.name).write_bytes(data)
    except OSError as error:
        raise InputError(
            f"{file.name!r} could not be written to {str(file.parent)!r}: "
            f"{error.strerror or error}. "
            "Make room or get the right to write there, or pass another path."
        ) from error
    return file


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A new folder beside ``file``. When the block ends, the files that it holds move to where
    ``file`` is: all of them, or none. The folder is gone afterwards in either case.

    Its name is random, so that nobody can lay a link there; a rename replaces a link and does not
    follow it.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{file.name[:40]}-", dir=file.parent))
    try:
        yield folder
        _publish(folder, file.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, home: Path) -> None:
    made = sorted(entry for entry in folder.iterdir())
    old = folder / ".old"
    old.mkdir()
    moved: list[Path] = []
    try:
        for draft in made:
            goal = home / draft.name
            if os.path.lexists(goal):
                os.link(goal, old / draft.name, follow_symlinks=False)
            moved.append(goal)
            draft.replace(goal)
    except BaseException:
        for goal in moved:
            with suppress(FileNotFoundError):
                goal.unlink()
            if os.path.lexists(old / goal.name):
                (old / goal.name).rename(goal)
        raise
