"""watch(): each frame's bytecode, graph, guards and breaks, the same on every run."""

from __future__ import annotations

import functools
import logging
import logging.handlers

import pytest
import torch
import torch._dynamo
from models import module
from torch import nn

from onnx_workbench import watch
from onnx_workbench.bytecode import Bytecode, Instruction, disassemble
from onnx_workbench.errors import CaptureError, InputError

X = torch.ones(3)


def branch(x):
    y = x.relu()
    if y.sum() > 0:
        return y + 1
    return y - 1


def straight(x):
    return x.relu() + 1


def loop(x):
    for _ in range(2):
        x = x + 1
        print("again")
    return x


def helper(x):
    print("here")
    return x.cos()


def calls_helper(x):
    return helper(x * 2) + 1


def raises(x):
    x = x + 1
    raise KeyError("nope")


def mismatched(x):
    return x @ torch.ones(7, 7)


def without_tensors(x):
    return 3


def generator(x):
    yield x + 1


def noisy(self, x, scale=2):
    return self.drop(self.norm(x)) * scale


def at(f, offset: int) -> str:
    """The place of a line of ``f`` as reports name it; offset 0 is its ``def``."""
    return f"test_bytecode.py:{f.__code__.co_firstlineno + offset}"


def everything(found) -> str:
    parts = [found, found._repr_html_(), *found.frames]
    return "\n".join(map(str, [*parts, *(frame.bytecode for frame in found.frames)]))


def test_a_data_dependent_branch_breaks_the_graph_at_its_line_and_continues_in_a_resume_function():
    found, line = watch(branch, X), branch.__code__.co_firstlineno + 2
    assert [frame.name for frame in found.frames] == ["branch", f"branch, resumed at line {line}"]
    (graph_break,) = found.breaks
    assert str(graph_break.line) == f"{at(branch, 2)}  if y.sum() > 0:"
    assert "data-dependent branch" in graph_break.reason
    assert "branch: 2 frames, 2 graphs, 1 graph break\n" in repr(found)
    assert [row[2] for row in found.frames[1].nodes][1] == "add"
    assert [row[2] for row in watch(branch, -X).frames[1].nodes][1] == "sub", "the branch not taken"


def test_new_bytecode_calls_the_graph_and_both_resume_functions_and_keeps_the_jump():
    code = watch(branch, X).frames[0].bytecode
    calls = [i.argument for i in code.after if i.name == "LOAD_GLOBAL"]
    assert "__compiled_fn_1" in calls[0]
    assert sum("__resume_at_" in call for call in calls) == 2
    assert not any("__" in instruction.argument for instruction in code.before)
    assert any("JUMP" in new.name for kept, _, run in code.rows() if kept for new in run)
    assert tuple(step for _, _, run in code.rows() for step in run) == code.after
    assert tuple(step for _, run, _ in code.rows() for step in run) == code.before
    assert len(repr(code).splitlines()) < len(code.after) / 2, "moves of values are not folded"
    assert "<details><summary>..." in code._repr_html_()
    code = disassemble(branch.__code__)  # a jump and its target share a label
    (jump,) = (step for step in code if "JUMP" in step.name)
    assert jump.argument == "to L1"
    assert [step.label for step in code if step.label] == ["L1"]


def test_a_break_in_a_loop_leaves_the_whole_frame_alone():
    (frame,) = watch(loop, X).frames
    assert (frame.skipped, frame.graph, frame.bytecode) == (True, None, Bytecode((), ()))
    (graph_break,) = frame.breaks
    assert graph_break.line.text == 'print("again")'
    assert graph_break.reason == "print() is not a tensor operation"
    assert "graph break in loop" in graph_break.words


def test_a_break_in_a_function_that_is_called_breaks_the_caller_too():
    found = watch(calls_helper, X)
    counts = [(frame.name, len(frame.breaks)) for frame in found.frames[:2]]
    assert counts == [("calls_helper", 1), ("helper", 1)]
    assert {found.line.text for found in found.breaks} == {'print("here")'}


def test_guards_say_what_must_hold_for_the_code_to_be_used_again():
    for f, args, guards in (
        (lambda x, n: x * n, (X, 3), {"x is float32[3] on cpu", "n == 3"}),
        (lambda xs: xs[0] + xs[1], ([X, X + 1],), {"len(xs) == 2"}),
        (lambda x, d: x * d["a"], (X, {"a": X}), {"type(d) is dict"}),
    ):
        assert guards <= set(watch(f, args).frames[0].guards)


