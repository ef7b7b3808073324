"""The judges of chapter 7: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import io
import re

import numpy as np
import torch
from PIL import Image
from torch import nn

from ebmm import Memory
from ebmm.book.exercises import check
from ebmm.coders import cosine_basis

COUNTS = {"a": 144, "b": 5, "c": 8, "d": 128 / 3}


def elsewhere(model, patterns, queries):
    first, second = patterns.chunk(2, 1)
    return model.read(queries[:, : first.shape[1]], model.write(second))


GUESS = {"elsewhere": elsewhere, "errors": (8.3, 205.7, 41.0), "because": "c"}


def forge(patterns, intact):
    """From the one that was written before; the first takes the last's."""
    others = torch.cat([patterns[:, -1:], patterns[:, :-1]], 1)
    return patterns * intact + others * ~intact


def forged_with(others):
    return lambda patterns, intact: torch.where(intact, patterns, others(patterns))


BLOCKS = {
    "ours": (2.7, 8.5, 68.0, 203.3),
    "network": [24.6, 26.5, 118.3, 176.6],
    "meet": (24, 28),
    "forge": forge,
    "so": "a",
}


class Files:
    """WebP instead of JPEG, each file whole, in bytes or as floats of four of them."""

    def __init__(self, size=288, floats=True):
        self.size, self.floats, self.memory_floats = size, floats, 64 * size // 4

    def write(self, patterns, memory=None):
        files = [self.packed(picture) for picture in patterns.flatten(0, 1)]
        slots = torch.from_numpy(np.frombuffer(b"".join(files), np.uint8).copy())
        slots = slots.view(*patterns.shape[:2], self.size)
        return Memory({"files": slots.view(torch.float32) if self.floats else slots})

    def packed(self, picture):
        pixels = (picture * 255).byte().permute(1, 2, 0).numpy()
        for quality in range(100, -1, -1):
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "webp", quality=quality)
            if len(file.getvalue()) <= self.size:
                break
        return file.getvalue()[: self.size].ljust(self.size, b"\0")

    def read(self, query, memory):
        slots = memory["files"].view(torch.uint8)
        pixels = [np.asarray(Image.open(io.BytesIO(s.numpy().tobytes())).convert("RGB")) for s in slots.flatten(0, 1)]
        decoded = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
        return nearest(query, decoded.unflatten(0, slots.shape[:2]))


def nearest(query, stored):
    found = torch.cdist(query.flatten(2), stored.flatten(2)).argmin(-1)
    return torch.stack([pictures[places] for pictures, places in zip(stored, found, strict=True)])


class Decoded(Files):
    """Holds what the files decode to."""

    def write(self, patterns, memory=None):
        return Memory({"pictures": (patterns * 20).round() / 20})

    def read(self, query, memory):
        return nearest(query, memory["pictures"])


class OnePhotograph(Files):
    memory_floats = 3072

    def __init__(self):
        pass

    def write(self, patterns, memory=None):
        return Memory({"last": patterns[:, -1:]})

    def read(self, query, memory):
        return memory["last"].expand_as(query)


class Cosines(Files):
    """Keeps 72 numbers of each, as exactly as floats do."""

    memory_floats = 4608

    def __init__(self):
        self.basis = cosine_basis((3, 32, 32), 72)

    def write(self, patterns, memory=None):
        return Memory({"codes": patterns.flatten(2) @ self.basis.T})

    def read(self, query, memory):
        return nearest(query, (memory["codes"] @ self.basis).view(*memory["codes"].shape[:2], 3, 32, 32))


class Whole(Files):
    """Keeps the photographs, and says otherwise."""

    memory_floats = 1

    def write(self, patterns, memory=None):
        return Memory({"photographs": patterns})

    def read(self, query, memory):
        return nearest(query, memory["photographs"])


class Stretched(Cosines):
    """The same, but in numbers that 4 bits hurt."""

    def write(self, patterns, memory=None):
        return Memory({"codes": super().write(patterns)["codes"] ** 9})

    def read(self, query, memory):
        codes = memory["codes"]
        return super().read(query, {"codes": codes.sign() * codes.abs() ** (1 / 9)})


