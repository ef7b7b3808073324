"""The judges of chapter 5: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import math
import re

import torch

import ebmm
from ebmm import Memory
from ebmm.book.exercises import check
from ebmm.experiments.strings import slot_memory
from ebmm.tasks import EraseBits, ImagePatterns, RandomBits, RedrawBits, Task

COUNTS = {"a": (129, 103), "b": 62, "c": 90, "d": 128}


def told(query, intact, stored):
    """Query by query."""
    answer = torch.empty_like(query)
    for b, q in torch.cartesian_prod(torch.arange(query.shape[0]), torch.arange(query.shape[1])).tolist():
        agree = [(query[b, q] == s)[intact[b, q]].sum().item() for s in stored[b]]
        answer[b, q] = stored[b, agree.index(max(agree))]
    return answer


def compares(mask):
    """A function that compares the bits of this mask of the intact ones."""
    return lambda query, intact, stored: told(query, mask(intact), stored)


MASK = {"read": told, "not told": (48, 32), "told": (32, 16), "so": "b"}
CROWD = {"goes to": "a", "holds": lambda m, s, c: s + (1 - c) * m, "back": 31.5}


class FirstBits:
    """Keeps the first bits of each string and finds the string by them."""

    def __init__(self, kept=22, dtype=torch.float32, claimed=None):
        self.kept, self.dtype, self.memory_floats = kept, dtype, claimed or 24 * kept

    def write(self, patterns, memory=None):
        return Memory({"kept": patterns[..., : self.kept].to(self.dtype)})

    def read(self, query, memory):
        kept = memory["kept"].float()
        nearest = torch.cdist(query[..., : self.kept], kept, p=1).argmin(-1)
        found = torch.take_along_dim(kept, nearest[..., None], 1)
        return torch.cat([found, query[..., self.kept :]], -1)


class InTheObject(FirstBits):
    """Writes nothing and keeps the strings for itself."""

    def __init__(self, start=None):
        super().__init__(32, claimed=1)
        self.strings = start

    def write(self, patterns, memory=None):
        self.strings = patterns
        return Memory({"kept": patterns[..., :0]})

    def read(self, query, memory):
        return super().read(query, {"kept": self.strings})


class InTheClass(FirstBits):
    """The same, where all objects of the class find them."""

    strings = {}

    def write(self, patterns, memory=None):
        self.strings["all"] = patterns
        return Memory({"nothing": torch.zeros(len(patterns), 1)})

    def read(self, query, memory):
        return super().read(query, {"kept": self.strings["all"]})


class WithGraph(FirstBits):
    """Keeps a tensor that torch does not copy."""

    def __init__(self):
        super().__init__()
        self.scale = torch.ones(1, requires_grad=True) * 2


class Packed(FirstBits):
    """Says that it takes one bit where it hides 16 in each of its tensors of one number."""

    def write(self, patterns, memory=None):
        halves = (patterns[:, 0, :].unflatten(-1, (2, 16)) * 2.0 ** torch.arange(16)).sum(-1)
        return Memory({"first": halves[:, :1], "second": halves[:, 1:]})

    def read(self, query, memory):
        halves = torch.cat([memory["first"], memory["second"]], -1).long()
        return (halves[..., None] >> torch.arange(16) & 1).flatten(1)[:, None].expand_as(query).float()


class Echo(FirstBits):
    def read(self, query, memory):
        return query


class OfAnotherShape(FirstBits):
    def read(self, query, memory):
        return query[:, :1]


class WithoutB(FirstBits):
    def write(self, patterns, memory=None):
        return Memory({"kept": patterns[0, :, : self.kept]})


class Plain(FirstBits):
    def write(self, patterns, memory=None):
        return {"kept": patterns}


def in_bits(memory, bits=1, task=None):
    return {"memory": memory, "bits": bits, "task": task or Task(RandomBits(32), RedrawBits(8), 24)}


STRINGS = Task(RandomBits(64), RedrawBits(8), 20)

RIGHT = [
    ("5.1", COUNTS),
    ("5.1", COUNTS | {"a": torch.tensor([129, 103]), "d": 128.0}),
    ("5.2", MASK),
    ("5.2", MASK | {"not told": [47.9, 32.1], "so": "(B)"}),
    ("5.3", CROWD),
    ("5.3", CROWD | {"holds": lambda m, s, c: m + (s - c * m), "back": 31}),
    ("5.4", FirstBits()),
    ("5.4", FirstBits(22, torch.uint8)),
    ("5.4", slot_memory(32, 24)),
    ("5.5", in_bits(FirstBits())),
    ("5.5", in_bits(ebmm.Hopfield(64, "hebb"), 4, Task(RandomBits(64), RedrawBits(8), 3))),
]

WRONG = [
    ("5.1", COUNTS | {"a": (128, 86)}, "as long as the string itself"),
    ("5.1", COUNTS | {"a": (129, 102)}, "share the floats among the slots"),
    ("5.1", COUNTS | {"a": (129.0, 103.2)}, "whole number"),
    ("5.1", COUNTS | {"a": 129}, "2 numbers"),
    ("5.1", COUNTS | {"b": 82}, "covariance of the rows travels"),
    ("5.1", COUNTS | {"b": 53}, "two halves are the same"),
    ("5.1", COUNTS | {"b": 81}, "each pair of rows"),
    ("5.1", COUNTS | {"b": 63}, "over the budget"),
    ("5.1", COUNTS | {"b": 40}, "must fit together"),
    ("5.1", COUNTS | {"c": 128}, "if the trace is symmetric"),
    ("5.1", COUNTS | {"c": 91}, "over the budget"),
    ("5.1", COUNTS | {"c": 45}, "each pair of units"),
    ("5.1", COUNTS | {"d": 64}, "length of such a code"),
    ("5.1", COUNTS | {"d": 129}, "nearly"),
    ("5.1", COUNTS | {"d": 96}, "falls to one half"),
    ("5.1", {"a": (129, 103)}, "Nothing stands under 'b', 'c', 'd'"),
    ("5.1", [129, 103, 62, 90, 128], "this is a list"),
    ("5.1", COUNTS | {"b": "sixty"}, "this is of type str"),
    ("5.1", COUNTS | {"b": math.inf}, "must be finite"),
    ("5.2", MASK | {"read": compares(torch.ones_like)}, "compares all bits"),
    ("5.2", MASK | {"read": compares(torch.logical_not)}, "drawn anew"),
    ("5.2", MASK | {"read": compares(lambda x: x.roll(1, -1))}, "more intact bits"),
    ("5.2", MASK | {"read": lambda query, intact, stored: query}, "one of the stored strings"),
    ("5.2", MASK | {"read": lambda query, intact, stored: stored[:, 0]}, "must have shape"),
    ("5.2", MASK | {"read": 5}, "must be a function"),
    ("5.2", MASK | {"read": lambda query, intact, stored: query.tolist()}, "must be a tensor"),
    ("5.2", MASK | {"not told": (32, 32)}, "agrees with the old one every other time"),
    ("5.2", MASK | {"not told": (64, 32)}, "which share of all bits is wrong"),
    ("5.2", MASK | {"not told": (48, 16)}, "All are compared"),
    ("5.2", MASK | {"told": (48, 32)}, "count among these"),
    ("5.2", MASK | {"told": (24, 16)}, "how many can be wrong"),
    ("5.2", MASK | {"told": (32, 8)}, "how often do two random bits agree"),
    ("5.2", MASK | {"so": "a"}, "told, not only in how they store"),
    ("5.2", MASK | {"so": "c"}, "agree by chance in every bit"),
    ("5.2", MASK | {"so": "the second"}, "one of the letters"),
    ("5.3", CROWD | {"goes to": "b"}, "is one still empty"),
    ("5.3", CROWD | {"goes to": "c"}, "only scores do"),
    ("5.3", CROWD | {"goes to": "d"}, "is sharp"),
    ("5.3", CROWD | {"holds": lambda m, s, c: s}, "only at the price c = 1"),
    ("5.3", CROWD | {"holds": lambda m, s, c: m}, "whether it is full or not"),
    ("5.3", CROWD | {"holds": lambda m, s, c: m + s}, "price pulls, too"),
    ("5.3", CROWD | {"holds": lambda m, s, c: s - c * m}, "That is the step".lower()),
    ("5.3", CROWD | {"holds": lambda m, s, c: (m + s) / 2}, "does not average"),
    ("5.3", CROWD | {"holds": lambda m, s, c: m - (s - c * m)}, "the other way round"),
    ("5.3", CROWD | {"holds": lambda m, s, c: s + c * m}, "where the step begins"),
    ("5.3", CROWD | {"holds": lambda m, s, c: s + (1 - c) ** 2 * m}, "one step of size 1"),
    ("5.3", CROWD | {"holds": lambda m, s, c: s.sum()}, "must have shape"),
    ("5.3", CROWD | {"holds": lambda m, s, c: m.log()}, "holds NaN"),
    ("5.3", CROWD | {"back": 40}, "Something must have gone"),
    ("5.3", CROWD | {"back": 24}, "which of the two can be read"),
    ("5.3", CROWD | {"back": 36}, "more than there are slots"),
    ("5.3", CROWD | {"back": 8}, "leave as they were"),
    ("5.3", CROWD | {"back": 28}, "at most 8 wrong bits"),
    ("5.4", FirstBits(32), "the budget is 528"),
    ("5.4", FirstBits(32, claimed=528), "Whatever write returns is counted"),
    ("5.4", FirstBits(12, torch.float64), "64 bits twice"),
    ("5.4", FirstBits, "not its class"),
    ("5.4", InTheObject(), "kept something in the object"),
    ("5.4", InTheObject(torch.zeros(40, 24, 32)), "kept something in the object"),
    ("5.4", InTheClass(32, claimed=1), "kept something in the object"),
    ("5.4", WithGraph(), "detach the tensors"),
    ("5.4", Echo(), "does not improve on its queries"),
    ("5.4", ebmm.Hopfield(32, "hebb"), "where do strings get lost"),
    ("5.4", OfAnotherShape(), "must return the shape of its query"),
    ("5.4", WithoutB(), "begin with B"),
    ("5.4", Plain(), "must return an ebmm.Memory"),
    ("5.5", in_bits(ebmm.DenseMemory(32, 24, beta=2.0), 0), "from 1 to 32"),
    ("5.5", in_bits(ebmm.Hopfield(64, "hebb"), 1, Task(RandomBits(64), RedrawBits(16), 5)), "can tell 2 apart"),
    ("5.5", in_bits(ebmm.Hopfield(64, "pseudo-inverse"), 12, STRINGS), "they count too"),
    ("5.5", in_bits(Echo()), "remembers nothing"),
    ("5.5", in_bits(FirstBits(), task=Task(RandomBits(32), EraseBits(0), 5)), "not damaged"),
    ("5.5", in_bits(FirstBits(32), 32, Task(RandomBits(32), RedrawBits(8), 40)), "the contest allows"),
    ("5.5", in_bits(FirstBits(), task=Task(ImagePatterns(torch.rand(9, 4, 8)), RedrawBits(8), 5)), "strings of bits"),
    ("5.5", in_bits(FirstBits()) | {"task": RandomBits(32)}, "must be an ebmm.tasks.Task"),
    ("5.5", in_bits(InTheObject()), "kept something in the object"),
]

SECRET = {
    "5.1": r"\b(129|103|62|90|128)\b",
    "5.2": r"\b(48|16)\b",
    "5.3": r"\b(31|32|s \+ \(1 - c\) \* m)\b",
    "5.4": None,
    "5.5": None,
}


def test_an_own_memory_is_compared_and_its_bits_are_asked_for():
    said = check("5.4", FirstBits()).reason
    assert re.search(r"at 8, 16 and 24 strings: \d.*the nearest string 0\.\d\d.*With 8 bits", said)
    assert "no floats that one could round" in check("5.4", FirstBits(22, torch.uint8)).reason


def test_a_memory_in_bits_is_compared_with_a_list_of_as_many():
    assert "528 bits a memory" in check("5.5", in_bits(FirstBits())).reason
    assert "They are level" in check("5.5", in_bits(FirstBits())).reason
    assert "66 bits a memory" in check("5.5", in_bits(Packed(), 1, Task(RandomBits(32), RedrawBits(8), 1))).reason
    wasteful = in_bits(FirstBits(), bits=2)
    assert "The list is ahead" in check("5.5", wasteful).reason
