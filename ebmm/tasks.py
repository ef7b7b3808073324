"""What is stored and how it is corrupted: sources of patterns, corruptions of queries, and the two as a task.

Everything random comes from one ``torch.Generator`` and is drawn memory by memory, so that two
batches of four memories equal one batch of eight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Batch(NamedTuple):
    """Patterns to store and queries to recall them from.

    Attributes:
        patterns: (B, N, *S) in [0, 1].
        queries: (B, N, *S) in [0, 1], query n a corruption of pattern n.
        intact: (B, N, *S) bool, the elements that the corruption left alone. Only a memory that is
            told so (``Hopfield.read(..., clamp=intact)``) may look at it.
    """

    patterns: Tensor
    queries: Tensor
    intact: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(*(tensor.to(device) for tensor in self))


@dataclass(frozen=True)
class Task:
    """A memory task: N patterns from a source in each memory, queries made by a corruption.

    Args:
        source: ``source(number, generator)`` returns (number, *S) in [0, 1].
        corruption: ``corruption(patterns, generator)`` returns queries and intact elements, both (N, *S).
        number: N, patterns in a memory, at least 1.
        metric: what :func:`ebmm.evaluate` reports, ``"wrong bits"`` or ``"squared error"``.

    Raises:
        ValueError: number or metric out of range.

    Example:
        >>> task = Task(RandomBits(64), FlipBits(0.15), number=16)
        >>> batch = task.sample(3, torch.Generator().manual_seed(0))
        >>> batch.patterns.shape
        torch.Size([3, 16, 64])
    """

    source: Callable[[int, Generator], Tensor]
    corruption: Callable[[Tensor, Generator], tuple[Tensor, Tensor]]
    number: int
    metric: str = "wrong bits"

    def __post_init__(self):
        if self.number < 1:
            raise ValueError(f"number must be at least 1, got {self.number}")
        if self.metric not in ("wrong bits", "squared error"):
            raise ValueError(f"metric must be 'wrong bits' or 'squared error', got {self.metric!r}")

    def sample(self, memories: int, generator: Generator) -> Batch:
        """Draw patterns and queries for B memories, on the CPU.

        Raises:
            ValueError: fewer than one memory, or a corruption that calls intact what it changed.
            TypeError: the corruption does not return queries and, in bools, which elements are intact.
        """
        if memories < 1:
            raise ValueError(f"memories must be at least 1, got {memories}")
        drawn = []
        for _ in range(memories):
            patterns = self.source(self.number, generator)
            drawn.append((patterns, *self._corrupted(patterns, generator)))
        return Batch(*(torch.stack(tensors) for tensors in zip(*drawn, strict=True)))

    def _corrupted(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        made = self.corruption(patterns.clone(), generator)
        if not (isinstance(made, tuple) and len(made) == 2 and all(isinstance(part, Tensor) for part in made)):
            raise TypeError(f"a corruption must return two tensors, queries and intact, got {type(made).__name__}")
        queries, intact = made
        if intact.dtype != torch.bool:
            raise TypeError(f"a corruption must tell in bools which elements are intact, got {intact.dtype}")
        if queries.shape == intact.shape == patterns.shape and ((queries != patterns) & intact).any():
            raise ValueError("a corruption calls elements intact that it changed: True is for those left alone")
        return queries, intact


# Sources of patterns


@dataclass(frozen=True)
class RandomBits:
    """Independent bits, 0 or 1 with probability one half.

    Args:
        dim: d, bits of a pattern.
    """

    dim: int

    def __call__(self, number: int, generator: Generator) -> Tensor:
        return torch.randint(0, 2, (number, self.dim), generator=generator).float()


@dataclass(frozen=True)
class CorrelatedBits:
    """Bits that copy one of a few hidden factors of their pattern, each with some noise.

    One fixed draw (from ``seed``) assigns each bit a factor and a sign; a pattern draws its factors,
    and each bit then flips with probability ``noise``. All patterns of all memories share the
    assignment, so it is worth learning. At noise 0 a pattern carries ``factors`` bits of information
    in ``dim`` bits; at noise ½ it is random.

    Args:
        dim: d, bits of a pattern.
        factors: how many hidden bits, 1 to dim.
        noise: probability in [0, ½] that a bit differs from its factor.
        seed: of the shared assignment.

    Example:
        >>> CorrelatedBits(64, factors=8, noise=0.05).entropy_bound < 64
        True
    """

    dim: int
    factors: int
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.factors <= self.dim or not 0 <= self.noise <= 0.5:
            raise ValueError(
                f"factors must lie in [1, {self.dim}] and noise in [0, 0.5], got {self.factors} and {self.noise}"
            )

    def __call__(self, number: int, generator: Generator) -> Tensor:
        shared = Generator().manual_seed(self.seed)
        assignment = torch.arange(self.dim).remainder(self.factors)[torch.randperm(self.dim, generator=shared)]
        sign = torch.randint(0, 2, (self.dim,), generator=shared).float()
        hidden = torch.randint(0, 2, (number, self.factors), generator=generator).float()
        flips = (torch.rand(number, self.dim, generator=generator) < self.noise).float()
        return (hidden[:, assignment] - sign).abs().sub(flips).abs()

    @property
    def entropy_bound(self) -> float:
        """An upper bound on the entropy of a pattern in bits: factors + dim · H(noise), at most dim."""
        p = self.noise
        noise_entropy = 0.0 if p == 0 else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))
        return min(self.dim, self.factors + self.dim * noise_entropy)


@dataclass(frozen=True)
class ImagePatterns:
    """Different images drawn at random from a set.

    Args:
        images: (M, *S), floats in [0, 1], such as ``ebmm.datasets.digits().images``, or bytes, which stand for
            255ths, such as ``ebmm.datasets.cifar10().images``.
        threshold: binarise at this grey level; ``None`` keeps the grey levels.
        flatten: give patterns of shape (d,) instead of S.

    Raises:
        TypeError: not a tensor.
        ValueError: values outside [0, 1], or fewer images than a memory needs.
    """

    images: Tensor
    threshold: float | None = None
    flatten: bool = False

    def __post_init__(self):
        if not isinstance(self.images, Tensor):
            raise TypeError(f"images must be a tensor, such as digits().images, got {type(self.images).__name__}")
        if self.images.dtype == torch.uint8 and self.images[:1000].max() > 1:  # else rather bits than bytes
            return
        low, high = (v.item() for v in torch.aminmax(self.images))
        if not self.images.is_floating_point() or not 0 <= low <= high <= 1:
            raise ValueError(
                f"images must be floats in [0, 1], or bytes up to 255, got {self.images.dtype} from {low:g} to {high:g}"
            )

    def __repr__(self) -> str:
        return f"ImagePatterns{tuple(self.images.shape)}"

    def __call__(self, number: int, generator: Generator) -> Tensor:
        if number > len(self.images):
            raise ValueError(f"a memory of {number} different images needs as many, got a set of {len(self.images)}")
        chosen = self.images[torch.randperm(len(self.images), generator=generator)[:number]]
        if chosen.dtype == torch.uint8:
            chosen = chosen.float() / 255
        if self.threshold is not None:
            chosen = (chosen > self.threshold).to(chosen.dtype)
        return chosen.flatten(1) if self.flatten else chosen


@dataclass(frozen=True)
class LazyImages:
    """:class:`ImagePatterns` of a set that is read from disk when the first patterns are drawn.

    Args:
        load: returns the set, such as ``ebmm.datasets.mnist``.
        threshold: as for :class:`ImagePatterns`.
        variations: ``variations(images, generator)`` changes the images drawn, for training on more of them than
            the set has: :func:`mirrored` or :func:`turned_and_shifted`; ``None`` leaves them as they are.

    Example:
        >>> from ebmm.datasets import digits
        >>> LazyImages(digits)(5, torch.Generator()).shape
        torch.Size([5, 28, 28])
    """

    load: Callable
    threshold: float | None = None
    variations: Callable[[Tensor, Generator], Tensor] | None = None

    def __call__(self, number: int, generator: Generator) -> Tensor:
        images = ImagePatterns(_loaded(self.load).images, self.threshold)(number, generator)
        return images if self.variations is None else self.variations(images, generator)

    @property
    def name(self) -> str:
        """The name of the set."""
        return _loaded(self.load).name


def mirrored(images: Tensor, generator: Generator) -> Tensor:
    """Every other image, at random, with left and right exchanged: (N, ..., H, W), the same shape."""
    return torch.where(_coins(images, generator), images.flip(-1), images)


def turned_and_shifted(images: Tensor, generator: Generator, most: int = 2) -> Tensor:
    """Each square image in one of its eight orientations and moved by at most so many pixels, at random.

    What leaves on one side comes in on the other.

    Args:
        images: (N, ..., H, H).
        most: pixels, at least 0, up or down and to the left or right.

    Returns:
        The same shape.

    Example:
        >>> image = torch.zeros(1, 5, 5)
        >>> image[0, 2, 0] = 1
        >>> turned_and_shifted(image, torch.Generator().manual_seed(0)).sum()
        tensor(1.)
    """
    images = torch.where(_coins(images, generator), images.mT, images)
    images = torch.where(_coins(images, generator), images.flip(-2), images)
    images = mirrored(images, generator)
    moves = torch.randint(-most, most + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image.roll(move, (-2, -1)) for image, move in zip(images, moves, strict=True)])


def _coins(images: Tensor, generator: Generator) -> Tensor:
    """A random truth value for each image, of a shape that goes with it."""
    return torch.randint(0, 2, (len(images), *[1] * (images.dim() - 1)), generator=generator).bool()


@lru_cache(maxsize=4)
def _loaded(load: Callable):
    return load()


# Corruptions: patterns (N, *S) to queries and intact elements, both (N, *S)


@dataclass(frozen=True)
class RedrawBits:
    """Draw ``count`` random bits of each pattern afresh; on average half of them change (the paper's corruption).

    Args:
        count: how many bits of each pattern, at most d.
    """

    count: int

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        redrawn = _random_elements(patterns, self.count, generator)
        random = torch.randint(0, 2, patterns.shape, generator=generator).to(patterns.dtype)
        return torch.where(redrawn, random, patterns), ~redrawn


@dataclass(frozen=True)
class FlipBits:
    """Flip each bit with some probability, x to 1 − x.

    Args:
        probability: in [0, 1].
    """

    probability: float

    def __post_init__(self):
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {self.probability}")

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        flipped = torch.rand(patterns.shape, generator=generator) < self.probability
        return torch.where(flipped, 1 - patterns, patterns), ~flipped


@dataclass(frozen=True)
class EraseBits:
    """Erase ``count`` random elements of each pattern.

    Args:
        count: how many elements, at most the pattern's size.
        value: what they are erased to, in [0, 1]. A Hopfield network takes only 0 or 1; ½ says "unknown".
    """

    count: int
    value: float = 0.0

    def __post_init__(self):
        if not 0 <= self.value <= 1:
            raise ValueError(f"value must lie in [0, 1], got {self.value}")

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        erased = _random_elements(patterns, self.count, generator)
        return torch.where(erased, self.value, patterns), ~erased


def _random_elements(patterns: Tensor, count: int, generator: Generator) -> Tensor:
    """``count`` different elements of each pattern, drawn at random: bool, the patterns' shape."""
    size = patterns[0].numel()
    if not 0 <= count <= size:
        raise ValueError(f"count must lie in [0, {size}], got {count}")
    order = torch.rand(len(patterns), size, generator=generator).argsort(1)
    chosen = torch.zeros(len(patterns), size, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return chosen.view_as(patterns)


@dataclass(frozen=True)
class NoiseBlock:
    """Replace a square block at a random place of each image by noise (the paper's corruption of images).

    Args:
        size: side of the block in pixels, at most that of the image.
        binary: noise of random bits instead of uniform grey levels.
    """

    size: int
    binary: bool = False

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        if patterns.dim() < 3:
            raise ValueError(f"NoiseBlock needs images (N, ..., height, width), got {tuple(patterns.shape)}")
        height, width = patterns.shape[-2:]
        if not 1 <= self.size <= min(height, width):
            raise ValueError(f"size must lie in [1, {min(height, width)}], got {self.size}")
        number = len(patterns)
        top = torch.randint(0, height - self.size + 1, (number, 1), generator=generator)
        left = torch.randint(0, width - self.size + 1, (number, 1), generator=generator)
        rows, columns = torch.arange(height), torch.arange(width)
        in_rows = (rows >= top) & (rows < top + self.size)
        in_columns = (columns >= left) & (columns < left + self.size)
        block = in_rows[:, :, None] & in_columns[:, None, :]
        block = block.view(number, *[1] * (patterns.dim() - 3), height, width).expand(patterns.shape)
        noise = torch.rand(patterns.shape, generator=generator)
        noise = noise.round() if self.binary else noise
        return torch.where(block, noise.to(patterns.dtype), patterns), ~block


@dataclass(frozen=True)
class MaskPart:
    """Erase the last part of each pattern: the lower rows of an image, the last bits of a string.

    Args:
        fraction: how much is erased, in [0, 1].
        value: what it is erased to, in [0, 1].
    """

    fraction: float = 0.5
    value: float = 0.0

    def __post_init__(self):
        if not 0 <= self.fraction <= 1 or not 0 <= self.value <= 1:
            raise ValueError(f"fraction and value must lie in [0, 1], got {self.fraction} and {self.value}")

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        rows = patterns.shape[-2] if patterns.dim() > 2 else patterns.shape[-1]
        kept = torch.arange(rows) < rows - round(rows * self.fraction)
        intact = (kept[:, None] if patterns.dim() > 2 else kept).expand(patterns.shape)
        return torch.where(intact, patterns, self.value), intact.clone()


@dataclass(frozen=True)
class GaussianNoise:
    """Add Gaussian noise to every element and clip to [0, 1].

    Args:
        std: standard deviation, at least 0.
    """

    std: float

    def __post_init__(self):
        if self.std < 0:
            raise ValueError(f"std must be at least 0, got {self.std}")

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(patterns.shape, generator=generator).to(patterns.dtype)
        return (patterns + self.std * noise).clamp(0, 1), torch.full(patterns.shape, self.std == 0)
