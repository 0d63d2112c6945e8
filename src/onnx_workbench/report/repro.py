"""Reproduces what an audit found: `python repro.py`. Exit code 0 if everything agrees, else 1.

It needs torch, onnxscript, onnxruntime and cloudpickle; if there is a source/notebook.py, also the
Python of versions.json.
The model has its own source and structure; its weights are random numbers with a fixed seed. Inputs
and constants of more than 4 kB are random, too, with the original's shape, dtype, mean, deviation
and range, and as many zeros, infinities and NaNs. The script exports the model, runs it and
compares, at the sizes of the call and at those that the audit found wrong.
"""

import functools
import json
import pickle
import sys
from pathlib import Path

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "source"))


class Unpickler(pickle.Unpickler):
    def persistent_load(self, pid):
        kind, *values = pid
        return weight(*values) if kind == "weight" else operator(*values)


@functools.cache  # a tied weight stays one tensor
def weight(seed, shape, dtype, is_parameter):
    generator = torch.Generator().manual_seed(seed)
    drawn = (0.5 + 0.1 * torch.randn(shape, generator=generator)).to(dtype)
    return torch.nn.Parameter(drawn, False) if is_parameter else drawn


@functools.cache
def operator(name, schema, mutated, function, fake):
    op = torch.library.custom_op(name, function, schema=schema, mutates_args=mutated)
    if fake:
        op.register_fake(fake)
    return op


def load():
    versions = json.loads((HERE / "versions.json").read_text())
    print("made with", versions)
    python = ".".join(map(str, sys.version_info[:2]))
    by_value = (HERE / "source" / "notebook.py").exists()
    if by_value and not versions["python"].startswith(f"{python}."):
        sys.exit(f"The notebook's classes are bytecode: run Python {versions['python']}.")
    with (HERE / "call.pkl").open("rb") as stream:
        return Unpickler(stream).load()


def main():
    case = load()
    model, asked = case["model"].eval(), case["opset"]
    if case["fixed"]:  # torch.onnx.export fails at a fixed number in a result
        model.forward = without(case["fixed"], model.forward)
    program = torch.onnx.export(
        model,
        case["args"],
        kwargs=case["kwargs"],
        dynamic_shapes=case["dynamic_shapes"],
        opset_version=asked,
        custom_translation_table={op: function for function, op in case["translations"]},
        dynamo=True,
    )
    assert program is not None
    got = program.model.opset_imports[""]
    print(f"opset asked for: {asked or 'the default'}; opset of the file: {got}")
    print("the file takes", [str(value.shape) for value in program.model.graph.inputs])
    calls = [(case["args"], case["kwargs"]), *case["failing_calls"]]
    agrees = [compare(model, program, call, case["tolerances"]) for call in calls]
    return 0 if all(agrees) and asked in (None, got) else 1


def without(fixed, forward):
    @functools.wraps(forward)  # torch.export reads its parameters
    def tensors(*args, **kwargs):
        result = tree_map_only(torch.Size, tuple, forward(*args, **kwargs))
        return [leaf for i, leaf in enumerate(tree_leaves(result)) if i not in fixed]

    return tensors


def compare(model, program, call, tolerances):
    inputs = [x for x in tree_leaves(call) if isinstance(x, torch.Tensor)]
    print("called with", [list(x.shape) for x in inputs])
    args, kwargs = tree_map_only(torch.Tensor, torch.clone, call)
    with torch.no_grad():
        result = model(*args, **kwargs)
    result = tree_map_only(torch.Size, tuple, result)
    expected = [leaf for leaf in tree_leaves(result) if leaf is not None]
    outputs = program(*inputs)
    if len(expected) != len(outputs):
        print(f"    {len(expected)} outputs, but the file gives {len(outputs)}")
        return False
    reasons = list(map(difference, expected, outputs, tolerances))
    print(*(f"    output {i}: {reason or 'agrees'}" for i, reason in enumerate(reasons)), sep="\n")
    return not any(reasons)


def difference(x, y, tolerance):
    x = x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=y.dtype)  # a size, as a number
    if x.shape != y.shape or x.dtype != y.dtype:
        return f"{x.dtype} {list(x.shape)}, but the file gives {y.dtype} {list(y.shape)}"
    relative, absolute = tolerance
    x, y = (z.double() if z.is_floating_point() else z.long() for z in (x, y))
    masked = (x == y) & (x.abs() >= 2**13) & (x == x.round())  # such as -1e9: no computed number
    largest = max(x[x.isfinite() & ~masked].abs().double().tolist(), default=0.0) or 1.0
    wrong = ~y.isclose(x, rtol=relative, atol=absolute * largest, equal_nan=True)
    worst = (x.double() - y.double()).abs().max() if wrong.any() else 0
    return f"{int(wrong.sum()):,} of {x.numel():,} differ, at most by {worst}" if worst else ""


if __name__ == "__main__":
    sys.exit(main())
