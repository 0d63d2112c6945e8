"""Runs by itself: `python repro.py`. It needs torch, onnx, onnxscript and onnxruntime, no weights.

The model has its own source and structure, and random weights of a fixed seed. Its inputs, and
the tensors that it makes for itself, are those of the audit where they take 4 kB or less; larger
ones are drawn anew with the same shape, dtype, mean, deviation and ends, and as many zeros,
infinities and NaN. It is exported, run in ONNX Runtime and compared, at the sizes of the call and
at those that the audit found wrong. Exit code: 0 where all agrees, 1 where it does not.
"""

import json
import pickle
import sys
import tempfile
from functools import reduce
from importlib import import_module
from itertools import zip_longest
from pathlib import Path

import __main__

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "source"))


class Unpickler(pickle.Unpickler):
    """Makes each tensor anew: (key, shape, dtype, is it a parameter, what is known of its values).

    What is known is a list of all values, a dict of statistics, or None of a weight.
    """

    def __init__(self, stream):
        super().__init__(stream)
        self.made = {}
        self.said = []

    def find_class(self, module, name):
        own = module.endswith("inspection.repro")  # where this file lay when it pickled
        return globals()[name] if own else super().find_class(module, name)

    def persistent_load(self, told):
        import torch

        key, shape, dtype, parameter, known = told
        if key not in self.made:
            how = "as it was" if isinstance(known, list) else f"drawn anew: {known or 'a weight'}"
            self.said.append(f"{dtype}{list(shape)} {how}")
            tensor = drawn(key, shape, getattr(torch, dtype), known)
            self.made[key] = torch.nn.Parameter(tensor, False) if parameter else tensor
        return self.made[key]


def parametrized(kind, names):
    """An empty module of ``kind`` with the class that torch makes for these parametrizations."""
    from torch.nn.utils import parametrize

    module = kind.__new__(kind)
    parametrize._inject_new_class(module)
    for name in names:
        parametrize._inject_property(module, name)
    return module


def drawn(key, shape, dtype, known):
    import torch

    if isinstance(known, list):
        return torch.tensor(known, dtype=dtype).reshape(shape)
    seed = torch.Generator().manual_seed(key)
    if known is None:
        return (0.5 + 0.1 * torch.randn(shape, generator=seed)).to(dtype)
    ends = known["low"], known["high"]
    if "mean" in known:
        flat = known["mean"] + known["std"] * torch.randn(shape, generator=seed).double().flatten()
    else:
        flat = torch.randint(ends[0], ends[1] + 1, shape, generator=seed).flatten()
    flat, places = flat.clamp(*ends), torch.randperm(len(flat), generator=seed)
    odd = [(float(word), count) for word, count in known.get("odd", {}).items()]
    for value, count in (*odd, (ends[0], 1), (ends[1], 1)):
        flat[places[:count]], places = value, places[count:]
    return flat.reshape(shape).to(dtype)


def read(name):
    with (HERE / f"{name}.pkl").open("rb") as stream:
        unpickler = Unpickler(stream)
        return unpickler.load(), unpickler.said


def named(path):
    """``package.module:name.of.it``."""
    module, _, name = path.partition(":")
    return reduce(getattr, name.split("."), import_module(module))


def main():
    if (HERE / "source" / "notebook.py").exists():
        import notebook  # type: ignore[import-not-found]

        vars(__main__).update(vars(notebook))
    (model, _), (call, inputs) = read("model"), read("call")
    print("made with", json.loads((HERE / "versions.json").read_text()))
    print(*(f"input: {said}" for said in inputs), sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        return 0 if reproduced(model.eval(), Path(folder), **call) else 1


def reproduced(model, folder, args, kwargs, dynamic, opset, translations, others, **rule):
    """Whether the file gives what the model gives."""
    import onnxruntime
    import torch

    functions = {name: named(name) for name in translations.values()}  # what registers an operator
    table = {named(operator): functions[name] for operator, name in translations.items()}
    program = torch.onnx.export(
        model,
        args,
        kwargs=kwargs,
        dynamic_shapes=dynamic,
        opset_version=opset,
        custom_translation_table=table,
        dynamo=True,
    )
    assert program is not None
    program.save(folder / "model.onnx", external_data=True)
    got = program.model.opset_imports[""]
    print(f"asked for opset {opset or 'by default'}, and the file has {got}")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    print("asked for", dynamic, "and the file takes", [x.shape for x in session.get_inputs()])
    right = [agree(model, session, call, **rule) for call in ((args, kwargs), *others)]
    return all(right) and opset in (None, got)


def agree(model, session, call, tolerances, grains):
    """``grains`` are the coarsest dtypes that the results were computed in, where they are known:
    a float32 result of float16 steps is no more exact than float16."""
    import torch
    from torch.utils._pytree import tree_leaves, tree_map_only

    given = [x for x in tree_leaves(call) if isinstance(x, torch.Tensor)]
    args, kwargs = tree_map_only(torch.Tensor, torch.clone, call)
    with torch.no_grad():
        leaves = zip_longest(tree_leaves(model(*args, **kwargs)), grains)
    expected = [(x, grain) for x, grain in leaves if isinstance(x, torch.Tensor)]
    inputs, outputs = session.get_inputs(), session.get_outputs()
    feeds = {value.name: ort_value(x) for value, x in zip(inputs, given, strict=True)}
    print("called with", [list(x.shape) for x in given])
    try:
        got = [read_back(x) for x in session.run_with_ort_values(None, feeds)]
    except Exception as error:
        print(f"    the file fails: {error}")
        return False
    right = True
    for output, (x, grain), y in zip(outputs, expected, got, strict=True):
        inexact = x.dtype in tolerances
        said = difference(x, y, *(tolerances[grain or x.dtype] if inexact else (0, 0)))
        print(f"    {output.name}: {said or 'agrees'}")
        right = right and not said
    return right


def ort_value(x):
    """For bfloat16 and float8, which NumPy lacks, out of their bits."""
    import onnx
    import torch
    from onnxruntime import OrtValue

    x, name = x.contiguous(), str(x.dtype).removeprefix("torch.")
    if name != "bfloat16" and not name.startswith("float8"):
        return OrtValue.ortvalue_from_numpy(x.numpy())
    bits = x.view(torch.uint8 if x.itemsize == 1 else torch.uint16).numpy()
    kind = getattr(onnx.TensorProto, name.replace("_", "", 1).upper())
    return OrtValue.ortvalue_from_numpy_with_onnx_type(bits, kind)


def read_back(value):
    import torch

    public = getattr(value, "__dlpack__", None)  # since ONNX Runtime 1.27
    return torch.utils.dlpack.from_dlpack((public or value._ortvalue.to_dlpack)())


def difference(x, y, relative, absolute):
    if x.shape != y.shape or x.dtype != y.dtype:
        return f"{x.dtype} {list(x.shape)}, and the file gives {y.dtype} {list(y.shape)}"
    if x.is_floating_point():
        x, y = x.double(), y.double()
    finite = x[x.isfinite()].abs().double()
    largest = (float(finite.max()) if finite.numel() else 0.0) or 1.0
    wrong = ~y.isclose(x, rtol=relative, atol=absolute * largest, equal_nan=True)
    worst = float((x.double() - y.double()).abs().max()) if wrong.any() else 0.0
    return f"{int(wrong.sum()):,} of {x.numel():,} differ, at most by {worst}" if worst else ""


if __name__ == "__main__":
    sys.exit(main())
