"""An exported program, run node by node in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, TensorArgument

from ..brief import first_words
from ..errors import RunError, usual_hint
from ..exporter_metadata import call_site

_NO_MODE: AbstractContextManager = nullcontext()

ANY_SIZE = (
    "This line depends on a size of the example: take it from x.shape, write the step with "
    "operators that take any size (for an adaptive pool: a mean, or a pool to size 1), or leave "
    "the dimension out of `dynamic_shapes`."
)


class ProgramRun(fx.Interpreter):
    """Runs the graph of a program, in which the weights are inputs, too.

    >>> program = torch.export.export(torch.nn.ReLU().eval(), (torch.ones(2),))
    >>> [node.name for node, _ in ProgramRun(program).values([-torch.ones(2)])]
    ['input', 'relu', 'output']
    """

    def __init__(self, program: ExportedProgram, mode: AbstractContextManager = _NO_MODE) -> None:
        """``mode`` is active while a node runs, but not while the caller looks at its value."""
        super().__init__(program.graph_module, garbage_collect_values=True)
        self.program, self.mode = program, mode
        schemas = (getattr(node.target, "_schema", None) for node in program.graph.nodes)
        self.writes = any(schema and schema.is_mutable for schema in schemas)

    def values(self, leaves: Sequence[torch.Tensor]) -> Iterator[tuple[fx.Node, Any]]:
        """Yield each node with its value, right after it ran; the output node has the result.

        Args:
            leaves: the tensors of a call. They are not modified.

        Raises:
            RunError: a node fails on these sizes.
        """
        self.env = {}
        self.args_iter = iter(self._inputs(leaves))
        for node in self.program.graph.nodes:
            try:
                with self.mode:
                    self.env[node] = self.run_node(node)
            except Exception as error:
                raise RunError(
                    f"The captured graph fails on these sizes, in {node.target}: "
                    f"{first_words(error)}",
                    usual_hint(error, ANY_SIZE),
                    call_site(node).line,
                ) from error
            yield node, self.env[node]
            for unused in self.user_to_last_uses.get(node, ()):
                del self.env[unused]

    def _inputs(self, leaves: Sequence[torch.Tensor]) -> Iterator[Any]:
        rest = iter(leaves)
        for spec in self.program.graph_signature.input_specs:
            if spec.kind is not InputKind.USER_INPUT:
                value = stored(self.program, spec.target)
                copied = self.writes and spec.kind is InputKind.BUFFER
                yield value.clone() if copied else value  # a buffer is the model's own
            elif isinstance(spec.arg, ConstantArgument):
                yield spec.arg.value
            else:
                leaf = next(rest)
                yield leaf.detach().clone() if isinstance(spec.arg, TensorArgument) else leaf.item()


def stored(program: ExportedProgram, name: Any) -> Any:
    """A parameter, buffer or constant of a program."""
    value = (program.state_dict if name in program.state_dict else program.constants)[name]
    return value.detach() if isinstance(value, torch.Tensor) else value
