"""What every result with records shares: the table behind a plot."""

from __future__ import annotations

from typing import Any


class Tabled:
    """A result whose ``records()`` are flat dicts.

    >>> class Found(Tabled):
    ...     def records(self):
    ...         return [{"name": "a", "seconds": 1.0}]
    >>> len(Found().to_frame())
    1
    """

    def records(self) -> list[dict[str, Any]]:
        raise NotImplementedError

    def to_frame(self) -> Any:
        """The records as a ``pandas.DataFrame``, or as they are where pandas is not installed."""
        try:
            import pandas
        except ModuleNotFoundError:
            return self.records()
        return pandas.DataFrame(self.records())
