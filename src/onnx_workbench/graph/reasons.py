"""Why torch could not capture or translate a model, and what usually helps.

What torch raises is a sentence about its insides. :func:`why` looks it up in one table;
:func:`untranslated` also finds the FX node at which torch.onnx stopped, and with it the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from torch import fx
from torch.export import ExportedProgram

from ..errors import ExportError, chained, refused_by_machine
from ..source import Line, told, user_line

_REASONS = (
    (
        r"ScriptModule|ScriptFunction|ScriptMethod|TopLevelTracedModule",
        "A model that torch.jit.script or torch.jit.trace made is compiled already: torch.export "
        "cannot run its Python code.",
        "Pass the nn.Module that was scripted or traced.",
    ),
    (
        r"__obj_flatten__|PackedParams|torch[/\\]ao[/\\](nn[/\\])?quantiz|'quantized::|quantized\.",
        "A quantized module keeps its weights in a form that only its own kernels read, or changes "
        "its state while it runs.",
        "Export the float model and quantize the file with onnxruntime.quantization, or quantize "
        "with torchao's PT2E flow: it hands over an exported module of quantize and dequantize "
        "operators.",
    ),
    (
        r"[Ss]parse(?! initializer)",
        "A tensor is sparse, and torch.onnx writes dense tensors alone.",
        "Call .to_dense() on it before the export: on an input, or on the buffer that the model "
        "holds.",
    ),
    (
        r"doesn't have storage|_unwrap_for_grad|GradTrackingTensor",
        "A transform of torch.func, such as grad, jvp or jacrev, leaves wrapped tensors in the "
        "graph.",
        "Use torch.autograd.grad inside torch.enable_grad(), which torch.export follows, or write "
        "the derivative out; torch.vmap alone is fine.",
    ),
    (
        r"no fake impl|fake kernel",
        "A custom operator does not say what shape and dtype it makes: it has no fake "
        "implementation.",
        "Register one with torch.library.register_fake: a function that returns an empty tensor "
        "of the right shape and dtype.",
    ),
    (
        r"UnsupportedOperatorException",
        "An operator on this line cannot work on tensors without values, which is how torch.export "
        "runs a model.",
        "Write that step with other operators, or leave `dynamic_shapes` out: for fixed sizes it "
        "may do.",
    ),
    (
        r"but got FakeTensor",
        "Python needs a number, and what a tensor holds is not known when torch.export captures: "
        "lengths of a packed sequence, sizes or counts that are tensors.",
        "Pass it as a Python number, which is baked in, or do without: padded sequences with a "
        "mask, for example.",
    ),
    (
        r"data-dependent expression",
        "Python needs a value that the graph only has when it runs: an `if`, `while`, `int()`, "
        "`.item()` or a slice on what a tensor holds.",
        "Choose with torch.where, keep both branches with torch.cond, or take the decision out of "
        "the model.",
    ),
    (
        r"specialized it to be a constant|Constraints violated|conflicts between user-specified",
        "A dimension that was asked to stay dynamic is fixed by the model.",
        "Take the size from x.shape where the model has a number or a table of fixed length, or "
        "leave that dimension out of `dynamic_shapes`.",
    ),
    (
        r"same device|on device",
        "Tensors of different devices meet in one operation.",
        "Move the model, its inputs and every tensor made inside forward() to one device.",
    ),
    (
        r"not a known type|Unsupported input type|register a pytree",
        "An argument or a result is of a class that torch cannot take apart into tensors{classes}.",
        "Use tensors, tuples, lists and dicts, or register the class before the call: "
        "torch.export.register_dataclass({name}) for a dataclass; for any other, "
        "torch.utils._pytree.register_pytree_node({name}, lambda c: ([c.a, c.b], None), "
        "lambda tensors, _: {name}(*tensors), serialized_type_name={name!r}).",
    ),
    (
        r"Cannot detect fake_mode",
        "Nothing in the graph is a tensor: all numbers of the call are baked in.",
        "Make an argument a tensor, such as torch.tensor(2.0).",
    ),
    (
        r"in_onnx_export must be True|slot already occupied|empty mode stack|"
        r"_EXPORT_MODULE_HIERARCHY must not be None",
        "Another thread exports with torch at the same time, and torch keeps one state for all.",
        "Export in one thread at a time. Those of this package wait for each other.",
    ),
    (
        r"torch\.nn\.DataParallel is not supported",
        "torch.nn.DataParallel copies a model to several devices, and a file holds it once.",
        "Export the model in it: pass model.module.",
    ),
    (
        r"numpy",
        "The model leaves torch for NumPy, and the graph ends there.",
        "Write that step with torch operations.",
    ),
)
"""What torch's error says, or its file on quantization that raised it -> reason and repair."""

