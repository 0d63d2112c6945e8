"""Why torch could not capture or translate a model, and what usually helps.

torch's errors describe its internals. :func:`explain` looks them up in one table;
:func:`translation_error` also finds the FX node at which torch.onnx stopped, and its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from traceback import walk_tb
from types import FrameType
from typing import Any, NamedTuple

from torch import fx
from torch.export import ExportedProgram

from ..brief import chained, first_words
from ..errors import ExportError, refused_by_machine
from ..source import Line, node_line

SPECIALIZED = "OW102"
"""Code of a dimension that must stay dynamic and cannot."""

_REASONS = (
    (
        "OW106",
        r"ScriptModule|ScriptFunction|ScriptMethod|TopLevelTracedModule",
        "A model that torch.jit.script or torch.jit.trace made is compiled already: torch.export "
        "cannot run its Python code.",
        "Pass the nn.Module that was scripted or traced.",
    ),
    (
        "OW106",
        r"__obj_flatten__|PackedParams|torch[/\\]ao[/\\](nn[/\\])?quantiz|'quantized::|quantized\.",
        "A quantized module has weights that only its own kernels can read, or changes its state.",
        "Export the float model and quantize the file with onnxruntime.quantization, or quantize "
        "with torchao's PT2E flow, which gives an exported module.",
    ),
    (
        "OW107",
        r"[Ss]parse(?! initializer)",
        "A tensor is sparse, but torch.onnx writes only dense tensors.",
        "Call .to_dense() on the input, or on the model's buffer, before the export.",
    ),
    (
        "OW106",
        r"doesn't have storage|_unwrap_for_grad|GradTrackingTensor",
        "A transform of torch.func, such as grad or jvp, leaves wrapped tensors in the graph.",
        "Use torch.autograd.grad inside torch.enable_grad(), which torch.export follows, or write "
        "the derivative out; torch.vmap alone is fine.",
    ),
    (
        "OW103",
        r"no fake impl|fake kernel",
        "A custom operator has no fake implementation, which gives its result's shape and dtype.",
        "Register one with torch.library.register_fake: a function that returns an empty tensor "
        "of the right shape and dtype.",
    ),
    (
        "OW103",
        r"UnsupportedOperatorException",
        "An operator on this line cannot work on tensors without values, which is how torch.export "
        "runs a model.",
        "Write that step with other operators, or leave `dynamic_shapes` out.",
    ),
    (
        "OW101",
        r"but got FakeTensor",
        "Python needs a number from a tensor, which is unknown during capture: lengths of a packed "
        "sequence, sizes or counts.",
        "Pass a Python number, which is baked in, or pad the sequences and use a mask.",
    ),
    (
        "OW101",
        r"data-dependent expression",
        "Python needs a value that the graph only has when it runs: an `if`, `while`, `int()`, "
        "`.item()` or slice depends on the values of a tensor.",
        "Choose with torch.where, keep both branches with torch.cond, or decide outside the model.",
    ),
    (
        SPECIALIZED,
        r"specialized it to be a constant|Constraints violated|conflicts between user-specified|"
        r"Expected a constraint on",
        "The model fixes a dimension that must stay dynamic.",
        "Replace the number, or the table of fixed length, by a size from x.shape, or leave that "
        "dimension out of `dynamic_shapes`.",
    ),
    (
        "OW107",
        r"same device|on device",
        "Tensors of different devices meet in one operation.",
        "Move the model, its inputs and every tensor made inside forward() to one device.",
    ),
    (
        "OW105",
        r"input type <class '(?:torch\.\w+|[a-z]+)'>",
        "An argument is a setting, such as a dtype, a device, a slice or a complex number, which "
        "is no input of a graph.",
        "Set it in the model's __init__, or pass a string or a number, which is baked in.",
    ),
    (
        "OW107",
        r"SyntaxError: .*<eval_with_key>",
        "The name of a module, such as a key of an nn.ModuleDict, contains a quote, which breaks "
        "the code that torch makes of the graph.",
        "Give that module another name.",
    ),
    (
        "OW105",
        r"not a known type|Unsupported input type|register a pytree",
        "An argument or a result is of a class that torch cannot flatten into tensors{classes}.",
        "Use tensors, tuples, lists and dicts, or register the class before the call: "
        "torch.export.register_dataclass({name}) for a dataclass; for any other, "
        "torch.utils._pytree.register_pytree_node({name}, lambda c: ([c.a, c.b], None), "
        "lambda tensors, _: {name}(*tensors), serialized_type_name={name!r}, "
        "flatten_with_keys_fn=lambda c: ([(GetAttrKey('a'), c.a), (GetAttrKey('b'), c.b)], None)), "
        "with GetAttrKey from torch.utils._pytree.",
    ),
    (
        "OW105",
        r"find a flatten_with_keys_fn",
        "A class is registered with torch.utils._pytree, but not the names of its tensors.",
        "Pass register_pytree_node also flatten_with_keys_fn, such as lambda c: "
        "([(GetAttrKey('a'), c.a), (GetAttrKey('b'), c.b)], None), with GetAttrKey from "
        "torch.utils._pytree.",
    ),
    (
        "OW107",
        r"Cannot detect fake_mode",
        "The graph has no tensors: all numbers of the call are baked in.",
        "Make an argument a tensor, such as torch.tensor(2.0).",
    ),
    (
        "",
        r"in_onnx_export must be True|slot already occupied|empty mode stack|"
        r"_EXPORT_MODULE_HIERARCHY must not be None",
        "Another thread exports with torch at the same time, and torch's state is global.",
        "Export in one thread at a time. Exports by this package wait for each other.",
    ),
    (
        "OW106",
        r"torch\.nn\.DataParallel is not supported",
        "torch.nn.DataParallel copies a model to several devices, but a file contains it once.",
        "Export the wrapped model: pass model.module.",
    ),
    (
        "OW104",
        r"numpy",
        "The model leaves torch for NumPy, and the graph ends there.",
        "Write that step with torch operations.",
    ),
)
"""Code of the audit's finding, pattern in torch's error or in the path of a quantization file,
reason, and repair."""

_LACKING = re.compile(r"Required parameter '(\w+)' is not provided\. Signature: pkg\.onnxscript")
_CLASS = re.compile(r"<class '([^']+)'>")
_OWN = "in `custom_translation_table`"
_OWN_REPAIRS = {
    r"'tuple' object has no attribute|values and replacements must match": (
        "Return as many values as the operator. With @onnxscript.script, annotate the arguments "
        "and the result."
    ),
    r"Opset mismatch when inlining": (
        "Leave out @onnxscript.script, or call the operators of onnxscript.opset18."
    ),
}
"""Error that a translation of the user's causes at another place -> what helps."""


