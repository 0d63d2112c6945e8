"""What a race must leave as it found it: processes, files, and settings of threads."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import psutil
import torch

_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PLACES = ("TMPDIR", "TEMP", "TMP")


def held() -> set[str]:
    """The processes below this one, the files where it works and where it keeps temporary ones,
    and how many threads torch and the pools may use."""
    children = psutil.Process().children(recursive=True)
    files = (*Path(tempfile.gettempdir()).rglob("*"), *Path.cwd().iterdir())
    return {
        *(f"process {child.pid}" for child in children),
        *map(str, files),
        *(f"{name}={os.environ.get(name)}" for name in _POOLS),
        f"threads {torch.get_num_threads()}, between operators {torch.get_num_interop_threads()}",
    }


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder in which this process and those that it starts keep their temporary files."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, dict.fromkeys(_PLACES, folder)),
        mock.patch.object(tempfile, "tempdir", folder),
    ):
        yield Path(folder)