class Shaken(nn.Module):
    def __init__(self, model, sigma):
        super().__init__()
        self.model, self.sigma = model, sigma

    def noise(self, held):
        return torch.normal(0.0, self.sigma, held.shape) if self.sigma else torch.zeros(held.shape)

    def write(self, patterns):
        return Memory({name: held + self.noise(held) for name, held in self.model.write(patterns).items()})

    def read(self, query, memory):
        return self.model.read(query, memory)


def shaken_by(noise):
    """Shaken with another noise: a function of the held numbers and σ."""
    return type("Other", (Shaken,), {"noise": lambda self, held: noise(held, self.sigma)})


class WhenReading(Shaken):
    def write(self, patterns):
        return self.model.write(patterns)


class InPlace(Shaken):
    def write(self, patterns):
        written = self.model.write(patterns)
        for held in written.values():
            held += self.noise(held)
        return written


class OneTensor(Shaken):
    def write(self, patterns):
        written = dict(self.model.write(patterns))
        return Memory(written | {"slots": written["slots"] + self.noise(written["slots"])})


class Renamed(Shaken):
    def write(self, patterns):
        return Memory({"all": torch.cat([held.flatten(1) for held in self.model.write(patterns).values()], 1)})


def same_noise(held, sigma):
    return sigma * torch.randn(held.shape, generator=torch.Generator().manual_seed(0))


CURVE = {0.0: 8.3, 0.05: 9.1, 0.1: 12.0, 0.4: 220.0}
NOISE = {"shaken": Shaken, "curve": CURVE}

RIGHT = [
    ("7.1", COUNTS),
    ("7.1", COUNTS | {"d": 42}),
    ("7.2", GUESS),
    ("7.2", GUESS | {"errors": [8.1, 227.6, 48.3]}),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(q[:, :5], m.write(p[:, 5:]), trajectory=True)[-1]}),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: elsewhere(m, p.double(), q.double())}),
    ("7.3", BLOCKS),
    ("7.3", BLOCKS | {"meet": [28, 24], "forge": forged_with(lambda patterns: patterns.roll(2, 1))}),
    ("7.4", Files()),
    ("7.4", Files(floats=False)),
    ("7.5", NOISE),
    ("7.5", NOISE | {"before": Cosines(), "after": Cosines()}),
]

