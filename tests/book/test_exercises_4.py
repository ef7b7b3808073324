"""The judges of chapter 4: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import ebmm
from ebmm.book.exercises import check

RATES = {"write rate": 1.0, "read rate": 1}


def gradients(model, batch, last_only=False, write=torch.no_grad):
    with write():
        memory = model.write(batch.patterns)
    iterates = model.read(batch.queries, memory, trajectory=True)[1][1:]
    loss = (iterates[-1] if last_only else iterates).sub(batch.patterns).pow(2).sum()
    loss.backward()
    return {name: None if p.grad is None else p.grad.abs().max().item() for name, p in model.named_parameters()}


def silent(model, batch):
    return [name for name, slope in gradients(model, batch, last_only=True).items() if not slope]


def nothing_recorded(model, batch):
    with torch.no_grad():
        return silent(model, batch)


def chosen(keep):
    """Names by their largest gradient, which is None where there is none at all."""
    return lambda model, batch: {name for name, slope in gradients(model, batch).items() if keep(slope)}


def with_the_write(model, batch):
    return [name for name, slope in gradients(model, batch, write=torch.enable_grad).items() if not slope]


def of_one_model(model, batch):
    return ["raw_write_rates", "energy_network.memory.weight"]


def largest(factor=1.0):
    def rate(d, N):
        return factor * 2 / (1 + (d / N) ** 0.5) ** 2

    return rate


def measured(d, N):
    """From strings, instead of from a formula."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (30, N, d))
    return 2 / np.linalg.eigvalsh(signs @ signs.transpose(0, 2, 1) / N)[:, -1].mean()


LOADS = {"fails at": 4, "largest rate": largest()}


LOOPS = {
    "whole": lambda eta, T: -T * (1 - eta) ** (T - 1),
    "cut": lambda eta, T: -sum((1 - eta) ** t for t in range(T)),
    "turns at": 1,
}


class Linear(nn.Module):
    """Predicts half of the string by the delta rule."""

    def __init__(self, width=32, felt=1.0):
        super().__init__()
        self.memory = nn.Linear(64, width, bias=False)
        nn.init.zeros_(self.memory.weight)
        self.felt = felt

    def forward(self, x):
        s = 2 * x - 1
        return 0.5 * (self.felt * self.memory(s) - s[..., : self.memory.out_features]).square().sum(-1)


def own(energy=None, write_rate=0.1, read_rate=0.3):
    energy = energy or Linear()
    return ebmm.EBMM(energy, ["memory"], gradient_term=False, write_rate=(write_rate, 1e-4, 1e-4), read_rate=read_rate)


def entropy(q):
    return -sum(p * np.log2(p) for p in (q, 1 - q) if p > 0)


def gained(wrong, N, d, floats, flipped):
    return max(0, N * d * (entropy(flipped) - entropy(wrong / d)) / floats)


RIGHT = [
    ("4.1", RATES),
    ("4.1", {"write rate": torch.tensor(1.0), "read rate": torch.tensor([1.0])}),
    ("4.2", silent),
    ("4.2", chosen(lambda slope: not slope)),
    ("4.3", LOADS),
    ("4.3", {"fails at": torch.tensor(4), "largest rate": measured}),
    ("4.4", own()),
    ("4.4", ebmm.experiments.strings.predictive_memory(64)),
    ("4.4", own().double()),
    ("4.5", LOOPS),
    ("4.5", LOOPS | {"cut": lambda eta, T: -(1 - (1 - eta) ** T) / eta}),
    ("4.6", gained),
    ("4.6", lambda wrong, N, d, floats, flipped: N * d * (entropy(flipped) - entropy(wrong / d)) / floats),
]

