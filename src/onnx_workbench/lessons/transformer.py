"""A small transformer encoder in plain PyTorch: a graph worth looking at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..formatting import plural

SEED = 0


class Attention(nn.Module):
    """Multi-head self-attention of *Attention Is All You Need* (Vaswani et al., 2017).

    ``float32[batch, words, width]`` -> the same shape.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        query = self.split(self.query(words))
        key = self.split(self.key(words))
        value = self.split(self.value(words))
        scores = query @ key.transpose(-2, -1)
        weights = torch.softmax(scores / self.size**0.5, dim=-1)
        mixed = weights @ value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def split(self, words: torch.Tensor) -> torch.Tensor:
        """``[batch, words, width]`` -> ``[batch, heads, words, size]``."""
        return words.unflatten(-1, (self.heads, self.size)).transpose(1, 2)


class Block(nn.Module):
    """Attention, then a small MLP, each beside a residual path and after a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.look = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.think = nn.LayerNorm(width)
        self.grow = nn.Linear(width, 4 * width)
        self.shrink = nn.Linear(4 * width, width)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        words = words + self.attention(self.look(words))
        thought = torch.relu(self.grow(self.think(words)))
        return words + self.shrink(thought)


class TextEncoder(nn.Module):
    """Token ids ``int64[batch, words]`` -> features ``float32[batch, words, width]``."""

    def __init__(self, tokens: int = 64, width: int = 32, heads: int = 4, blocks: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        words = self.embedding(tokens)
        for block in self.blocks:
            words = block(words)
        return self.norm(words)


@dataclass(frozen=True, repr=False, eq=False)
class Encoder:
    """A :class:`TextEncoder` and the arguments to call it with: ``model(*inputs)``."""

    model: TextEncoder
    inputs: tuple[torch.Tensor, ...]

    def __repr__(self) -> str:
        weights = sum(p.numel() for p in self.model.parameters())
        return (
            f"Encoder: {type(self.model).__name__} of {plural(len(self.model.blocks), 'block')}, "
            f"{plural(weights, 'parameter')} (random); "
            f"tokens int64{list(self.inputs[0].shape)}"
        )


def encoder() -> Encoder:
    """A small transformer encoder with random weights of a fixed seed, in eval mode.

    >>> small = encoder()
    >>> small
    Encoder: TextEncoder of 3 blocks, 40,224 parameters (random); tokens int64[2, 12]
    >>> small.model(*small.inputs).shape
    torch.Size([2, 12, 32])
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = TextEncoder().eval().requires_grad_(False)
        tokens = torch.randint(model.embedding.num_embeddings, (2, 12))
    return Encoder(model, (tokens,))
