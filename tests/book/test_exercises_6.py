"""The judges of chapter 6: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F

from ebmm.book.exercises import check

COUNTS = {"a": 16156, "b": 252, "c": 18, "d": 73856}


def put_back(recalled, query, intact):
    mended = recalled.clone()
    mended[intact] = query[intact]
    return mended


MASK = {"put back": put_back, "errors": (4.9, 5.0, 8.2), "worth more": "block"}
DAMAGE = {"half": (40.3, 30.6), "block": (109.5, 122.3), "flips": (12.4, 8.4), "because": "b"}


def alarm(stored, asked):
    return asked > sorted(stored.tolist())[int(0.99 * len(stored)) - 1]


def at_quantile(share):
    return lambda stored, asked: asked > stored.quantile(share)


ALARM = {"alarm": alarm, "caught": 0.99, "false alarms": 0.01, "because": "a"}


def scatter(x, answer):
    """The variance of the place of a misfit, rows and columns together."""
    misfit, place = (x - answer).square(), torch.arange(32.0)
    whole = misfit.sum((-1, -2)) + 1e-6
    lines = [misfit.sum(side) / whole[..., None] for side in (-1, -2)]
    return sum((line * place**2).sum(-1) - (line * place).sum(-1) ** 2 for line in lines)


def box(x, answer):
    """The area of the smallest box around all pixels that do not fit."""
    off, sides = (x - answer).abs() > 0.5, []
    for lines in (off.any(-1), off.any(-2)):
        places = [line.nonzero() for line in lines.flatten(0, 1)]
        sides.append(torch.tensor([p.max() - p.min() + 1 if len(p) else 0 for p in places]))
    return (sides[0] * sides[1]).view(x.shape[:2])


def spread(x, answer):
    """Cells of 4 x 4 with a misfit, whatever its size."""
    cells = F.max_pool2d((x - answer).abs().flatten(0, 1)[:, None], 4)
    return (cells > 0.5).float().sum((1, 2, 3)).view(x.shape[:2])


def grey_pixels(x, answer):
    return -((x > 0.01) & (x < 0.99)).float().sum((-1, -2))


RIGHT = [
    ("6.1", COUNTS),
    ("6.2", MASK),
    ("6.2", MASK | {"errors": torch.tensor([5.5, 5.4, 7.9]), "worth more": "block"}),
    ("6.3", DAMAGE),
    ("6.3", DAMAGE | {"half": [48.9, 34.6], "flips": [15.5, 11.9]}),
    ("6.4", ALARM),
    ("6.4", ALARM | {"alarm": at_quantile(0.99), "caught": torch.tensor(1.0), "false alarms": 0}),
    ("6.5", scatter),
    ("6.5", box),
]

WRONG = [
    ("6.1", COUNTS | {"a": 8078}, "two layers"),
    ("6.1", COUNTS | {"a": 16128}, "biases travel"),
    ("6.1", COUNTS | {"a": 4616}, "kernel of 3 x 3"),
    ("6.1", COUNTS | {"b": 1024}, "round down"),
    ("6.1", COUNTS | {"b": 252.4}, "whole number"),
    ("6.1", COUNTS | {"c": 17}, "which number comes nearest"),
    ("6.1", COUNTS | {"c": 9}, "How far from 4616"),
    ("6.1", COUNTS | {"d": 36928}, "both layers"),
    ("6.1", COUNTS | {"d": 73728}, "has a bias as well"),
    ("6.1", COUNTS | {"d": 65536}, "every one of the 64 channels"),
    ("6.1", 16156, "a dict with the keys"),
    ("6.2", MASK | {"put back": lambda recalled, query, intact: recalled}, "nothing is put back"),
    ("6.2", MASK | {"put back": lambda r, q, i: put_back(q, r, i)}, "takes the damage from the query"),
    ("6.2", MASK | {"put back": lambda r, q, i: (put_back(r, q, i) > 0.5).float()}, "exactly the query's"),
    ("6.2", MASK | {"put back": lambda r, q, i: put_back(r, q, i).mean()}, "must have shape"),
    ("6.2", MASK | {"errors": (0.005, 0.005, 0.008)}, "not a share"),
    ("6.2", MASK | {"errors": (7000, 7100, 9000)}, "not their sum"),
    ("6.2", MASK | {"errors": (9.6, 5.5, 8.2)}, "Were the pixels put back"),
    ("6.2", MASK | {"errors": (4.9, 5.0, 130.0)}, "reads the slot that it is told"),
    ("6.2", MASK | {"errors": (4.9, 1.5, 8.2)}, "the same coders"),
    ("6.2", MASK | {"errors": (4.9, 5.0)}, "3 numbers"),
    ("6.2", MASK | {"worth more": "slot"}, "Compare your own errors"),
    ("6.2", MASK | {"worth more": 4.9}, 'must be "block" or "slot"'),
    ("6.3", DAMAGE | {"half": (0.04, 0.03)}, "no share"),
    ("6.3", DAMAGE | {"block": (7000, 7800)}, "no sum"),
    ("6.3", {k: v[::-1] for k, v in DAMAGE.items()}, "the other way round"),
    ("6.3", DAMAGE | {"block": (12.4, 13.4), "flips": (109.5, 99.3)}, "belong to which damage"),
    ("6.3", DAMAGE | {"half": (30.6, 40.3)}, '"half": the other one was ahead'),
    ("6.3", DAMAGE | {"flips": (8.4, 12.4)}, '"flips": the other one was ahead'),
    ("6.3", DAMAGE | {"because": "a"}, "are fewer than a block"),
    ("6.3", DAMAGE | {"because": "c"}, "looks at grey"),
    ("6.3", DAMAGE | {"because": "d"}, "find the slot nearly always"),
    ("6.4", ALARM | {"alarm": lambda stored, asked: asked < stored.quantile(0.01)}, "sign"),
    ("6.4", ALARM | {"alarm": lambda stored, asked: asked != asked.median()}, "wrong way round"),
    ("6.4", ALARM | {"alarm": lambda stored, asked: asked > 7.5}, "too low"),
    ("6.4", ALARM | {"alarm": lambda stored, asked: asked > 1e6}, "is it typed"),
    ("6.4", ALARM | {"alarm": at_quantile(0.95)}, "threshold is too low"),
    ("6.4", ALARM | {"alarm": at_quantile(1.0)}, "higher than it need be"),
    (
        "6.4",
        ALARM | {"alarm": lambda s, asked: alarm(s, asked) & (asked > asked.mean())},
        "depends on the others",
    ),
    ("6.4", ALARM | {"alarm": lambda stored, asked: alarm(stored, asked).any()}, "must have shape"),
    ("6.4", ALARM | {"caught": 99}, "Shares are wanted"),
    ("6.4", ALARM | {"caught": 0.01, "false alarms": 0.99}, "which half is which"),
    ("6.4", ALARM | {"caught": 0.5}, "before reading"),
    ("6.4", ALARM | {"false alarms": 0.4}, "is the threshold a quantile"),
    ("6.4", ALARM | {"because": "c"}, "nothing has been pulled"),
    ("6.4", ALARM | {"because": "b"}, "move the threshold"),
    ("6.5", lambda x, answer: -scatter(x, answer), "sign changed"),
    ("6.5", grey_pixels, "sees the grey"),
    ("6.5", lambda x, answer: (x - answer).square().sum((-1, -2)), "sees the grey or the amount"),
    ("6.5", spread, "the sum over the map does as well"),
    ("6.5", lambda x, answer: (x - answer).square().sum(), "must have shape"),
]

SECRET = {
    "6.1": r"\b(16156|252|18|73856|577)\b",
    "6.2": r"\bblock is worth",
    "6.3": r"\b(30|40|109|122|12|8)\.\d",
    "6.4": r"0\.99|quantile\(",
    "6.5": r"pool|outside",
}


def test_a_statistic_is_told_how_well_it_does():
    assert re.search(
        r"probability 0\.[89]\d+, and 0\.[89]\d+ if the block is of random bits", check("6.5", scatter).reason
    )