WRONG = [
    ("4.1", RATES | {"write rate": 0.5}, "something of the start is left"),
    ("4.1", RATES | {"read rate": 0.5}, "something of the query is left"),
    ("4.1", RATES | {"write rate": 0}, "nothing is written"),
    ("4.1", RATES | {"read rate": 0.0}, "nothing is read"),
    ("4.1", RATES | {"write rate": "any"}, "must be a number"),
    ("4.1", (1, 1), "a dict with the keys"),
    ("4.2", chosen(bool), "the ones that do receive"),
    ("4.2", chosen(lambda slope: slope == 0), "Some are silent"),
    ("4.2", chosen(lambda slope: not slope or slope < 1), "a small gradient is not none"),
    ("4.2", with_the_write, "Some are silent. Is the memory written under"),
    ("4.2", of_one_model, "Others are silent as well"),
    ("4.2", lambda model, batch: ["raw_write_rates"], "Others are silent as well"),
    ("4.2", lambda model, batch: ["write_rate"], "no parameter write_rate"),
    ("4.2", lambda model, batch: list(dict(model.named_parameters())), "reading must keep its graph"),
    ("4.2", lambda model, batch: model, "must return names"),
    ("4.2", nothing_recorded, "does not require grad"),
    ("4.2", ["raw_write_rates"], "must be a function"),
    ("4.3", LOADS | {"largest rate": largest(0.5)}, "may overshoot"),
    ("4.3", LOADS | {"largest rate": lambda d, N: (1 + (d / N) ** 0.5) ** 2}, "the eigenvalue itself"),
    ("4.3", LOADS | {"largest rate": lambda d, N: 2 / (1 + (N / d) ** 0.5) ** 2}, "the mean over the patterns"),
    ("4.3", LOADS | {"largest rate": lambda d, N: 2 / (1 - (d / N) ** 0.5) ** 2}, "which is slowest"),
    ("4.3", LOADS | {"largest rate": lambda d, N: 2 * N / d}, "do not overlap"),
    ("4.3", LOADS | {"largest rate": lambda d, N: 2 / N}, "depend on d"),
    ("4.3", LOADS | {"largest rate": largest(2)}, "no longer shrinks"),
    ("4.3", LOADS | {"largest rate": 0.08}, "must be a function"),
    ("4.3", LOADS | {"fails at": 32}, "which load asks for the smallest rates"),
    ("4.4", own(Linear(33)), "It holds 2112 floats"),
    ("4.4", own(Linear(felt=0.0)), "the gradient of the energy in its writable weights is exactly 0"),
    ("4.4", own(Linear(felt=1e-6)), "does what is written change the energy"),
    ("4.4", own(write_rate=0.5), "near chance"),
    ("4.4", own(write_rate=2.0), "NaN"),
    ("4.4", own(write_rate=1e-6, read_rate=1e-3), "leaves the query as it is"),
    ("4.4", own(write_rate=0.25), "as many right bits as wrong ones"),
    ("4.4", Linear(), "Hand in the trained ebmm.EBMM"),
    ("4.4", 3.5, "Hand in the trained ebmm.EBMM"),
    ("4.5", LOOPS | {"whole": LOOPS["cut"]}, "that is the other one"),
    ("4.5", LOOPS | {"cut": LOOPS["whole"]}, "that is the other one"),
    ("4.5", LOOPS | {"whole": lambda eta, T: T * (1 - eta) ** (T - 1)}, "check the sign"),
    ("4.5", LOOPS | {"whole": lambda eta, T: (1 - eta) ** T}, "that is what is left"),
    ("4.5", LOOPS | {"cut": lambda eta, T: -1}, "a single step"),
    ("4.5", LOOPS | {"cut": lambda eta, T: -T}, "add up the slopes"),
    ("4.5", LOOPS | {"turns at": 2}, "different signs"),
    ("4.5", LOOPS | {"cut": 1.0}, "must be a function"),
    ("4.6", lambda w, N, d, floats, f: N * d * (1 - entropy(w / d)) / floats, "what one knows before reading"),
    ("4.6", lambda w, N, d, floats, f: N * (d - w) / floats, "right by chance"),
    ("4.6", lambda w, N, d, floats, f: N * (f * d - w) / floats, "which bits are mended"),
    ("4.6", lambda w, N, d, floats, f: N * d * entropy(f) / floats, "those that come back wrong"),
    ("4.6", lambda w, N, d, floats, f: N * (d * entropy(f) - w) / floats, "costs more than itself"),
    ("4.6", lambda w, N, d, floats, f: N * (d - w) * entropy(f) / floats, "costs more than itself"),
    ("4.6", lambda *case: np.log(2) * gained(*case), "These are nats"),
    ("4.6", lambda *case: gained(*case) / 32, "not bits a bit"),
    ("4.6", lambda *case: gained(*case) * case[3], "the whole memory"),
    ("4.6", lambda *case: gained(*case) / case[1], "That is one pattern"),
    ("4.6", lambda *case: gained(*case) / case[2], "one bit of each pattern"),
    ("4.6", lambda *case: -gained(*case), "the sign"),
    ("4.6", lambda *case: 2 * gained(*case), "less that after it"),
    ("4.6", lambda w, *case: gained(w, *case) if w else 0, "nothing is uncertain any more"),
    ("4.6", lambda w, *case: gained(w, *case) or 0.1, "where reading mends nothing"),
    ("4.6", 0.3, "must be a function"),
]

SECRET = {
    "4.1": r"= 1\b|must be 1",
    "4.2": r"raw_write_rates|memory\.weight",
    "4.3": r"√|2 ?/|sqrt|few strings",
    "4.4": r"delta",
    "4.5": r"\*\* ?\(T|η = 1\b|is 1\b",
    "4.6": r"log2|H\(|\d\.\d",
}


def test_models_are_left_as_they_are():
    model = own()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check("4.4", model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_own_energy_is_told_where_it_stands():
    assert "not yet fewer than" in check("4.4", own()).reason


def test_what_an_energy_writes_is_counted_whatever_it_says():
    model = own(Linear(33))
    model.__class__ = type("Understated", (ebmm.EBMM,), {"memory_floats": 2080})
    assert "A memory that it writes holds 2112 floats" in check("4.4", model).reason
