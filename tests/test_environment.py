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
    return {canonicalize_name(line.name): line for line in map(Requirement, lines)}


def pins_of(lines: list[str]) -> dict[str, str]:
    """Name to version, of lines that must each be one exact pin."""
    found = by_name(lines)
    specifiers = {name: list(line.specifier) for name, line in found.items()}
    assert all([each.operator for each in many] == ["=="] for many in specifiers.values())
    return {name: many[0].version for name, many in specifiers.items()}


PROJECT = tomllib.loads(read("pyproject.toml"))["project"]
RUNTIME = by_name(PROJECT["dependencies"])
EXTRAS = by_name([each for lines in PROJECT["optional-dependencies"].values() for each in lines])
DIRECT = RUNTIME | EXTRAS
PINS = pins_of(re.findall(r"^[a-z][^#\n]*", read("constraints.txt"), re.MULTILINE))
INSTALLED = {canonicalize_name(each.name): each.version.split("+")[0] for each in distributions()}


# -- pyproject.toml and constraints.txt -----------------------------------------------------------


def test_each_requirement_is_pinned_inside_its_range():
    outside = [name for name, line in DIRECT.items() if PINS[name] not in line.specifier]
    assert outside == []


def test_the_first_block_of_pins_is_what_the_project_names():
    block = re.split(r"^# .*\n", read("constraints.txt"), flags=re.MULTILINE)[-2]
    assert pins_of(block.split("\n\n")[0].splitlines()).keys() == DIRECT.keys()


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


@pytest.mark.parametrize("python", ["3.11.2", "3.12.0", "3.13.0", "3.14.0"])  # Debian 12: 3.11.2
def test_each_pin_that_is_installed_here_allows_every_tested_python(python):
    allowed = {
        (each.name, each.version): SpecifierSet(each.metadata.get("Requires-Python", ""))
        for each in distributions()
        if PINS.get(name := canonicalize_name(each.name)) == INSTALLED[name]
    }
    assert len(allowed) > len(RUNTIME)
    assert [pin for pin, pythons in allowed.items() if python not in pythons] == []


def test_no_range_shuts_out_the_torch_of_today_or_of_tomorrow():
    assert {"2.13.0", "2.15.0", "3.0"} <= set(
        RUNTIME["torch"].specifier.filter(["2.13.0", "2.15.0", "3.0"])
    )
    assert [name for name, line in DIRECT.items() if "<" in str(line.specifier)] == ["netron"]


def test_each_dependency_says_why_it_is_there():
    listed = re.findall(
        r'^ {4}"([A-Za-z][\w.-]*)[>;].*?",(.*)$', read("pyproject.toml"), re.MULTILINE
    )
    assert {canonicalize_name(name) for name, _ in listed} == DIRECT.keys()
    assert [name for name, why in listed if not re.fullmatch(r" +# \S.{8,}", why)] == []


# -- conda and Binder -----------------------------------------------------------------------------


def conda(name: str) -> tuple[list[str], list[str]]:
    """The conda lines and the pip lines of an environment file."""
    *lines, last = yaml.safe_load(read(name))["dependencies"]
    return lines, last["pip"]


def test_binders_environment_is_the_roots_without_the_project_itself():
    root, binder = (yaml.safe_load(read(n)) for n in ("environment.yml", "binder/environment.yml"))
    assert root["dependencies"][-1]["pip"].pop() == "-e ."
    assert binder == root


def test_conda_pins_what_constraints_txt_pins():
    index, *pinned = conda("binder/environment.yml")[1]
    assert index == CPU_INDEX
    pins = pins_of(pinned)
    assert pins.items() <= PINS.items()
    ranges = by_name([line for line in conda("environment.yml")[0] if ">" in line])
    assert pins.keys() | ranges.keys() == RUNTIME.keys() | {"jupyterlab"}


def test_condas_ranges_hold_the_pins_and_start_no_lower_than_the_project():
    first, *lines = conda("environment.yml")[0]
    for name, line in by_name([line for line in lines if ">" in line]).items():
        assert PINS[name] in line.specifier
        lowest = min(each.version for each in line.specifier if each.operator == ">=")
        assert lowest in DIRECT[name].specifier
    assert first == "python=3.11", "the form that repo2docker reads"
    assert "3.11" in pythons()


def pythons() -> set[str]:
    prefix = "Programming Language :: Python :: "
    return {each.removeprefix(prefix) for each in PROJECT["classifiers"] if each.startswith(prefix)}


