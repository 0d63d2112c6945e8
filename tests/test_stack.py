"""check(): one broken package hides no other, and each fault comes with the command that mends it.

Nothing here breaks this machine's packages: broken ones are written into a folder of their own that
comes first on the path, with the metadata that makes them look installed.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from onnx_workbench import stack, trial
from onnx_workbench.stack import Clash, Clocks, Package, Reading, Stack, check

SOURCE = Path(stack.__file__).parents[1]
INSTALL = "python -m pip install"
TORCH = Package("torch", "2.13.0+cpu", ">=2.9", "import torch")
SCRIPT = Package("onnxscript", "0.7.2", ">=0.5", "from onnxscript import opset18")
NUMPY = Package("numpy", "2.4.6", ">=1.26", "import numpy")
ONNX = Package("onnx", "1.23.2", ">=1.19", "import onnx")
LAB = Package("jupyterlab", "4.6.6", ">=4.2", "import jupyterlab", extra="lab")
CLOCKS = Clocks(Reading(20, 10), Reading(25, 10), Reading(28, 14), Reading(26, 13))


def made(*packages: Package, runtimes: tuple[str, ...] = ("onnxruntime",), clocks=CLOCKS) -> Stack:
    return Stack(packages, runtimes, clocks, "Python 3.11.7 on Linux x86_64")


def only(found: Stack) -> Clash:
    assert not found
    assert len(found.clashes) == 1
    return found.clashes[0]


def install(folder: Path, name: str, version: str, code: str = "") -> None:
    """What pip leaves behind: a module and its metadata."""
    (folder / f"{name.replace('-', '_')}.py").write_text(code)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(stack, "_requirements", lambda: ["netron>=9.0", "onnx>=1.19", "tqdm>=4"])
    monkeypatch.setattr(stack, "_CLOCKS", dict.fromkeys(stack._CLOCKS, "found = [1, 1]"))
    monkeypatch.setattr(stack, "_read", lambda outcomes: CLOCKS)
    return tmp_path


@pytest.fixture(scope="module")
def live() -> Stack:
    return check()


def test_this_machine_has_a_stack_that_fits_together(live):
    assert live, live
    assert {package.verdict for package in live.packages} <= {"ok", "absent"}
    assert repr(live).startswith("This stack fits together.\n\npackage ")


def test_the_packages_are_those_of_pyproject_with_the_extra_of_the_lab_alone(live):
    requirements = stack._requirements()
    named = {package.name for package in live.packages}
    assert {"torch", "onnx", "onnxscript", "onnxruntime", "netron", "jupyterlab"} <= named
    assert any("pytest" in line for line in requirements)
    assert "pytest" not in named
    assert not any(package.extra for package in live.packages if package.name == "torch")


def test_the_clocks_are_read_off_files_that_were_written_and_loaded(live):
    import onnx
    import onnxruntime

    clocks = live.clocks
    assert (clocks.knows.opset, clocks.knows.ir) == trial.knows()
    assert trial._accepts(trial._identity(clocks.loads.opset, 10))
    assert not trial._accepts(trial._identity(clocks.loads.opset + 1, 10))
    assert not trial._accepts(trial._identity(18, clocks.loads.ir + 1))
    assert clocks.default.opset <= clocks.writes.opset <= clocks.knows.opset
    assert onnx.__version__ in repr(live)
    assert onnxruntime.__version__ in repr(live)


def test_an_opset_counts_as_written_only_if_the_file_has_the_opset_asked_for(monkeypatch):
    """Asked for more than it knows, the exporter falls back to 18 and says so in its log alone."""
    import torch

    def stubborn(program, *, opset_version, **options):
        written = opset_version if opset_version and opset_version <= 21 else 18
        return type("Program", (), {"model_proto": trial._identity(written, 10)})

    monkeypatch.setattr(torch.onnx, "export", stubborn)
    assert trial.writes() == {"default": (18, 10), "highest": (21, 10)}


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (
            "raise ImportError('libfoo.so.1: not found\\nmore')",
            "ImportError: libfoo.so.1: not found",
        ),
        ("import sys; sys.exit('no GPU')", "SystemExit: no GPU"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import os; os._exit(7)", "the process ended with exit code 7"),
        ("import os; os._exit(0)", "the process ended with exit code 0"),
        pytest.param(
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "the process was killed by SIGSEGV",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals"),
        ),
    ],
)
def test_a_package_that_breaks_in_any_way_hides_no_other(fake, code, trouble):
    install(fake, "netron", "9.9", code)
    found = check()
    broken = {package.name: package.trouble for package in found.packages if package.trouble}
    assert broken == {"netron": trouble}
    assert only(found) == Clash(
        f"netron 9.9 is broken: `import netron` gives {trouble}.",
        f'{INSTALL} --force-reinstall "netron>=9.0"',
    )


def test_two_packages_that_kill_their_process_are_both_named(fake):
    for name in ("onnx", "netron"):
        install(fake, name, "9.9", "import os; os._exit(3)")
    troubles = {package.name: package.trouble for package in check().packages}
    assert troubles == {
        "netron": "the process ended with exit code 3",
        "onnx": "the process ended with exit code 3",
        "tqdm": "",
    }


def test_a_package_that_prints_when_imported_does_not_disturb_the_report(fake):
    install(fake, "tqdm", "9.9", "import os; print('[1, 2]'); os.write(1, b'noise')")
    assert check()


def test_a_statement_that_hangs_is_given_up_and_the_rest_goes_on():
    found = trial.run({"slow": "import time; time.sleep(60)", "quick": "found = 1"}, patience=2)
    assert found["slow"].trouble == "did not come back within 2 s"
    assert found["quick"] == trial.Outcome(found=1)


def test_an_old_torch_is_told_apart_by_its_version_and_keeps_its_kind_of_build():
    old = replace(TORCH, installed="2.5.1+cu124")
    assert only(made(old, SCRIPT)) == Clash(
        "torch 2.5.1 is out of the range >=2.9. Before 2.9 torch.onnx.export traces with "
        "TorchScript unless told otherwise, and from 2.1 to 2.8 the exporter that this project "
        "teaches was called torch.onnx.dynamo_export.",
        f'{INSTALL} --upgrade "torch>=2.9" --index-url https://download.pytorch.org/whl/cu124',
    )


def test_a_missing_onnxscript_says_what_it_is_for():
    assert only(made(TORCH, replace(SCRIPT, installed=None))) == Clash(
        "onnxscript is missing. torch.onnx.export takes from it how each operator is written in "
        "ONNX.",
        f'{INSTALL} "onnxscript>=0.5"',
    )


def test_an_onnxscript_without_the_opset_that_lessons_import_is_broken():
    trouble = "ImportError: cannot import name 'opset18'"
    assert only(made(replace(SCRIPT, trouble=trouble))).what == (
        "onnxscript 0.7.2 is broken: `from onnxscript import opset18` gives ImportError: cannot "
        "import name 'opset18'."
    )


def test_two_builds_of_onnxruntime_clash_and_one_command_leaves_one():
    found = made(TORCH, runtimes=("onnxruntime", "onnxruntime-gpu"))
    assert only(found) == Clash(
        "onnxruntime and onnxruntime-gpu are installed into the same folder, and the one that came "
        "last overwrote the other.",
        "python -m pip uninstall --yes onnxruntime onnxruntime-gpu && "
        "python -m pip install onnxruntime-gpu",
    )


def test_another_build_of_onnxruntime_counts_as_onnxruntime(monkeypatch):
    monkeypatch.setattr(stack, "_installed", {"onnxruntime-gpu": "1.99"}.get)
    assert stack._look_up("onnxruntime>=1.23").installed == "1.99"
    assert stack._look_up("onnx>=1.19").installed is None


def test_a_missing_torch_comes_from_the_index_without_cuda():
    assert only(made(replace(TORCH, installed=None))) == Clash(
        "torch is missing.",
        f'{INSTALL} "torch>=2.9" --index-url https://download.pytorch.org/whl/cpu',
    )


def test_a_torch_that_was_built_for_another_numpy_is_broken():
    trouble = "RuntimeError: Numpy is not available"
    assert only(made(replace(TORCH, installed="2.13.0", trouble=trouble))) == Clash(
        "torch 2.13.0 is broken: `import torch` gives RuntimeError: Numpy is not available.",
        f'{INSTALL} --force-reinstall "torch>=2.9"',
    )


def test_what_only_lacks_a_missing_package_is_mended_along_with_it():
    trouble = "ModuleNotFoundError: No module named 'numpy'"
    found = made(replace(NUMPY, installed=None), replace(ONNX, trouble=trouble))
    assert only(found) == Clash("numpy is missing.", f'{INSTALL} "numpy>=1.26"')
    assert found.packages[1].verdict == "broken"


def test_several_missing_packages_are_one_command():
    found = made(*(replace(package, installed=None) for package in (NUMPY, ONNX)))
    assert only(found) == Clash(
        "numpy and onnx are missing.", f'{INSTALL} "numpy>=1.26" "onnx>=1.19"'
    )


def test_a_lab_that_is_absent_is_no_fault_and_one_that_is_broken_is():
    absent = made(replace(LAB, installed=None))
    assert absent
    assert "absent, needed only to open the notebooks" in repr(absent)
    assert only(made(replace(LAB, trouble="ImportError: x"))).command.endswith('"jupyterlab>=4.2"')


def test_an_exporter_ahead_of_the_runtime_is_a_clash():
    clocks = replace(CLOCKS, loads=Reading(19, 9))
    assert only(made(TORCH, clocks=clocks)) == Clash(
        "torch.onnx.export writes opset 20 and IR version 10 by default, and this onnxruntime "
        "loads at most 19 and 9.",
        f"{INSTALL} --upgrade onnxruntime",
    )


def test_packages_that_import_and_still_do_not_export_are_a_clash():
    broken = Reading(trouble="AttributeError: no such thing")
    clocks = replace(CLOCKS, default=broken, writes=broken)
    assert only(made(TORCH, clocks=clocks)) == Clash(
        "A model of one node does not get from torch to ONNX Runtime: AttributeError: no such "
        "thing.",
        f"{INSTALL} --upgrade onnx onnxscript onnxruntime",
    )


def test_the_report_is_a_table_with_the_verdict_first_and_the_machine_in_the_last_line():
    found = made(TORCH, replace(SCRIPT, installed=None), replace(LAB, installed=None))
    assert repr(found) == (
        "This stack has 1 fault:\n"
        "1. onnxscript is missing. torch.onnx.export takes from it how each operator is written in "
        "ONNX.\n"
        '   python -m pip install "onnxscript>=0.5"\n'
        "\n"
        "package     installed  required  tried                           verdict\n"
        "----------  ---------  --------  ------------------------------  "
        "-----------------------------------------\n"
        "torch       2.13.0     >=2.9     import torch                    ok\n"
        "onnxscript  -          >=0.5     from onnxscript import opset18  missing\n"
        "jupyterlab  -          >=4.2     import jupyterlab               "
        "absent, needed only to open the notebooks\n"
        "\n"
        "clock                                opset  IR version\n"
        "-----------------------------------  -----  ----------\n"
        "torch.onnx.export writes by default     20          10\n"
        "torch.onnx.export writes at most        25          10\n"
        "onnx knows at most                      28          14\n"
        "onnxruntime loads at most               26          13\n"
        "\n"
        "Python 3.11.7 on Linux x86_64"
    )


@pytest.mark.parametrize(
    ("version", "required", "fits"),
    [
        ("2.9", ">=2.9", True),
        ("2.9.0+cpu", "==2.9", True),
        ("2.10.0", ">=2.9", True),
        ("2.8.1", ">=2.9", False),
        ("3.0", ">=2.9,<3", False),
        ("2.15.0.dev20261101", ">=2.15", True),
        ("unknown", ">=1", False),
    ],
)
def test_versions_compare_as_numbers(version, required, fits):
    assert stack._fits(version, required) is fits


def test_without_a_source_tree_the_requirements_come_from_the_installed_metadata(monkeypatch):
    monkeypatch.setattr(stack, "__file__", "/nowhere/lib/site-packages/onnx_workbench/stack.py")
    monkeypatch.setattr(stack.metadata, "requires", lambda name: [f"{name}-needs>=1"])
    assert stack._requirements() == ["onnx-workbench-needs>=1"]


def test_the_report_comes_out_of_a_python_that_has_nothing_installed(tmp_path):
    """Not even lazy_loader; the source is on the path, as workbench.py puts it there."""
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import onnx_workbench as ow"
    command = [python, "-I", "-c", f"{code}; print(ow.check())"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("This stack has 3 faults:\n1. torch is missing.")
