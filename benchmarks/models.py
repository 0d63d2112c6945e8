"""The models of the benchmarks: eight small architectures with random weights, and chains of nodes.

They are written as a user would write them, each with its own habit: residual paths, depthwise
convolutions, patches and a class token, a padding mask, a causal mask, rotary embedding, a
recurrence, a branch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Case(NamedTuple):
    """A model in eval mode, what to call it with, and its dynamic dimensions."""

    model: nn.Module
    inputs: tuple[Tensor, ...]
    dynamic: dict[str, dict[int, str]]


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        y = self.norm1(y)
        y = F.relu(y)
        y = self.norm2(self.conv2(y))
        return F.relu(x + y)


class Depthwise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 4 * width, 1)
        self.depthwise = nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width)
        self.squeeze, self.excite = nn.Linear(4 * width, width), nn.Linear(width, 4 * width)
        self.project = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.hardswish(self.expand(x))
        y = F.hardswish(self.depthwise(y))
        gate = self.excite(F.silu(self.squeeze(y.mean((2, 3)))))
        return x + self.project(y * torch.sigmoid(gate)[:, :, None, None])


class ResidualCNN(nn.Module):
    def __init__(self, block: Callable[[int], nn.Module] = Residual, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(block(width) for _ in range(4))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Layer(nn.Module):
    """Before its norms (ViT, GPT) or behind them (BERT)."""

    def __init__(self, width: int, heads: int, causal: bool = False, post: bool = False) -> None:
        super().__init__()
        self.heads, self.causal, self.post = heads, causal, post
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, n, w = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).reshape(b, n, w))

    def mlp(self, x: Tensor) -> Tensor:
        x = self.grow(x)
        x = F.gelu(x)
        return self.shrink(x)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.post:
            x = self.norm1(x + self.attention(x, mask))
            return self.norm2(x + self.mlp(x))
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, stride=8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, 65, width))
        self.layers = nn.ModuleList(Layer(width, 4) for _ in range(4))
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


class Bert(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.words, self.kinds = nn.Embedding(1000, width), nn.Embedding(2, width)
        self.places, self.norm = nn.Embedding(128, width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, 4, post=True) for _ in range(4))
        self.pool = nn.Linear(width, width)

    def forward(self, tokens: Tensor, kinds: Tensor, padding: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.kinds(kinds) + self.places(places)
        x = self.norm(x)
        mask = (1.0 - padding[:, None, None, :].to(x.dtype)) * -1e4
        for layer in self.layers:
            x = layer(x, mask)
        return torch.tanh(self.pool(x[:, 0]))


class GPT(nn.Module):
    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(1000, width), nn.Embedding(128, width)
        self.layers = nn.ModuleList(Layer(width, 4, causal=True) for _ in range(4))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.places(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.words.weight.T


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class LlamaLayer(nn.Module):
    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.scales = nn.Parameter(torch.ones(2, width))
        self.q, self.o = (nn.Linear(width, width, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)

    def norm(self, x: Tensor, which: int) -> Tensor:
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.scales[which] * (x * scale)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, self.size).transpose(1, 2)
        k = self.k(x).view(b, n, self.groups, self.size).transpose(1, 2)
        v = self.v(x).view(b, n, self.groups, self.size).transpose(1, 2)
        q = rotated(q, cos, sin)
        k = rotated(k, cos, sin).repeat_interleave(self.heads // self.groups, dim=1)
        v = v.repeat_interleave(self.heads // self.groups, dim=1)
        scores = q @ k.transpose(-2, -1) / self.size**0.5
        weights = torch.softmax(scores + mask, dim=-1)
        return self.o((weights @ v).transpose(1, 2).reshape(b, n, -1))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        x = x + self.attend(self.norm(x, 0), cos, sin, mask)
        y = self.norm(x, 1)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    def __init__(self, width: int = 128, heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(1000, width)
        self.layers = nn.ModuleList(LlamaLayer(width, heads, 2) for _ in range(3))
        self.head = nn.Linear(width, 1000, bias=False)
        rate = 1e4 ** (-torch.arange(0, width // heads, 2) / (width // heads))
        self.register_buffer("rate", torch.cat([rate, rate]))

    def forward(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        angle = torch.arange(n)[:, None] * self.rate
        mask = torch.full((n, n), -1e9).triu(1)
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x, angle.cos(), angle.sin(), mask)
        return self.head(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(500, 64)
        self.lstm = nn.LSTM(64, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.words(tokens))
        return self.head(states[:, -1])


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shallow = nn.Linear(256, 256), nn.Linear(256, 256)
        self.deep, self.deeper = nn.Linear(256, 1024), nn.Linear(1024, 256)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.cond(x.sum() > 0, self.hard, self.shallow, (x,))
        return torch.softmax(y + x, dim=-1)

    def hard(self, x: Tensor) -> Tensor:
        return self.deeper(F.gelu(self.deep(x)))


class Deep(nn.Module):
    """A number of nodes on two lines, through which rounding errors grow if asked to."""

    def __init__(self, nodes: int, growing: bool = False) -> None:
        super().__init__()
        self.turns, self.growing = nodes // 2, growing

    def forward(self, x: Tensor) -> Tensor:
        for turn in range(self.turns):
            x = torch.sin(x)
            x = x * (1 + turn) if self.growing else x + (1 + turn) / self.turns
        return x


STEPS = 20
"""Nodes of a layer of a chain."""


def chain(
    nodes: int, source: str = "net.py", modules: bool = True, weights: int = 0
) -> onnx.ModelProto:
    """A file of that many nodes in a row, with the metadata of torch's exporter.

    The first 16 layers have weights, of ``weights`` bytes in all.
    """
    ends = [onnx.helper.make_tensor_value_info(f"v{at}", 1, [8]) for at in (0, nodes)]
    graph = onnx.helper.make_graph([], "chain", ends[:1], ends[1:])
    for layer in range(16 if weights else 0):
        weight = graph.initializer.add(name=f"w{layer}", data_type=onnx.TensorProto.INT8)
        weight.dims.append(weights // 16)
        weight.raw_data = bytes(weights // 16)
    for at in range(nodes):
        layer, step = divmod(at, STEPS)
        more = [f"w{layer}"] * (step == 1 and layer < len(graph.initializer))
        node = graph.node.add(name=f"node_{at}", op_type="Add" if more else "Relu")
        node.input.extend([f"v{at}", *more])
        node.output.append(f"v{at + 1}")
        metadata = {
            "name_scopes": str(["", *[f"layers.{layer}"] * modules, f"relu_{at}"]),
            "class_hierarchy": str(["m.Model", *["m.Layer"] * modules, "aten.relu.default"]),
            "fx_node": f"%relu_{at} : [num_users=1] = call_function"
            f"[target=torch.ops.aten.relu.default](args = (%relu_{at - 1},), kwargs = {{}})",
            "stack_trace": f'File "{source}", line {step + 3}, in forward\n    x = x.relu()',
        }
        for key, value in metadata.items():
            node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])


def tokens(rows: int, columns: int, most: int) -> Tensor:
    return torch.randint(most, (rows, columns))


def masked(rows: int) -> tuple[Tensor, ...]:
    return tokens(rows, 64, 1000), tokens(rows, 64, 2), torch.ones(rows, 64, dtype=torch.bool)


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
WORDS = {"tokens": {0: "batch", 1: "words"}}

MAKERS: dict[str, Callable[[], Case]] = {
    "residual CNN": lambda: Case(ResidualCNN(), (IMAGES,), {"x": {0: "batch"}}),
    "depthwise CNN": lambda: Case(ResidualCNN(Depthwise, 24), (IMAGES,), {}),
    "ViT": lambda: Case(VisionTransformer(), (IMAGES,), {}),
    "BERT-like": lambda: Case(Bert(), masked(2), {}),
    "GPT-like": lambda: Case(GPT(), (tokens(2, 64, 1000),), WORDS),
    "Llama-like": lambda: Case(Llama(), (tokens(2, 64, 1000),), WORDS),
    "LSTM": lambda: Case(Recurrent(), (tokens(4, 32, 500),), {}),
    "torch.cond": lambda: Case(Branching(), (torch.randn(32, 256),), {}),
}


def case(name: str) -> Case:
    """The same weights and inputs on every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = MAKERS[name]()
    made.model.eval().requires_grad_(False)
    return made
