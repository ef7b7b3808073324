"""Networks that a student would try, of a pattern and of what a memory says to it: f(s, M s) of MarginEnergy.

Each takes d and a width, maps two tensors (..., d) to features (..., width), and knows nothing of energies or memories.

Example:
    >>> Perceptron(64, width=128)(torch.rand(2, 5, 64), torch.rand(2, 5, 64)).shape
    torch.Size([2, 5, 128])
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.energies.gated import gated_hops


class Perceptron(nn.Module):
    """Two hidden layers of tanh units over all bits."""

    def __init__(self, features: int, width: int = 128):
        super().__init__()
        self.first, self.second = nn.Linear(2 * features, width), nn.Linear(width, width)

    def forward(self, signs: Tensor, answer: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(torch.cat([signs, answer], -1)))))


class ResidualPerceptron(nn.Module):
    """A linear map and blocks ``z ← z + ½ B tanh(A z)``, bounded at the end."""

    def __init__(self, features: int, width: int = 128, blocks: int = 3):
        super().__init__()
        self.first = nn.Linear(2 * features, width)
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.outer = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))

    def forward(self, signs: Tensor, answer: Tensor) -> Tensor:
        state = self.first(torch.cat([signs, answer], -1))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            state = state + 0.5 * outer(torch.tanh(inner(state)))
        return torch.tanh(state)


class GatedRecurrent(nn.Module):
    """The paper's gated hops (appendix B), which here read the pattern and the memory's answer to it."""

    def __init__(self, features: int, width: int = 128, hops: int = 3):
        super().__init__()
        self.hops = hops
        self.from_input = nn.Linear(2 * features, 2 * width)
        self.from_state = nn.Linear(width, 2 * width, bias=False)

    def forward(self, signs: Tensor, answer: Tensor) -> Tensor:
        from_input = self.from_input(torch.cat([signs, answer], -1))
        return gated_hops(from_input, lambda state: from_input + self.from_state(state), self.hops, dim=-1)


class BitAttention(nn.Module):
    """Attention among the bits, each a token of its sign, its answer and its place, and a mean over them."""

    def __init__(self, features: int, width: int = 32):
        super().__init__()
        size = width // 2
        self.token, self.place = nn.Linear(2, size), nn.Parameter(0.5 * torch.randn(features, size))
        self.to_heads, self.from_heads = nn.Linear(size, 3 * size), nn.Linear(size, size)
        self.last = nn.Linear(size, width)

    def forward(self, signs: Tensor, answer: Tensor) -> Tensor:
        tokens = self.token(torch.stack([signs, answer], -1)) + self.place
        query, key, value = self.to_heads(tokens).chunk(3, -1)
        looked_at = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), -1) @ value
        tokens = tokens + self.from_heads(looked_at)
        return torch.tanh(self.last(torch.tanh(tokens))).mean(-2) * math.sqrt(signs.shape[-1])


class Convolution(nn.Module):
    """Two convolutions along the bits, taken as a ring, and a mean over them."""

    def __init__(self, features: int, width: int = 32, kernel: int = 9):
        super().__init__()
        channels, around = width // 2, kernel // 2
        self.first = nn.Conv1d(2, channels, kernel, padding=around, padding_mode="circular")
        self.second = nn.Conv1d(channels, width, kernel, padding=around, padding_mode="circular")

    def forward(self, signs: Tensor, answer: Tensor) -> Tensor:
        rings = torch.stack([signs, answer], -2)
        rows = torch.tanh(self.second(torch.tanh(self.first(rings.flatten(0, -3)))))
        return torch.unflatten(rows.mean(-1), 0, signs.shape[:-1]) * math.sqrt(signs.shape[-1])


class Mixture(nn.Module):
    """Experts of one hidden layer each, of which a softmax chooses."""

    def __init__(self, features: int, width: int = 256, experts: int = 4):
        super().__init__()
        self.experts = experts
        self.gate, self.hidden = nn.Linear(2 * features, experts), nn.Linear(2 * features, width)

    def forward(self, signs: Tensor, answer: Tensor) -> Tensor:
        seen = torch.cat([signs, answer], -1)
        chosen = torch.softmax(self.gate(seen), -1).unsqueeze(-1)
        return (chosen * torch.unflatten(torch.tanh(self.hidden(seen)), -1, (self.experts, -1))).flatten(-2)
