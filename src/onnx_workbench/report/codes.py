"""The codes of findings: ``codes.md`` is the one table of them, and their documentation."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError

_STAGE = re.compile(r"^## OW(?P<digit>\d) (?P<stage>.+)$", re.M)
_CODE = re.compile(
    r"^### OW(?P<digit>[\dx])(?P<rest>\d\d) (?P<verdict>[a-z ]+): (?P<title>.+)\n\n"
    r"(?P<text>[^#]+?)\n*(?=^#|\Z)",
    re.M,
)


class FindingCode(NamedTuple):
    """``title`` and ``text`` say what all findings of a code have in common."""

    name: str
    stage: str
    verdict: str
    title: str
    text: str


def _read() -> dict[str, FindingCode]:
    page = (Path(__file__).parent / "codes.md").read_text("utf-8")
    stages = {match["digit"]: match["stage"] for match in _STAGE.finditer(page)}
    found = {}
    for match in _CODE.finditer(page):
        for digit in stages if match["digit"] == "x" else [match["digit"]]:
            name = f"OW{digit}{match['rest']}"
            found[name] = FindingCode(name, stages[digit], *match.group("verdict", "title", "text"))
    return dict(sorted(found.items()))


CODES = _read()
STOPPED, NOT_TRIED = "90", "99"
"""The last digits of the codes that every stage has."""
_HINT = "A code is OW and three digits, such as OW101; the first column of a report has them."


def code_of(stage: str, last: str) -> str:
    """
    >>> code_of("export", NOT_TRIED)
    'OW299'
    """
    return next(name for name, code in CODES.items() if code.stage == stage and name.endswith(last))


def known(name: str) -> FindingCode:
    """The code of this name.

    Raises:
        InputError: there is none.

    >>> known("OW101").verdict
    'broken'
    """
    if name in CODES:
        return CODES[name]
    raise InputError(f"There is no code {name!r:.80}.", _HINT)


def stages(skip: Collection[str]) -> set[str]:
    """audit()'s ``skip``, checked."""
    names = list(dict.fromkeys(code.stage for code in CODES.values()))
    return _chosen("skip", skip, names, "stage", f"The stages are {', '.join(names)}.")


def ignored(ignore: Collection[str]) -> set[str]:
    """The codes of an ``ignore``, checked."""
    return _chosen("ignore", ignore, list(CODES), "code", _HINT)


def _chosen(
    option: str, given: Collection[str], names: list[str], noun: str, hint: str
) -> set[str]:
    if isinstance(given, str) or not isinstance(given, Collection):
        raise InputError(f"`{option}` is {given!r:.80}.", f"Pass a set of names of {noun}s.")
    if unknown := [name for name in given if name not in names]:
        unknown_names = ", ".join(map(repr, unknown))
        raise InputError(f"`{option}` names {unknown_names}, but there is no such {noun}.", hint)
    return set(given)


def explained(name: str) -> str:
    """The paragraph of a code, with its headline.

    >>> print(explained("OW800"))
    OW800 latency, ok: A first impression of the speed
    <BLANKLINE>
    A few calls beside PyTorch, at one thread. `race` measures with more care.
    """
    code = known(name)
    return f"{code.name} {code.stage}, {code.verdict}: {code.title}\n\n{code.text}"
