"""``explore``: controls that call a function, and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ipywidgets
from IPython.display import display
from IPython.utils.capture import capture_output
from ipywidgets.widgets.interaction import show_inline_matplotlib_plots

from .. import progress
from ..errors import InputError

_PNG = "image/png"


def explore(function: Callable[..., Any], **choices: Iterable[Any]) -> Explorer:
    """Controls that call ``function`` again whenever one is moved: ``ipywidgets.interactive``.

    Args:
        function: called with one value of each choice, by keyword. Its result, its printed output
            and its plots are shown; an exception is shown in one line.
        choices: the values of each parameter, starting with the default: a slider for numbers,
            buttons for anything else.

    Raises:
        InputError: there is nothing to choose from.

    >>> explore(lambda batch: f"{batch} images", batch=[1, 8])
    batch=1 of 1, 8
    1 images
    """
    try:
        listed = {name: [*values] for name, values in choices.items()}
    except TypeError:  # one value is no choice
        listed = {}
    if not listed or not all(listed.values()):
        raise InputError(
            "explore() got nothing to choose from.",
            "Pass the values of each parameter, as in explore(run, batch=[1, 8, 64]).",
        )
    return Explorer(function, listed)


class Explorer(ipywidgets.interactive):
    """The widget of :func:`explore`: the controls above the function's result."""

    def __init__(self, function: Callable[..., Any], choices: dict[str, list[Any]]) -> None:
        self._function, self._choices = function, choices
        controls = {name: _control(values) for name, values in choices.items()}
        super().__init__(self._call, clear_output=False, **controls)

    def _call(self, **chosen: Any) -> Any:
        with progress.no_other_bar(), capture_output(stderr=False) as captured:
            try:
                result = self._function(**chosen)
            except (Exception, KeyboardInterrupt) as error:  # its traceback would end in a log
                result = f"{type(error).__name__}: {error}"
            if isinstance(result, str):
                print(result)
            elif result is not None and not hasattr(getattr(result, "figure", result), "savefig"):
                display(result)
            show_inline_matplotlib_plots()
        shown = [{"text/plain": captured.stdout}] if captured.stdout else []
        shown += [output.data for output in captured.outputs]
        # As widget state, since messages would become outputs of the running cell.
        self.out.outputs = tuple(
            {"output_type": "display_data", "data": data, "metadata": {}} for data in shown
        )
        return result

    def __repr__(self) -> str:
        heads = [
            f"{name}={value!r} of {', '.join(map(repr, self._choices[name]))}"
            for name, value in self.kwargs.items()
        ]
        shown = [output["data"] for output in self.out.outputs if "text/plain" in output["data"]]
        plot = {"text/plain", _PNG}
        texts = ["(a plot)" if set(data) == plot else data["text/plain"].rstrip() for data in shown]
        return "\n".join([*heads, *texts])

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        """The widget, with its text and its plot for a page without a kernel."""
        bundle = {**super()._repr_mimebundle_(**kwargs), "text/plain": repr(self)}
        for output in self.out.outputs:
            bundle |= {_PNG: output["data"][_PNG]} if _PNG in output["data"] else {}
        return bundle


def _control(values: Sequence[Any]) -> ipywidgets.ValueWidget:
    options = [(str(value), value) for value in values]
    if all(type(value) in (int, float) for value in values):
        return ipywidgets.SelectionSlider(options=options, continuous_update=False)
    return ipywidgets.ToggleButtons(options=options)