@pytest.mark.parametrize("name", ["binder/postBuild", ".ci/run"])
def test_a_script_can_run_on_linux(name):
    assert b"\r" not in (ROOT / name).read_bytes()
    assert read(name).startswith("#!")
    if os.name != "nt":
        assert os.access(ROOT / name, os.X_OK)
    if shutil.which("bash"):
        subprocess.run(["bash", "-n", name], cwd=ROOT, check=True)


def test_the_last_line_of_a_script_is_what_it_is_for():
    said = {name: read(name).splitlines()[-1] for name in ("binder/postBuild", ".ci/run")}
    assert said == {
        "binder/postBuild": "python -m pip install --no-cache-dir --no-deps --editable .",
        ".ci/run": 'exec "$python" workbench.py test "$@"',
    }
    assert "export CI=true" in read(".ci/run")


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


def test_ci_runs_each_system_and_each_python_that_the_project_names():
    matrix = JOB["strategy"]["matrix"]
    assert {each.split("-")[0] for each in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert set(matrix["python"]) == pythons()
    assert all(each in SpecifierSet(PROJECT["requires-python"]) for each in matrix["python"])


def test_ci_runs_the_readmes_test_command_and_shows_nbval_as_a_step_of_its_own():
    runs = {step["name"]: step["run"] for step in JOB["steps"] if "run" in step}
    assert runs == {
        "Notebooks, strict nbval": "python workbench.py test notebooks",
        "Everything": "python workbench.py test",
    }
    commands = {command.replace("python3 ", "python ") for command in readme_commands()}
    assert set(runs.values()) <= commands


def readme_commands() -> set[str]:
    return set(re.findall(r"python3 workbench\.py(?: (?!#)[\w./-]+)*", read("README.md")))


def test_the_browser_tests_get_the_browser_that_ci_installed():
    browser = next(step for step in JOB["steps"] if step.get("id") == "chromium")
    everything = JOB["steps"][-1]
    assert browser["uses"].startswith("browser-actions/setup-chrome@")
    assert everything["env"]["ONNX_WORKBENCH_CHROMIUM"] == (
        "${{ steps.chromium.outputs.chrome-path }}"
    )


def test_the_readme_begins_with_the_picture_and_then_the_two_commands():
    first, *_ = read("README.md").splitlines()
    assert re.fullmatch(r"!\[.+\]\(notebooks/cover\.svg\)", first)
    block = re.search(r"```bash\n(.*?)```", read("README.md"), re.DOTALL)
    assert block is not None
    assert re.findall(r"^(python3 workbench\.py \w+)", block[1], re.MULTILINE) == [
        "python3 workbench.py lab",
        "python3 workbench.py test",
    ]


def test_the_readmes_links_lead_somewhere_and_binders_badge_where_lab_opens():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", read("README.md"))
    assert [link for link in links if not (ROOT / link).exists()] == []
    start = re.search(r'^START = "(.+)"', read("workbench.py"), re.MULTILINE)
    assert f"?urlpath=lab/tree/{start[1]})" in read("README.md")


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_the_linter_has_nothing_to_say(command):
    ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
    said = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


# -- what is kept ---------------------------------------------------------------------------------

TOP = {
    *(".ci", ".gitattributes", ".github", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md"),
    *("LICENSE", "README.md", "benchmarks", "binder", "constraints.txt", "environment.yml"),
    *("notebooks", "pyproject.toml", "src", "tests", "workbench.py"),
}
KINDS = {"cfg", "css", "ipynb", "js", "md", "png", "py", "pyi", "toml", "txt", "typed", "yml"}


def strays(files: list[str]) -> list[str]:
    """What a trial left behind: a new name at the top, or a kind of file that no room needs."""
    known = KINDS | {"run", "postBuild", "LICENSE", ".gitattributes", ".gitignore"}
    kinds = {file: {Path(file).suffix[1:], Path(file).name} for file in files}
    return [file for file in files if file.split("/")[0] not in TOP or not kinds[file] & known]


def test_nothing_is_kept_that_a_trial_left_behind():
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if kept.returncode:
        pytest.skip("this tree is no git checkout")
    assert strays(kept.stdout.splitlines()) == []


def test_a_stray_file_is_found():
    files = ["c.onnx", "trial.py", "tests/x/model.onnx.data", "src/a.py", "binder/postBuild"]
    assert strays(files) == files[:3]
