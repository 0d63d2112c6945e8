"""pyproject.toml, constraints.txt, the conda files, Binder and CI name one and the same stack."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CPU_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def by_name(lines: list[str]) -> dict[str, Requirement]:
    """The requirements by name, without those of one extra on another."""
    found = {canonicalize_name(line.name): line for line in map(Requirement, lines)}
    return {name: line for name, line in found.items() if name != "onnx-workbench"}


def pins_of(lines: list[str]) -> dict[str, str]:
    """Name to version, of lines that must each be one exact pin."""
    found = by_name(lines)
    specifiers = {name: list(line.specifier) for name, line in found.items()}
    assert all([each.operator for each in many] == ["=="] for many in specifiers.values())
    return {name: many[0].version for name, many in specifiers.items()}


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LIGHT = by_name(PROJECT["dependencies"])
RUNTIME = LIGHT | by_name([*EXTRAS["view"], *EXTRAS["plot"], *EXTRAS["lessons"]])
DIRECT = RUNTIME | by_name([each for lines in EXTRAS.values() for each in lines])
PINS = pins_of(re.findall(r"^[a-z][^#\n]*", read("constraints.txt"), re.MULTILINE))
INSTALLED = {canonicalize_name(each.name): each.version.split("+")[0] for each in distributions()}
CLASSIFIER = "Programming Language :: Python :: "
PYTHONS = {each.removeprefix(CLASSIFIER) for each in PROJECT["classifiers"] if CLASSIFIER in each}


# -- pyproject.toml and constraints.txt -----------------------------------------------------------


def test_each_requirement_is_pinned_inside_its_range_and_says_why_it_is_there():
    assert [name for name, line in DIRECT.items() if PINS[name] not in line.specifier] == []
    block = re.split(r"^# .*\n", read("constraints.txt"), flags=re.MULTILINE)[-2]
    assert pins_of(block.split("\n\n")[0].splitlines()).keys() == DIRECT.keys()
    reasons = r'^ {4}"([A-Za-z][\w.-]*)[>;].*?", +# \S.{8,}$'
    listed = re.findall(reasons, read("pyproject.toml"), re.MULTILINE)
    assert {canonicalize_name(name) for name in listed} == DIRECT.keys()


def test_everything_that_the_project_brings_along_is_pinned():
    if any(INSTALLED.get(name, PINS[name]) != PINS[name] for name in DIRECT):
        pytest.skip("another stack than the pinned one is installed here")
    assert tree(DIRECT) - PINS.keys() == set()


def tree(requirements: dict[str, Requirement]) -> set[str]:
    """The names of everything that these bring along here, themselves included."""
    seen: set[str] = set()
    todo = [(line, "") for line in requirements.values()]
    while todo:
        line, extra = todo.pop()
        name = canonicalize_name(line.name)
        if line.marker and not line.marker.evaluate({"extra": extra}):
            continue
        if name in seen and not line.extras:
            continue
        seen.add(name)
        try:
            below = [Requirement(each) for each in requires(line.name) or []]
        except PackageNotFoundError:
            continue  # an environment without the extras of the project
        todo += [(each, extra) for each in below for extra in ("", *line.extras)]
    return seen


def test_each_pin_that_is_installed_here_allows_every_tested_python():
    allowed = {
        (each.name, each.version): SpecifierSet(each.metadata.get("Requires-Python", ""))
        for each in distributions()
        if PINS.get(name := canonicalize_name(each.name)) == INSTALLED[name]
    }
    assert len(allowed) > len(RUNTIME)
    for python in ("3.11.2", "3.12.0", "3.13.0", "3.14.0"):  # Debian 12 has 3.11.2
        assert [pin for pin, pythons in allowed.items() if python not in pythons] == []


def test_no_range_shuts_out_the_torch_of_today_or_of_tomorrow():
    versions = ["2.13.0", "2.15.0", "3.0"]
    assert list(RUNTIME["torch"].specifier.filter(versions)) == versions
    assert [name for name, line in DIRECT.items() if "<" in str(line.specifier)] == ["netron"]


# -- conda and Binder -----------------------------------------------------------------------------


def test_conda_and_binder_name_what_the_project_and_its_pins_name():
    root, binder = (yaml.safe_load(read(n)) for n in ("environment.yml", "binder/environment.yml"))
    assert root["dependencies"][-1]["pip"].pop() == "-e ."
    assert binder == root
    first, *lines, pip = binder["dependencies"]
    assert first == "python=3.11", "the form that repo2docker reads"
    assert "3.11" in PYTHONS
    index, *pinned = pip["pip"]
    assert index == CPU_INDEX
    pins, ranges = pins_of(pinned), by_name([line for line in lines if ">" in line])
    assert pins.items() <= PINS.items()
    assert pins.keys() | ranges.keys() == RUNTIME.keys() | {"jupyterlab"}
    for name, line in ranges.items():
        assert PINS[name] in line.specifier
        lowest = min(each.version for each in line.specifier if each.operator == ">=")
        assert lowest in DIRECT[name].specifier


@pytest.mark.parametrize(
    ("name", "last"),
    [
        (
            "binder/postBuild",
            "python -m onnx_workbench.lessons.copies notebooks # what the badge opens",
        ),
        (".ci/run", 'exec "$python" workbench.py test "$@"'),
    ],
)
def test_a_script_can_run_on_linux_and_ends_in_what_it_is_for(name, last):
    assert b"\r" not in (ROOT / name).read_bytes()
    assert read(name).startswith("#!")
    assert read(name).splitlines()[-1] == last
    assert "export CI=true" in read(".ci/run")
    if os.name != "nt":
        assert os.access(ROOT / name, os.X_OK)
    if shutil.which("bash"):
        subprocess.run(["bash", "-n", name], cwd=ROOT, check=True)


@pytest.mark.skipif(os.name == "nt", reason="repo2docker runs on Linux and macOS alone")
def test_binders_dry_run_takes_our_files_and_our_python():
    command = "--no-build --debug --Repo2Docker.default_buildpack=None ."
    repo2docker = [sys.executable, "-m", "repo2docker", *command.split()]
    done = subprocess.run(repo2docker, cwd=ROOT, capture_output=True, text=True)
    plan = done.stdout + done.stderr
    assert done.returncode == 0, plan
    assert "Building conda environment for python=3.11" in plan
    assert "COPY --chown=0:0 src/binder/environment.yml ${REPO_DIR}/binder/environment.yml" in plan
    assert "RUN chmod +x binder/postBuild" in plan


# -- CI and the README ----------------------------------------------------------------------------

JOB = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]


def test_ci_runs_each_system_and_each_python_and_the_readmes_commands_with_a_browser():
    matrix = JOB["strategy"]["matrix"]
    assert {each.split("-")[0] for each in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert set(matrix["python"]) == PYTHONS
    assert all(each in SpecifierSet(PROJECT["requires-python"]) for each in matrix["python"])
    runs = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}
    assert runs == {
        "Notebooks, strict nbval": "python workbench.py test notebooks",
        "Everything": "python workbench.py test",
    }
    commands = re.findall(r"python3 workbench\.py(?: (?!#)[\w./-]+)*", read("README.md"))
    assert set(runs.values()) <= {command.replace("python3 ", "python ") for command in commands}
    browser = next(step for step in JOB["steps"] if step.get("id") == "chromium")
    assert browser["uses"].startswith("browser-actions/setup-chrome@")
    path = JOB["steps"][-1]["env"]["ONNX_WORKBENCH_CHROMIUM"]
    assert path == "${{ steps.chromium.outputs.chrome-path }}"


def test_the_readme_begins_with_the_picture_and_two_commands_and_its_links_lead_somewhere():
    readme = read("README.md")
    assert re.fullmatch(r"!\[.+\]\(notebooks/cover\.svg\)", readme.splitlines()[0])
    block = re.search(r"```bash\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    assert re.findall(r"^(python3 workbench\.py \w+)", block[1], re.MULTILINE) == [
        "python3 workbench.py lab",
        "python3 workbench.py test",
    ]
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", readme)
    assert [link for link in links if not (ROOT / link).exists()] == []
    start = re.search(r'^START = "(.+)"', read("workbench.py"), re.MULTILINE)
    assert f"?urlpath=lab/tree/course/{start[1]})" in readme, "Binder's badge opens what lab opens"


TOOLS = {
    "lint": ("ruff", "check", "--no-cache", "."),
    "format": ("ruff", "format", "--check", "--no-cache", "."),
    "types": ("mypy", "--cache-dir", os.devnull),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_linter_formatter_and_type_checker_have_nothing_to_say(tool):
    command = [sys.executable, "-m", *TOOLS[tool]]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


# -- what is kept ---------------------------------------------------------------------------------

TOP = {
    *(".ci", ".gitattributes", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("LICENSE", "README.md", "benchmarks", "binder", "constraints.txt", "environment.yml"),
    *("notebooks", "pyproject.toml", "src", "tests", "workbench.py"),
}
KINDS = {
    *("cfg", "css", "ipynb", "js", "json", "md", "py", "pyi", "svg", "toml", "txt", "typed", "yml"),
}


def strays(files: list[str]) -> list[str]:
    """What a trial left behind: a new name at the top, or a kind of file that no room needs."""
    known = KINDS | {"run", "postBuild", "LICENSE", ".gitattributes", ".gitignore"}
    kinds = {file: {Path(file).suffix[1:], Path(file).name} for file in files}
    return [file for file in files if file.split("/")[0] not in TOP or not kinds[file] & known]


def test_nothing_is_kept_that_a_trial_left_behind():
    found = ["c.onnx", "trial.py", "tests/x/model.onnx.data", "src/a.py", "binder/postBuild"]
    assert strays(found) == found[:3]
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if kept.returncode:
        pytest.skip("this tree is no git checkout")
    assert strays(kept.stdout.splitlines()) == []
