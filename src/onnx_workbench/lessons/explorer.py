"""A choice to turn, and what a function makes of it."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from ..errors import InputError


def explore(function: Callable[..., Any], **choices: Sequence[Any]) -> Explorer:
    """A slider for each choice of numbers, buttons for each choice of words; ``function`` runs
    again whenever one is moved.

    Args:
        function: called with one value of each choice by keyword. It returns matplotlib Axes or a
            Figure, shown as a picture, or any object, shown by its ``_repr_html_`` or its repr.
        choices: what there is to choose from, by parameter. It starts with the first of each.

    Raises:
        InputError: there is nothing to choose from.

    >>> explore(lambda batch: f"{batch} images", batch=[1, 8])
    batch=1 of 1, 8
    1 images
    """
    if not choices or any(not len(values) for values in choices.values()):
        raise InputError(
            "explore() was given nothing to choose from. Pass the values of each parameter, as in "
            "explore(run, batch=[1, 8, 64])."
        )
    return Explorer(function, choices)


class Explorer:
    """Made by :func:`explore`: ``controls`` by parameter, above a ``screen``, in one ``widget``.

    ``result`` is what the function returned last, ``error`` what it raised instead.
    """

    def __init__(self, function: Callable[..., Any], choices: dict[str, Sequence[Any]]) -> None:
        import ipywidgets

        self._function, self._choices = function, choices
        self.result: Any = None
        self._png = ""
        self.error: Exception | None = None
        self.controls = {name: _control(name, values) for name, values in choices.items()}
        self.screen = ipywidgets.HTML()
        self.widget = ipywidgets.VBox([*self.controls.values(), self.screen])
        self._run()
        for control in self.controls.values():
            control.observe(self._run, "value")

    @property
    def chosen(self) -> dict[str, Any]:
        """The value of each choice now."""
        return {name: control.value for name, control in self.controls.items()}

    def _run(self, change: object = None) -> None:
        before = self.screen.value
        self.screen.value = f'<div style="opacity:.35">{before or "running ..."}</div>'
        try:
            self.result, self.error = self._function(**self.chosen), None
            self._png = _png(self.result)
            self.screen.value = _picture(self._png) if self._png else _shown(self.result)
        except Exception as error:  # told in the cell: the front-end would hide it in a log
            self.result, self.error, self._png = None, error, ""
            self.screen.value = _pre(_told(error))
        except KeyboardInterrupt:
            self.screen.value = before
            raise

    def __repr__(self) -> str:
        heads = [
            f"{name}={value!r} of {', '.join(map(repr, self._choices[name]))}"
            for name, value in self.chosen.items()
        ]
        return "\n".join([*heads, _told(self.error) if self.error else _text(self.result)])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget, and for a page without a kernel its whole text and the plot."""
        bundle = {**self.widget._repr_mimebundle_(**kwargs), "text/plain": repr(self)}
        return bundle | ({"image/png": self._png} if self._png else {})


def _control(name: str, values: Sequence[Any]) -> Any:
    import ipywidgets

    kind = ipywidgets.ToggleButtons
    more = {}
    if all(type(value) in (int, float) for value in values):
        kind, more = ipywidgets.SelectionSlider, {"continuous_update": False}
    return kind(options=[(str(value), value) for value in values], description=name, **more)


def _shown(result: Any) -> str:
    if hasattr(result, "_repr_html_"):
        return result._repr_html_()
    return _pre(_text(result))


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    return "(a plot)" if _figure(result) else repr(result)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _figure(result: Any) -> Any:
    """The Figure that a Figure is, or that Axes belong to."""
    figure = getattr(result, "figure", result)
    return figure if hasattr(figure, "savefig") else None


def _png(result: Any) -> str:
    """The picture of Axes or a Figure in base64, empty for anything else."""
    figure = _figure(result)
    if figure is None:
        return ""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", bbox_inches="tight")
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)  # else the inline backend shows it a second time under the cell
    return base64.b64encode(stream.getvalue()).decode()


def _picture(png: str) -> str:
    return f'<img alt="plot" style="max-width:100%" src="data:image/png;base64,{png}">'


def _pre(text: str) -> str:
    return f'<pre style="line-height:1.3;overflow:auto">{escape(text)}</pre>'