def test_a_dynamic_dimension_is_a_symbol_in_the_guard_and_in_the_graph():
    x = torch.ones(5, 4)
    torch._dynamo.mark_dynamic(x, 0)
    (frame,) = watch(lambda x: x + 1, x).frames
    (guard,) = (guard for guard in frame.guards if guard.startswith("x is"))
    symbol = guard.removeprefix("x is float32[").removesuffix(", 4] on cpu")
    assert symbol.startswith("s")
    assert f"float32[{symbol}, 4]" in {row[3] for row in frame.nodes}
    assert "2 <= L['x'].size()[0]" in frame.guards


def test_the_report_is_the_same_twice_and_names_no_address_or_unique_id():
    """In another process it is the same too: nbval compares that of lesson 02."""
    for f in (branch, calls_helper, loop):
        here = everything(watch(f, X))
        assert here == everything(watch(f, X))
        assert "0x" not in here
        assert "_fn_1_" not in here


@pytest.mark.parametrize("called", [lambda model: model, lambda model: model.forward])
def test_the_model_the_random_state_and_the_gradients_stay_as_they_were(called):
    model = module(noisy, norm=nn.BatchNorm1d(3), drop=nn.Dropout(0.5)).train()
    names, state = list(vars(model)), {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    found = watch(called(model), torch.arange(12.0).reshape(4, 3), {"scale": 3})
    assert [frame.name for frame in found.frames] == ["Model.forward"]
    assert model.training
    assert list(vars(model)) == names
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
    with torch.inference_mode():
        assert watch(straight, X).frames[0].graph is not None
    with torch.no_grad():
        assert watch(straight, X.clone().requires_grad_()).breaks == ()


def test_nothing_of_it_stays_in_dynamo():
    compiled = torch.compile(straight, backend="eager")
    compiled(X)
    names = set(globals())
    watch(straight, X)
    watch(calls_helper, X)
    watch(functools.partial(straight), X)
    with pytest.raises(CaptureError):
        watch(raises, X)
    added = set(globals()) - names
    assert not [name for name in added if name.startswith(("__compiled_fn", "__resume_at"))]
    assert not torch._dynamo.convert_frame._bytecode_hooks
    assert not torch._dynamo.utils.get_compilation_metrics()
    assert torch.equal(compiled(X), straight(X))


def test_names_from_the_model_are_escaped():
    code = Bytecode((Instruction("LOAD_CONST", "'<script>'"),), ())
    assert "<script>" not in code._repr_html_()
    evil = watch(lambda x: x + torch.tensor(1), X)
    object.__setattr__(evil.frames[0], "name", "<img src=x>")
    assert "<img" not in evil._repr_html_() + evil.frames[0]._repr_html_()


@pytest.mark.parametrize(
    ("f", "error", "noun"),
    [
        (X, InputError, "got a Tensor"),
        (nn.ReLU, InputError, "an instance"),
        (torch.jit.trace(straight, X), InputError, "TorchScript"),
        (without_tensors, InputError, "without_tensors"),
        (generator, InputError, "generator functions"),
        (raises, CaptureError, "'nope'"),
        (mismatched, CaptureError, "got [1, 3] X [7, 7]"),
        (lambda: X, CaptureError, "takes 0 positional arguments"),
    ],
)
def test_what_cannot_be_watched_is_an_error(f, error, noun):
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    heard = logging.handlers.BufferingHandler(1000)
    logger.addHandler(heard)
    with pytest.raises(error) as caught:
        watch(f, X)
    logger.removeHandler(heard)
    assert noun in str(caught.value)
    assert caught.value.hint
    assert heard.buffer == [], "torch logs what the error says"
    assert logger.isEnabledFor(logging.ERROR)
    if error is CaptureError:
        inside = {raises: at(f, 2), mismatched: at(f, 1)}
        assert str(getattr(caught.value.line, "place", None)) == str(inside.get(f))
        assert isinstance(caught.value.__cause__, KeyError if f is raises else Exception)


def test_the_private_names_of_torch_are_where_they_were():
    """Where this fails, torch moved something that bytecode.py uses."""
    from torch._dynamo import convert_frame, utils
    from torch._guards import CompileContext

    assert isinstance(utils.graph_break_reasons, list)
    fields = {"compile_id", "co_name", "co_filename", "co_firstlineno", "fail_reason"}
    fields |= {"fail_user_frame_filename", "fail_user_frame_lineno"}
    assert fields <= set(utils.CompilationMetrics.__dataclass_fields__)
    assert isinstance(utils.CleanupManager.instance.refs, dict)
    assert callable(convert_frame.register_bytecode_hook)
    assert callable(CompileContext.current_compile_id)