class Reason(NamedTuple):
    """``code`` is that of the finding that an audit makes of it; empty if there is none."""

    reason: str
    repair: str
    code: str = ""


def explain(error: BaseException) -> Reason | None:
    """Reason and repair for torch's error, if they are known."""
    if machine := refused_by_machine(error):
        return Reason(*machine)
    text = "\n".join(f"{type(one).__name__}: {one}" for one in chained(error))
    files = {frame.f_code.co_filename for frame in _frames(error)}
    text += "\n".join(file for file in files if "quantiz" in file)
    for code, key, reason, repair in _REASONS:
        if re.search(key, text):
            paths = [path for path in _CLASS.findall(text) if "." in path]
            names = [p.rpartition(".")[2] for p in paths if not p.startswith("torch.")] or ["Class"]
            classes = f": {', '.join(dict.fromkeys(names))}" * bool(paths)
            return Reason(reason.format(classes=classes), repair.format(name=names[0]), code)
    return None


def translation_error(
    error: Exception, program: ExportedProgram | None = None, own: Mapping[Any, Any] | None = None
) -> ExportError:
    """The ExportError for an error of torch.onnx, with the line of the node that it stopped at.

    ``own`` has the translations that the user passed.
    """
    own = own or {}
    for node in program.graph.nodes if program else ():
        if node.kwargs.get("generator") is not None:
            return ExportError(
                f"{node.target} draws random numbers from a torch.Generator, which a file cannot "
                "contain.",
                "Draw them once, in __init__, and keep them in a buffer; or take them as an input.",
                node_line(node),
            )
    root = list(chained(error))[-1]
    raw = first_words(root)
    node = _node(error)
    line = _line(node) if node else None
    operator = _operator(node) if node else ""
    reason = ""
    repairs = (words for pattern, words in _OWN_REPAIRS.items() if own and re.search(pattern, raw))
    if node and node.target in own:
        message = f"The function for {operator} {_OWN} failed: {raw.partition(' Signature: ')[0]}"
        hint = "Correct it: it takes the operator's arguments, and returns its result in ONNX."
    elif program and (repair := next(repairs, "")):
        named = [op for op, function in own.items() if f"::{_name(function)}'" in raw]
        guilty = named or [*own]
        nodes = [node for node in program.graph.nodes if node.target in guilty]
        line = node_line(nodes[0]) if nodes and len(guilty) == 1 else None
        operators = ", ".join(sorted(map(str, guilty)))
        message, hint = f"A function {_OWN} does not fit, for {operators}: {raw}", repair
    elif node and "auto_functionalized" in operator:
        message = f"The operator {node.args[0]} writes into its argument, which a file cannot do."
        hint = f"Let it return a new tensor, and pass an onnxscript function for it {_OWN}."
    elif missing := re.search(r"OpOverload\(op='([^']+)'", str(root)):
        message = f"The operator {operator or missing[1]} has no translation into ONNX."
        hint = (
            f"Write that step with other operators, or pass an onnxscript function for it {_OWN}."
        )
    elif known := explain(error):
        message = "torch.onnx could not translate the graph."
        reason, hint = known.reason, known.repair
    elif operator and (lacking := _LACKING.search(raw)):
        message = (
            f"The translation of {operator} needs the argument {lacking[1]!r}, which the call "
            "leaves out: torch has a default for it, torch.onnx has none."
        )
        whole = ", or reduce x.flatten() along dim=0 for the whole tensor" * (lacking[1] == "dim")
        hint = f"Pass {lacking[1]} in the call{whole}."
    elif operator:
        message = f"The translation of {operator} refuses this call: {raw}"
        hint = f"Write that step in another way, or pass an onnxscript function for it {_OWN}."
    else:
        message = f"torch.onnx could not translate the graph: {raw}"
        hint = "Look at the graph with capture(...).polish(), and at the chained error."
    return ExportError(message, hint, line, reason=reason)


def _name(function: Any) -> str:
    return str(getattr(function, "name", getattr(function, "__name__", "")))


def _frames(error: BaseException) -> Iterator[FrameType]:
    for one in chained(error):
        yield from (frame for frame, _ in walk_tb(one.__traceback__))


def _node(error: BaseException) -> fx.Node | None:
    """The FX node that torch worked on: a local variable of the innermost frame that has one."""
    innermost = None
    for frame in _frames(error):
        if "torch" in frame.f_code.co_filename:
            nodes = (value for value in frame.f_locals.values() if isinstance(value, fx.Node))
            innermost = next(nodes, innermost)
    return innermost


def _line(node: fx.Node) -> Line | None:
    """The node's line, or a neighbor's if torch inserted the node."""
    return next(filter(None, map(node_line, (node, *node.users, *node.all_input_nodes))), None)


def _operator(node: fx.Node) -> str:
    """The operator as the model calls it, and the part that torch decomposed it into, if any."""
    if node.op != "call_function":
        return ""
    part, whole = str(node.target), str(node.meta.get("original_aten") or node.target)
    names = [name.removesuffix(".default") for name in (whole, part)]
    return names[0] if names[0] == names[1] else f"{names[0]}, decomposed into {names[1]},"
