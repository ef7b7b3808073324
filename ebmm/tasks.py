"""What is stored and how it is corrupted: sources of patterns, corruptions of queries, and the two as a task.

Everything random comes from one ``torch.Generator`` and is drawn memory by memory, so that two batches of four memories
equal one batch of eight; in float32, whatever PyTorch's default is.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from ebmm.given import check_shares, is_function, kind, name_of, numbers, whole


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

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on another device; patterns and queries in another dtype too, if one is given."""
        return Batch(self.patterns.to(device, dtype), self.queries.to(device, dtype), self.intact.to(device))


@dataclass(frozen=True)
class Task:
    """A memory task: N patterns from a source in each memory, queries made by a corruption.

    Args:
        source: ``source(number, generator)`` returns (number, *S) in [0, 1]; or the data to draw from: what
            :class:`ImagePatterns` takes, or a map-style ``torch.utils.data.Dataset``.
        corruption: ``corruption(patterns, generator)`` returns queries and intact elements, both (N, *S).
        number: N, patterns in a memory, at least 1.
        metric: what :func:`ebmm.evaluate` reports, ``"wrong bits"`` (on the wrong side of ½) or ``"squared error"``.

    Example:
        >>> task = Task(RandomBits(64), FlipBits(0.15), number=16)
        >>> task.sample(3, torch.Generator().manual_seed(0)).patterns.shape
        torch.Size([3, 16, 64])
        >>> Task(np.eye(9), FlipBits(0.1), number=4).source
        ImagePatterns(9, 9)
    """

    source: Callable[[int, Generator], Tensor]
    corruption: Callable[[Tensor, Generator], tuple[Tensor, Tensor]]
    number: int
    metric: str = "wrong bits"

    def __post_init__(self) -> None:
        if not is_function(self.corruption):
            raise TypeError(f"corruption must be a function, such as FlipBits(0.1), got {kind(self.corruption)}")
        if self.metric not in ("wrong bits", "squared error"):
            raise ValueError(f"metric must be 'wrong bits' or 'squared error', got {self.metric!r}")
        object.__setattr__(self, "source", _as_source(self.source))
        object.__setattr__(self, "number", whole(self.number, "number"))
        object.__setattr__(self, "metric", str(self.metric))

    def sample(self, memories: int, generator: Generator) -> Batch:
        """Draw patterns and queries for B memories, on the CPU; float32, or float64 if a source gives such tensors."""
        if not isinstance(generator, Generator):
            raise TypeError(f"generator must be one such as torch.Generator().manual_seed(0), got {kind(generator)}")
        drawn = [self._draw(generator) for _ in range(whole(memories, "memories"))]
        shapes = {tuple(patterns.shape) for patterns, _, _ in drawn}
        if len(shapes) > 1:
            raise ValueError(f"a source must return patterns of one shape for all memories, got {sorted(shapes)}")
        batch = Batch(*(torch.stack(tensors) for tensors in zip(*drawn, strict=True)))
        self._check(batch)
        return batch

    def _draw(self, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
        patterns = numbers(self.source(self.number, generator), "a source must return")
        if patterns.dtype == torch.uint8 and (patterns > 1).any():
            raise ValueError(
                f"patterns must lie in [0, 1], but the source {name_of(self.source)} gives bytes, got 0 to "
                f"{patterns.max()}: let it divide bytes with x / 255"
            )
        patterns = patterns.float() if patterns.dtype == torch.uint8 else patterns
        shape = tuple(patterns.shape)
        if len(shape) < 2 or len(patterns) != self.number or not patterns.numel():
            raise ValueError(f"a source asked for {self.number} patterns must return ({self.number}, *S), got {shape}")
        made: Any = self.corruption(patterns.clone(), generator)
        if not (isinstance(made, tuple) and len(made) == 2 and all(isinstance(x, (Tensor, np.ndarray)) for x in made)):
            raise TypeError(f"a corruption must return two tensors, queries and intact, got {kind(made)}")
        queries = numbers(made[0], "a corruption must return").to(patterns.dtype)
        intact = torch.tensor(made[1]) if isinstance(made[1], np.ndarray) else made[1].cpu()
        if intact.dtype != torch.bool:
            raise TypeError(f"a corruption must tell in bools which elements are intact, got {intact.dtype}")
        if not queries.shape == intact.shape == shape:
            got = f"{tuple(queries.shape)} and {tuple(intact.shape)}"
            raise ValueError(f"a corruption must return queries and intact like the patterns, {shape}, got {got}")
        return patterns.clone(), queries.clone(), intact.clone()  # both may fill the same tensors again and again

    def _check(self, batch: Batch) -> None:
        """Refuse values that would give a wrong number without a word."""
        low, high = _range(batch.patterns)
        if not math.isfinite(high - low):
            raise ValueError(f"patterns must be finite, but the source {name_of(self.source)} gives NaN or infinity")
        bits = self.metric == "wrong bits"
        if (low < 0 or high > 1) and (bits or isinstance(self.corruption, _FOR_UNIT_VALUES)):
            raise ValueError(
                f"patterns must lie in [0, 1] for metric={self.metric!r} and {name_of(self.corruption)}, got "
                f"{low:g} to {high:g}: let the source map signs with (x + 1) / 2, bytes with x / 255"
            )
        if bits and ((batch.patterns[0] > 0) & (batch.patterns[0] < 1)).any():
            warnings.warn(
                "grey patterns with metric='wrong bits', which only asks on which side of 1/2 a value lies: "
                "take metric='squared error', or make bits, as ImagePatterns(images, threshold=0.5) does",
                stacklevel=3,
            )
        if not math.isfinite(sum(_range(batch.queries))):
            raise ValueError(f"queries must be finite, but {name_of(self.corruption)} gives NaN or infinity")
        if ((batch.queries != batch.patterns) & batch.intact).any():
            raise ValueError("a corruption calls elements intact that it changed: True is for those left alone")


def check_task(task: object) -> None:
    """Refuse with a TypeError what is no task, such as a DataLoader."""
    if not isinstance(task, Task):
        raise TypeError(
            "task must be an ebmm.Task, such as Task(data, FlipBits(0.1), number=16) or experiment.task, "
            f"and the model comes before it, got {kind(task)}"
        )


def _as_source(given: Any) -> Callable[[int, Generator], Tensor]:
    if is_function(given):
        return given
    if isinstance(given, TensorDataset):
        return ImagePatterns(given.tensors[0])
    if isinstance(given, Dataset) and hasattr(given, "__len__") and not isinstance(given, IterableDataset):
        return DatasetPatterns(given)
    data = getattr(given, "images", given)  # as the sets of ebmm.datasets have them
    if isinstance(data, list) or hasattr(data, "__array__"):
        return ImagePatterns(numbers(data, "source must be"))
    raise TypeError(
        "source must be a function of (number, generator), a tensor, an array or a Dataset that knows its length, "
        f"got {kind(given)}: take loader.dataset of a DataLoader, torch.stack(list(data)) of what is only iterable"
    )


def _range(x: Tensor) -> tuple[float, float]:
    low, high = torch.aminmax(x)  # quicker than asking each element, and NaN if any is
    return low.item(), high.item()


# Sources of patterns


@dataclass(frozen=True)
class RandomBits:
    """Independent bits, 0 or 1 with probability one half, ``dim`` in a pattern."""

    dim: int

    def __call__(self, number: int, generator: Generator) -> Tensor:
        return torch.randint(0, 2, (number, self.dim), generator=generator).float()


@dataclass(frozen=True)
class CorrelatedBits:
    """Bits that copy one of a few hidden factors of their pattern, each with some noise.

    One fixed draw (from ``seed``) assigns each of ``dim`` bits one of ``factors`` factors and a sign; a pattern
    draws its factors, and each bit then flips with probability ``noise``, at most ½. All patterns of all memories
    share the assignment, so it is worth learning. At noise 0 a pattern carries ``factors`` bits of information;
    at noise ½ it is random.
    """

    dim: int
    factors: int
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.factors <= self.dim or not 0 <= self.noise <= 0.5:
            raise ValueError(
                f"factors must lie in [1, {self.dim}] and noise in [0, 0.5], got {self.factors} and {self.noise}"
            )

    def __call__(self, number: int, generator: Generator) -> Tensor:
        shared = Generator().manual_seed(self.seed)
        assignment = torch.arange(self.dim).remainder(self.factors)[torch.randperm(self.dim, generator=shared)]
        sign = torch.randint(0, 2, (self.dim,), generator=shared).float()
        hidden = torch.randint(0, 2, (number, self.factors), generator=generator).float()
        flips = (torch.rand(number, self.dim, generator=generator, dtype=torch.float32) < self.noise).float()
        return (hidden[:, assignment] - sign).abs().sub(flips).abs()

    @property
    def entropy_bound(self) -> float:
        """An upper bound on the entropy of a pattern in bits: factors + dim · H(noise), at most dim."""
        p = self.noise
        noise_entropy = 0.0 if p == 0 else -(p * math.log2(p) + (1 - p) * math.log2(1 - p))
        return min(self.dim, self.factors + self.dim * noise_entropy)


@dataclass(frozen=True, eq=False)  # tensors have no single answer to ==
class ImagePatterns:
    """Different patterns drawn at random from a set.

    Args:
        images: (M, *S), a tensor, an array or a list of them: values in [0, 1], such as
            ``ebmm.datasets.digits().images``, or bytes, which stand for 255ths unless all are 0 or 1. Arrays
            become float32.
        threshold: binarise at this grey level; ``None`` keeps the grey levels.
        flatten: give patterns of shape (d,) instead of S.
    """

    images: Tensor
    threshold: float | None = None
    flatten: bool = False

    def __post_init__(self) -> None:
        images = numbers(self.images, "images must be")
        shape = tuple(images.shape)
        if len(shape) < 2 or not images.numel():
            raise ValueError(f"images must have shape (M, *S), got {shape}")
        if len(shape) == 4 and shape[-1] in (3, 4) and shape[1] > 4:
            raise ValueError(f"colour images must be (M, 3, height, width), got {shape}: transpose to (0, 3, 1, 2)")
        # Nearly all sets of bytes show in their first images what they are, and need not be read as a whole.
        if images.dtype != torch.uint8 or images[:1000].max() <= 1:
            low, high = _range(images)
            if images.dtype == torch.uint8:
                images = images.float() if high <= 1 else images
            elif not 0 <= low <= high <= 1:
                raise ValueError(
                    f"images must be floats in [0, 1] or bytes up to 255, got {images.dtype} from {low:g} to {high:g}: "
                    "map signs with (x + 1) / 2, and divide other numbers by the largest"
                )
        object.__setattr__(self, "images", images)

    def __repr__(self) -> str:
        return f"ImagePatterns{tuple(self.images.shape)}"

    def __call__(self, number: int, generator: Generator) -> Tensor:
        chosen = self.images[_different(number, len(self.images), generator)]
        if chosen.dtype == torch.uint8:
            chosen = chosen.float() / 255
        if self.threshold is not None:
            chosen = (chosen > self.threshold).to(chosen.dtype)
        return chosen.flatten(1) if self.flatten else chosen


def _different(number: int, size: int, generator: Generator) -> Tensor:
    """Places of so many different members of a set, drawn at random."""
    if number > size:
        raise ValueError(f"a memory of {number} different images needs as many, got a set of {size}")
    return torch.randperm(size, generator=generator)[:number]


@dataclass(frozen=True)
class DatasetPatterns:
    """Different members of a ``torch.utils.data.Dataset``, read when drawn: patterns, or tuples (pattern, ...).

    Bytes stand for 255ths, and are refused where all drawn are 0 or 1, which may be bits as well as black images.
    """

    dataset: Any

    def __call__(self, number: int, generator: Generator) -> Tensor:
        chosen = [self.dataset[place] for place in _different(number, len(self.dataset), generator).tolist()]
        patterns = [member[0] if isinstance(member, (tuple, list)) else member for member in chosen]
        drawn = numbers([numbers(pattern, "a Dataset must give") for pattern in patterns], "a Dataset must give")
        if drawn.dtype == torch.uint8 and (drawn == 1).any() and (drawn <= 1).all():
            raise ValueError("bytes of 0 and 1 in a Dataset may be bits or 255ths: give floats, bits or x / 255")
        return drawn.float() / 255 if drawn.dtype == torch.uint8 else drawn


@dataclass(frozen=True)
class LazyImages:
    """:class:`ImagePatterns` of a set that is read from disk when the first patterns are drawn.

    Args:
        load: returns the set, such as ``ebmm.datasets.mnist``.
        variations: ``variations(images, generator)`` changes the images drawn, for training on more of them than
            the set has, such as :func:`mirrored` or :func:`turned_and_shifted`.
    """

    load: Callable[..., Any]
    threshold: float | None = None
    variations: Callable[[Tensor, Generator], Tensor] | None = None

    def __call__(self, number: int, generator: Generator) -> Tensor:
        images = _patterns_of(self.load, self.threshold)(number, generator)
        return images if self.variations is None else self.variations(images, generator)

    @property
    def loaded(self) -> Any:
        """The set, with its ``images`` and its ``name``."""
        return _loaded(self.load)


@lru_cache(maxsize=4)
def _loaded(load: Callable[..., Any]) -> Any:
    return load()


@lru_cache(maxsize=4)
def _patterns_of(load: Callable[..., Any], threshold: float | None) -> ImagePatterns:
    return ImagePatterns(_loaded(load).images, threshold)


def mirrored(images: Tensor, generator: Generator) -> Tensor:
    """Every other image, at random, with left and right exchanged: (N, ..., H, W), the same shape."""
    return torch.where(_for_each(images, 2, generator).bool(), images.flip(-1), images)


def turned_and_shifted(images: Tensor, generator: Generator, most: int = 2) -> Tensor:
    """Each image (N, ..., H, H) in one of its eight orientations and rolled by at most so many pixels, at random."""
    images = torch.where(_for_each(images, 2, generator).bool(), images.mT, images)
    images = torch.where(_for_each(images, 2, generator).bool(), images.flip(-2), images)
    images = mirrored(images, generator)
    moves = torch.randint(-most, most + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image.roll(move, (-2, -1)) for image, move in zip(images, moves, strict=True)])


