"""The most memory that a process and its children ever held."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress

import psutil

POLL = 0.02  # seconds


def peak_of(command: Sequence[str]) -> int:
    """Bytes at the peak, resident; a command that fails ends the benchmark."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                family = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed: what it said stands above.")
    return peak
