"""Write beside the target, then rename: if anything fails, the old file is still there."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .errors import InputError, LoadError, WorkbenchError


def folder(path: str | os.PathLike[str]) -> Path:
    """Check the path of the folder with a model's source.

    Raises:
        InputError: there is no such folder.
    """
    try:
        found = Path(path).expanduser().absolute()
        if found.is_dir():
            return found
    except (TypeError, ValueError, RuntimeError):  # not a path, or an unknown home
        pass
    raise InputError(
        f"`source` is {path!r:.200}, but there is no such folder.",
        "Pass the folder with the model's .py files.",
    )


def writable(path: str | os.PathLike[str]) -> Path:
    """Check the path of a file to write, before any work is done for it.

    Raises:
        InputError: it is no path or is a folder, or its parent does not exist or cannot be written
            to.

    >>> writable("no/such/folder/report.html")
    Traceback (most recent call last):
        ...
    onnx_workbench.errors.InputError: The folder 'no/such/folder' of 'report.html' does not exist.
    What helps: Make it first, or pass a path in a folder that exists.
    """
    with _named(path) as file:
        file.name.encode()  # raises for bytes that are no text: a model names its files in text
        exists, is_folder = file.parent.is_dir(), file.is_dir()
        taken = file.exists() and not file.is_file()
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(file)  # raises if the name is not a valid file name
    if not file.name:
        raise InputError(
            f"The path {os.fspath(file)!r} does not end in a file name.",
            "Add one, such as 'model.onnx'.",
        )
    if not exists:
        raise InputError(
            f"The folder {str(file.parent)!r} of {file.name!r} does not exist.",
            "Make it first, or pass a path in a folder that exists.",
        )
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{file.name!r} cannot be written to {str(file.parent)!r}: this process has no "
            "permission to write there.",
            "Get permission, or pass a path in another folder.",
        )
    if taken:
        kind = "folder" if is_folder else "device, pipe or socket"
        raise InputError(
            f"{str(file)!r} is a {kind}, so no file can be written there.", "Pass another name."
        )
    return file


def existing(path: str | os.PathLike[str]) -> Path:
    """Check the path of a file to read.

    Raises:
        InputError: it is no path, or there is no file.

    >>> existing(None)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    onnx_workbench.errors.InputError: None is not a file path: expected str, bytes or ...
    What helps: Pass one as a string or a Path.
    """
    with _named(path) as file:
        exists = file.is_file()
    if not exists:
        raise InputError(
            f"There is no file {file.name!r:.200} in {str(file.parent)!r:.200}.",
            "Check the name; a relative path begins at the working folder.",
        )
    return file


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The path, for a block in which the system looks at it; raises InputError if it cannot."""
    try:
        yield Path(os.fsdecode(path))
    except (TypeError, ValueError, OSError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        raise InputError(
            f"{path!r:.200} is not a file path: {why}.", "Pass one as a string or a Path."
        ) from error


def write(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Put ``content`` (text as UTF-8) at ``path``, whole or not at all, and return the path.

    >>> write(getfixture("tmp_path") / "a.txt", "hello").read_text()
    'hello'

    Raises:
        InputError: as for :func:`writable`, or the file cannot be written.
    """
    file = writable(path)
    with replacing(file) as folder:
        data = content.encode() if isinstance(content, str) else content
        (folder / file.name).write_bytes(data)
    return file


def writable_page(path: str | os.PathLike[str]) -> Path:
    """Check the path of an HTML page to write: it may replace a page, and no other file.

    >>> writable_page(write(getfixture("tmp_path") / "model.onnx", "weights"))
    Traceback (most recent call last):
        ...
    onnx_workbench.errors.InputError: 'model.onnx' exists and is no HTML page.
    What helps: Pass another path, such as 'report.html'.
    """
    return _of_kind(writable(path), (b"<!doctype html", b"<html"), "HTML page", "report.html")


def writable_model(path: str | os.PathLike[str]) -> Path:
    """Check the path of an ONNX model to write: it may replace any ``.onnx``, and what begins as a
    model does, but not a script."""
    file = writable(path)
    if file.suffix == ".onnx":
        return file
    return _of_kind(file, (b"\x08",), "ONNX model", "model.onnx")


def _of_kind(file: Path, starts: tuple[bytes, ...], kind: str, example: str) -> Path:
    if not file.is_file() or file.is_symlink() or not file.stat().st_size:  # a link is replaced
        return file
    start = b""
    with suppress(PermissionError), file.open("rb") as stream:
        start = stream.read(100).lstrip().lower()
    if not start.startswith(starts):
        raise InputError(
            f"{file.name!r} exists and is no {kind}.", f"Pass another path, such as {example!r}."
        )
    return file


Mark = tuple[tuple[int, ...], bytes]
"""A file's size, inode and modification time; its digest."""


@dataclass(frozen=True)
class Stamp:
    """The state of files when they were read or written, to detect later changes.

    >>> path = write(getfixture("tmp_path") / "a.txt", "hello")
    >>> stamp = Stamp.of([path])
    >>> stamp.check()
    >>> _ = write(path, "other")
    >>> stamp.check()
    Traceback (most recent call last):
        ...
    onnx_workbench.errors.LoadError: 'a.txt' has changed since it was read or written.
    What helps: Call load() again, or export to another path.
    """

    marks: Mapping[str, Mark] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Stamp:
        """The files as they are now."""
        return cls({str(path.absolute()): (_identity(path), _digest(path)) for path in paths})

    def at(self, folder: Path) -> Stamp:
        """The stamp of the same files after they have moved to ``folder``."""
        new = folder.absolute()
        return Stamp({str(new / Path(path).name): mark for path, mark in self.marks.items()})

    def check(self) -> None:
        """Raises LoadError if a file has changed or is gone."""
        for path, (identity, digest) in self.marks.items():
            try:
                same = _identity(path) == identity or _digest(path) == digest
            except OSError as error:
                raise LoadError(
                    f"{Path(path).name!r} is gone or cannot be read: {error.strerror or error}.",
                    "Put it back, or export the model again.",
                ) from error
            if not same:
                raise LoadError(
                    f"{Path(path).name!r} has changed since it was read or written.",
                    "Call load() again, or export to another path.",
                )


def _identity(path: str | Path) -> tuple[int, ...]:
    at = Path(path).stat()
    return at.st_size, at.st_ino, at.st_mtime_ns


def _digest(path: str | Path) -> bytes:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


@contextmanager
def replacing(file: Path, kind: type[WorkbenchError] = InputError) -> Iterator[Path]:
    """Yield a new folder beside ``file``. At the end of the block its files move next to it: all of
    them, or none. The folder is removed in either case.

    Its name is random, so nobody can place a link there; a rename replaces a link and does not
    follow it.

    Raises:
        WorkbenchError: an OSError in the block, or of the move, as an error of this ``kind``.
    """
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{file.name[:40]}-", dir=file.parent))
        yield folder
        _publish(folder, file.parent)
    except OSError as error:
        raise kind(
            f"{file.name!r} could not be written to {str(file.parent)!r}: "
            f"{error.strerror or error}. What was there before is still there.",
            "Free space or get write permission, or pass another path.",
        ) from error
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, destination: Path) -> None:
    drafts = sorted(entry for entry in folder.iterdir())
    old = folder / ".old"
    old.mkdir()
    moved: list[Path] = []
    try:
        for draft in drafts:
            goal = destination / draft.name
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
