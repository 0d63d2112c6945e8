"""What the benchmark of the race counts as left behind."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parent.parent / "benchmarks" / "held.py"


@pytest.fixture
def held(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("held", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_processes_files_and_threads_that_are_left_are_counted(held, tmp_path, monkeypatch):
    with held.own_folder() as folder:
        before = held.held()
        assert held.held() == before
        with tempfile.NamedTemporaryFile() as file:
            (tmp_path / "kept").touch()
            monkeypatch.setenv("OMP_NUM_THREADS", "77")
            monkeypatch.setattr(torch, "get_num_threads", lambda: 78)
            child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            left = " ".join(held.held() - before)
            child.communicate(b"\n")
    for one in (file.name, str(tmp_path / "kept"), f"process {child.pid}", "=77", "threads 78"):
        assert one in left
    assert file.name.startswith(str(folder))
    assert not folder.exists()