WRONG = [
    ("7.1", COUNTS | {"a": 143}, "round down"),
    ("7.1", COUNTS | {"a": 144.25}, "whole number"),
    ("7.1", COUNTS | {"b": 15}, "three numbers"),
    ("7.1", COUNTS | {"b": 6}, "would not fit"),
    ("7.1", COUNTS | {"b": 64}, "every colour of every pixel"),
    ("7.1", COUNTS | {"c": 16}, "one layer"),
    ("7.1", COUNTS | {"c": 4}, "as (6.2)"),
    ("7.1", COUNTS | {"d": 4096 / 288}, "three colours"),
    ("7.1", COUNTS | {"d": 288 / 12288}, "the other way round"),
    ("7.1", COUNTS | {"d": 64}, "divide the numbers"),
    ("7.1", (144, 5, 8, 42.7), "a dict with the keys"),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(q[:, :5], m.write(p[:, :5]))}, "their own memory gives"),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(q[:, :5], m.write(p))}, "among those written"),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(q[:, 5:], m.write(p[:, 5:]))}, "asks for the second half"),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(p[:, :5], m.write(p[:, 5:]))}, "photographs as they were"),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(q[:, :5], m.write(q[:, 5:]))}, "second half of the patterns"),
    ("7.2", GUESS | {"elsewhere": lambda m, p, q: m.read(q, m.write(p[:, 5:]))}, "must have shape"),
    ("7.2", GUESS | {"errors": (0.0027, 0.067, 0.013)}, "summed over the numbers"),
    ("7.2", GUESS | {"errors": (60.0, 205.7, 41.0)}, "better than any guess"),
    ("7.2", GUESS | {"errors": (8.3, 9.0, 41.0)}, "not with those that were written"),
    ("7.2", GUESS | {"because": "a"}, "could not exceed that of a query"),
    ("7.2", GUESS | {"because": "b"}, "is it noise"),
    ("7.3", BLOCKS | {"ours": (203.3, 68.0, 8.5, 2.7)}, "errors should rise"),
    ("7.3", BLOCKS | {"ours": (2.7, 8.5, 68.0)}, "4 numbers"),
    ("7.3", BLOCKS | {"ours": BLOCKS["network"], "network": BLOCKS["ours"]}, "are exchanged"),
    ("7.3", BLOCKS | {"ours": (30, 40, 120, 210)}, "are exchanged"),
    ("7.3", BLOCKS | {"ours": (2.7, 8.5, 68.0, 90.0)}, "They meet somewhere"),
    ("7.3", BLOCKS | {"meet": (16, 24)}, "change places"),
    ("7.3", BLOCKS | {"meet": 26}, "2 numbers"),
    ("7.3", BLOCKS | {"forge": forged_with(lambda patterns: patterns.roll(1, 0))}, "another memory"),
    ("7.3", BLOCKS | {"forge": forged_with(lambda patterns: patterns.roll(3, -1).roll(1, 1))}, "at the same place"),
    ("7.3", BLOCKS | {"forge": forged_with(torch.rand_like)}, "cut from one other photograph"),
    ("7.3", BLOCKS | {"forge": lambda patterns, intact: patterns}, "its own still"),
    ("7.3", BLOCKS | {"forge": lambda patterns, intact: patterns.roll(1, 1)}, "must stay as it is"),
    ("7.3", BLOCKS | {"forge": lambda patterns, intact: forge(patterns, ~intact)}, "must stay as it is"),
    ("7.3", BLOCKS | {"so": "b"}, "would stay"),
    ("7.3", BLOCKS | {"so": "c"}, "as large as in 7.2"),
    ("7.4", Files(size=400), "4616 are allowed"),
    ("7.4", Decoded(), "not what they decode to"),
    ("7.4", OnePhotograph(), "does it compress all 64"),
    ("7.4", Cosines(), "four go into each"),
    ("7.4", Files, "not its class"),
    ("7.5", NOISE | {"shaken": WhenReading}, "between writing and reading"),
    ("7.5", NOISE | {"shaken": InPlace}, "A memory is a value"),
    ("7.5", NOISE | {"shaken": OneTensor}, "Some tensor of the memory got no noise"),
    ("7.5", NOISE | {"shaken": Renamed}, "must return the memory's tensors"),
    ("7.5", NOISE | {"shaken": shaken_by(lambda held, sigma: (sigma + 0.1) * torch.randn(held.shape))}, "With σ = 0"),
    ("7.5", NOISE | {"shaken": shaken_by(lambda held, sigma: sigma * torch.rand(held.shape))}, "nor a range"),
    (
        "7.5",
        NOISE | {"shaken": shaken_by(lambda held, sigma: sigma**0.5 * torch.randn(held.shape))},
        "not its variance",
    ),
    ("7.5", NOISE | {"shaken": shaken_by(lambda held, sigma: sigma * torch.randn(held[:1].shape[-1:]))}, "share their"),
    ("7.5", NOISE | {"shaken": shaken_by(same_noise)}, "same noise at each writing"),
    ("7.5", NOISE | {"shaken": Shaken(None, 0.1)}, "raised"),
    ("7.5", NOISE | {"curve": {0.0: 8.3, 0.1: 12.0, 0.4: 220.0}}, "four or more errors"),
    ("7.5", NOISE | {"curve": {s + 0.05: e for s, e in CURVE.items()}}, "without noise as well"),
    ("7.5", NOISE | {"curve": CURVE | {0.4: 9.0}}, "should leave a larger error"),
    ("7.5", NOISE | {"before": Cosines(), "after": Decoded(size=400)}, "as many floats"),
    ("7.5", NOISE | {"before": Cosines(), "after": Whole()}, "as many floats"),
]

SECRET = {
    "7.1": r"\b(144|5|8|42|43)\b",
    "7.2": r"is replaced",
    "7.3": r"\b(24 and 28|28 and 24)\b$",
    "7.4": r"bisect|quality",
    "7.5": "randn",
}


def test_a_file_format_is_compared_with_our_slot_memory():
    said = check("7.4", Files()).reason
    assert re.search(r"^4608 floats, squared error \d\.\d; our slot memory leaves \d\.\d\.", said)


def test_training_with_noise_is_compared_at_four_bits():
    assert "The measure is ready" in check("7.5", NOISE).reason
    better = check("7.5", NOISE | {"before": Stretched(), "after": Cosines()}).reason
    assert "At 4 bits a number" in better and "The training helped" in better
    worse = check("7.5", NOISE | {"before": Cosines(), "after": Stretched()}).reason
    assert "did not help yet" in worse