def _for_each(images: Tensor, below: int, generator: Generator) -> Tensor:
    """A random whole number from 0 for each image, of a shape that goes with it."""
    return torch.randint(0, below, (len(images), *[1] * (images.dim() - 1)), generator=generator)


# Corruptions: patterns (N, *S) to queries and intact elements, both (N, *S)


@dataclass(frozen=True)
class RedrawBits:
    """Draw ``count`` random bits of each pattern afresh; on average half of them change (the paper's corruption)."""

    count: int

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        redrawn = _random_elements(patterns, self.count, generator)
        random = torch.randint(0, 2, patterns.shape, generator=generator).to(patterns.dtype)
        return torch.where(redrawn, random, patterns), ~redrawn


@dataclass(frozen=True)
class FlipBits:
    """Flip each bit with some probability in [0, 1], x to 1 − x."""

    probability: float

    def __post_init__(self) -> None:
        check_shares(probability=self.probability)

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        flipped = torch.rand(patterns.shape, generator=generator, dtype=torch.float32) < self.probability
        return torch.where(flipped, 1 - patterns, patterns), ~flipped


@dataclass(frozen=True)
class EraseBits:
    """Erase ``count`` random elements of each pattern to a value in [0, 1]; ½ says "unknown", but not to Hopfield."""

    count: int
    value: float = 0.0

    def __post_init__(self) -> None:
        check_shares(value=self.value)

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        erased = _random_elements(patterns, self.count, generator)
        return torch.where(erased, self.value, patterns), ~erased


