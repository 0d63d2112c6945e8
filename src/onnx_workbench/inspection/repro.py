"""Runs by itself: `python repro.py`. It needs torch, onnx and onnxruntime, and no weights.

The model has its own source and structure, and random weights of a fixed seed; the inputs have the
shapes and dtypes of the call. It is exported, run in ONNX Runtime, and compared.
"""

import json
import pickle
import sys
from pathlib import Path

import __main__

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "source"))


class Unpickler(pickle.Unpickler):
    """Makes each tensor anew: (key, shape, dtype, is it a parameter, values or their range)."""

    def __init__(self, stream):
        super().__init__(stream)
        self.made = {}

    def persistent_load(self, told):
        import torch

        key, shape, dtype, parameter, values = told
        if key not in self.made:
            tensor = self.drawn(key, shape, getattr(torch, dtype), values)
            self.made[key] = torch.nn.Parameter(tensor, False) if parameter else tensor
        return self.made[key]

    def drawn(self, key, shape, dtype, values):
        import torch

        if isinstance(values, list):
            return torch.tensor(values, dtype=dtype).reshape(shape)
        seed = torch.Generator().manual_seed(key)
        if values:
            return torch.randint(values[0], values[1] + 1, shape, generator=seed).to(dtype)
        return (0.5 + 0.1 * torch.randn(shape, generator=seed)).to(dtype)


def main():
    if (HERE / "source" / "notebook.py").exists():
        import notebook  # type: ignore[import-not-found]

        vars(__main__).update(vars(notebook))
    with (HERE / "model.pkl").open("rb") as stream:
        model = Unpickler(stream).load()
    with (HERE / "call.pkl").open("rb") as stream:
        call = Unpickler(stream).load()
    print("made with", json.loads((HERE / "versions.json").read_text()))
    compare(model.eval(), **call)


def compare(model, args, kwargs, dynamic, opset):
    import onnxruntime
    import torch
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        expected = [x for x in tree_leaves(model(*args, **kwargs)) if isinstance(x, torch.Tensor)]
    program = torch.onnx.export(
        model, args, kwargs=kwargs, dynamic_shapes=dynamic, opset_version=opset, dynamo=True
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    names = [value.name for value in session.get_inputs()]
    got = session.run(None, {n: x.numpy() for n, x in zip(names, given, strict=True)})
    print("asked for", dynamic, "and the file takes", [x.shape for x in session.get_inputs()])
    outputs = [value.name for value in session.get_outputs()]
    for name, x, y in zip(outputs, expected, got, strict=True):
        y = torch.from_numpy(y)
        same = x.shape == y.shape and x.dtype == y.dtype
        error = float((x - y).double().abs().max()) if same and x.numel() else None
        print(f"{name}: {tuple(x.shape)} and {tuple(y.shape)}, worst difference {error}")


if __name__ == "__main__":
    main()