_LACKING = re.compile(r"Required parameter '(\w+)' is not provided\. Signature: pkg\.onnxscript")
_CLASS = re.compile(r"<class '([^']+)'>")


def why(error: BaseException) -> tuple[str, str] | None:
    """Reason and repair of what torch raised, where they are known."""
    if machine := refused_by_machine(error):
        return machine
    said = "\n".join(f"{type(one).__name__}: {one}" for one in chained(error))
    files = {frame.tb_frame.f_code.co_filename for frame in _frames(error)}
    said += "\n".join(file for file in files if "quantiz" in file)
    for key, reason, repair in _REASONS:
        if re.search(key, said):
            found = _CLASS.findall(said) if "{name}" in repair else []
            found = [path for path in found if "." in path and not path.startswith("torch.")]
            classes = list(dict.fromkeys(path.rpartition(".")[2] for path in found))
            name = classes[0] if classes else "Class"
            named = f": {', '.join(classes)}" * bool(classes)
            return (
                reason.replace("{classes}", named),
                repair.replace("{name!r}", repr(name)).replace("{name}", name),
            )
    return None


def untranslated(error: Exception, program: ExportedProgram | None = None) -> ExportError:
    """What torch.onnx raised while it decomposed or translated a graph, with its node's line."""
    seeded = next(filter(_seeded, program.graph.nodes if program else ()), None)
    if seeded is not None:
        return ExportError(
            f"{seeded.target} draws random numbers from a torch.Generator, and a file has none.",
            "draw them once, in __init__, and keep them in a buffer; or take them as an input.",
            user_line(seeded.meta.get("stack_trace")),
        )
    root = list(chained(error))[-1]
    first = (str(root).strip().splitlines() or [""])[0]
    raw = f"{type(root).__name__}: {first}"
    node = _node(error)
    line = _line(node) if node else None
    operator = _operator(node) if node else ""
    missing = re.search(r"OpOverload\(op='([^']+)'", str(root))
    if missing:
        return ExportError(
            f"The operator {operator or missing[1]} has no translation into ONNX.",
            "write that step with other operators, or hand export() an onnxscript function for it "
            "in `custom_translation_table`.",
            line,
        )
    if known := why(error):
        message = "torch.onnx could not translate the graph."
        return ExportError(message, known[1], line, reason=known[0])
    if operator and (lacking := _LACKING.search(raw)):
        return ExportError(
            f"The translation of {operator} needs the argument {lacking[1]!r}, and the call leaves "
            "it out: torch has a default for it, and torch.onnx has none.",
            f"pass {lacking[1]} in the call"
            + (", or reduce x.flatten() along dim=0 for the whole tensor." * (lacking[1] == "dim")),
            line,
        )
    if operator:
        return ExportError(
            f"The translation of {operator} refuses this call: {raw}",
            "write that step so that it does not come to this, or hand export() an "
            "onnxscript function for the operator in `custom_translation_table`.",
            line,
        )
    return ExportError(
        f"torch.onnx could not translate the graph: {raw}",
        "look at the graph with capture(...).polish(), and at the chained error.",
        line,
    )


def _seeded(node: fx.Node) -> bool:
    """Whether it draws from a generator, which torch.onnx cannot decompose."""
    return node.kwargs.get("generator") is not None


def _frames(error: BaseException) -> Iterator:
    for one in chained(error):
        trace = one.__traceback__
        while trace is not None:
            yield trace
            trace = trace.tb_next


def _node(error: BaseException) -> fx.Node | None:
    """The FX node that torch worked on: a local variable of the innermost frame that has one."""
    found = None
    for frame in _frames(error):
        if "torch" in frame.tb_frame.f_code.co_filename:
            values = frame.tb_frame.f_locals.values()
            found = next((value for value in values if isinstance(value, fx.Node)), found)
    return found


def _line(node: fx.Node) -> Line | None:
    """Its own line, or that of a neighbor where torch made the node itself."""
    for one in chain([node], node.users, node.all_input_nodes):
        if line := told(user_line(one.meta.get("stack_trace"))):
            return line
    return None


def _operator(node: fx.Node) -> str:
    """The operator as the model calls it: one that torch decomposed is named with its part."""
    if node.op != "call_function":
        return ""
    part, whole = str(node.target), str(node.meta.get("original_aten") or node.target)
    names = [name.removesuffix(".default") for name in (whole, part)]
    return names[0] if names[0] == names[1] else f"{names[0]}, decomposed into {names[1]},"