def _random_elements(patterns: Tensor, count: int, generator: Generator) -> Tensor:
    """``count`` different elements of each pattern, drawn at random: bool, the patterns' shape."""
    size = patterns[0].numel()
    if not 0 <= count <= size:
        raise ValueError(f"count must lie in [0, {size}], got {count}")
    order = torch.rand(len(patterns), size, generator=generator, dtype=torch.float32).argsort(1)
    chosen = torch.zeros(len(patterns), size, dtype=torch.bool).scatter_(1, order[:, :count], True)
    return chosen.view_as(patterns)


@dataclass(frozen=True)
class NoiseBlock:
    """The paper's corruption of images: noise, grey or of bits, in a square of ``size`` pixels a side, anywhere."""

    size: int
    binary: bool = False

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        if patterns.dim() < 3:
            raise ValueError(f"NoiseBlock needs images (N, ..., height, width), got {tuple(patterns.shape)}")
        height, width = patterns.shape[-2:]
        if not 1 <= self.size <= min(height, width):
            raise ValueError(f"size must lie in [1, {min(height, width)}], got {self.size}")
        top = _for_each(patterns, height - self.size + 1, generator)
        left = _for_each(patterns, width - self.size + 1, generator)
        rows, columns = torch.arange(height)[:, None] - top, torch.arange(width) - left
        block = ((rows >= 0) & (rows < self.size) & (columns >= 0) & (columns < self.size)).expand(patterns.shape)
        noise = torch.rand(patterns.shape, generator=generator, dtype=torch.float32)
        noise = noise.round() if self.binary else noise
        return torch.where(block, noise.to(patterns.dtype), patterns), ~block


@dataclass(frozen=True)
class MaskPart:
    """Erase the last ``fraction`` of each pattern, rows of an image or bits of a string, to a value in [0, 1]."""

    fraction: float = 0.5
    value: float = 0.0

    def __post_init__(self) -> None:
        check_shares(fraction=self.fraction, value=self.value)

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        rows = patterns.shape[-2] if patterns.dim() > 2 else patterns.shape[-1]
        kept = torch.arange(rows) < rows - round(rows * self.fraction)
        intact = (kept[:, None] if patterns.dim() > 2 else kept).expand(patterns.shape)
        return torch.where(intact, patterns, self.value), intact.clone()


@dataclass(frozen=True)
class GaussianNoise:
    """Add Gaussian noise of a standard deviation of at least 0 to every element and clip to [0, 1]."""

    std: float

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ValueError(f"std must be at least 0, got {self.std}")

    def __call__(self, patterns: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(patterns.shape, generator=generator, dtype=torch.float32).to(patterns.dtype)
        return (patterns + self.std * noise).clamp(0, 1), torch.full(patterns.shape, self.std == 0)


# Wrong for values outside [0, 1]
_FOR_UNIT_VALUES = (RedrawBits, FlipBits, NoiseBlock, GaussianNoise)
