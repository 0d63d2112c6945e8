"""audit(): all of it, worst first; a page, a bundle, an exit code."""

import sys

import torch

import onnx_workbench as ow
from onnx_workbench.__main__ import main

FACTORY = """
import torch

def steady():
    return torch.nn.Linear(4, 2).eval(), (torch.ones(3, 4),)

class Choose(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1

def choose():
    return Choose().eval(), (torch.ones(3),)
"""


def test_audit_of_a_sound_model_finds_nothing(model, images, tmp_path):
    batch = {"images": {0: "batch"}}
    report = ow.audit(model, images, dynamic_shapes=batch, skip=["opsets", "latency"])
    assert report
    assert not report.faults
    page = report.save(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Reader" in page


def test_audit_names_the_line_and_the_repair(table, tmp_path):
    words = {"words": {1: "length"}}
    skip = {"opsets", "latency", "hot lines"}
    report = ow.audit(table, torch.ones(2, 16, 8), dynamic_shapes=words, skip=skip)
    fault = report.faults[0]
    assert not report
    assert fault.line.text == "return words + self.table"
    assert fault.repair
    assert (report.bundle(tmp_path / "bundle") / "repro.py").exists()


def test_exit_codes_of_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "factories.py").write_text(FACTORY)
    skip = ["--skip", "latency", "opsets", "hot lines"]
    assert main(["audit", "factories:choose", *skip]) == 1
    assert "if x.sum() > 0:" in capsys.readouterr().out
    assert main(["audit", "factories:steady", *skip]) == 0
    assert main(["audit", "factories:absent", *skip]) == 2
    assert "" not in sys.path
