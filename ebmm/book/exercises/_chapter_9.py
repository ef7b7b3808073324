"""Judges of the exercises of chapter 9."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ebmm.book.exercises._answers import avoid, functions, number, seeded, tensor, varied
from ebmm.book.exercises.verdict import exercise, need

PAIRS, DIM, MOST = 16, 32, 1024


def _signs(*shape: int, seed: int) -> Tensor:
    return 2.0 * torch.randint(0, 2, shape, generator=seeded(seed)) - 1


def _close(given: float, right: float, tolerance: float = 1e-3) -> bool:
    return math.isclose(given, right, rel_tol=tolerance, abs_tol=1e-6)


@exercise("9.1", 'a dict with the keys "causal", a function of keys and values, and "diagonal", a function of N and d')
def hebb_in_disguise(answer: Any) -> str:
    causal, diagonal = functions(answer, "causal", "diagonal")
    k, v = _signs(9, 6, seed=91) / math.sqrt(6), _signs(9, 6, seed=92)
    given = tensor(causal(k.clone(), v.clone()), (9, 6), 'What "causal" returns').float()
    likeness = k @ k.T
    for wrong, reason in (
        (likeness @ v, "All pairs are seen, those of the future too."),
        (torch.tril(likeness, -1) @ v, "Query n sees pair n itself as well."),
        (torch.triu(likeness) @ v, "That is the future. Which triangle is the past?"),
        (torch.softmax(likeness, -1) @ v, "Linear attention has no softmax."),
    ):
        need(not torch.allclose(given, wrong, atol=1e-4), f'"causal": {reason}')
    right = torch.tril(likeness) @ v
    need(torch.allclose(given, right, atol=1e-4), '"causal": likenesses of queries and past keys weigh the values.')
    for count, dim in ((5, 20), (30, 10)):
        found = number(diagonal(count, dim), 'What "diagonal" returns')
        avoid(found, (1.0, "Each of the N patterns adds to it."), (count, "What of the division by d?"))
        need(_close(found, count / dim), '"diagonal": every unit agrees with itself in every pattern.')
    return "A sum of outer products, read by a product. What softmax adds is a comparison that one sum cannot make."


@exercise("9.2", 'a dict with the keys "exact" and "limit", functions of a key, and "harm", of an overlap and an error')
def one_exact_step(answer: Any) -> str:
    exact, limit, harm = functions(answer, "exact", "limit", "harm")
    for seed in (93, 94):
        k = torch.randn(7, generator=varied(seed))
        length = (k @ k).item()
        found = number(exact(k), 'What "exact" returns')
        avoid(
            found,
            (1.0, "That is for a key of length 1. Keys may have any length."),
            (length**-0.5, "What is left of the error is 1 - η times the squared length."),
        )
        need(_close(found, 1 / length), '"exact": what factor does the step put on v - M k?')
        found = number(limit(k), 'What "limit" returns')
        avoid(found, (1 / length, "Beyond that the step overshoots, but the error is still shorter than before."))
        need(_close(found, 2 / length), '"limit": at which rate is the error as long as before, with the other sign?')
    for overlap, error in ((-0.3, 2.0), (-0.5, 1.5)):
        found = number(harm(overlap, error), 'What "harm" returns')
        avoid(
            found,
            (overlap * error, "A length is not negative."),
            (overlap**2 * error, "What the step adds is read by the old key once, not twice."),
            (error, "The old key reads what was added only as far as it overlaps with the new one."),
        )
        need(_close(found, abs(overlap) * error), '"harm": what does the old key read of what the step has added?')
    return "Exact for the newest, and a little wrong for all others: recency is built into the delta rule."


@exercise("9.3", 'a dict with the keys "share", "length" and "half life", three functions')
def where_writing_rests(answer: Any) -> str:
    share, length, half = functions(answer, "share", "length", "half life")
    for eta, a, mu, slope in ((0.4, 0.02, 0.9, 1.5), (0.1, 0.3, 0.5, 3.0)):
        found = number(share(eta, a, mu), 'What "share" returns')
        for wrong, reason in (
            (1.0, "Each write also lets go of a share a. What is written at rest must make up for it."),
            (eta / (eta + a), "That is without momentum. Which step does it make of a constant error?"),
            (a * (1 - mu) / (eta + a * (1 - mu)), "That is the share that is missing."),
        ):
            need(not _close(found, wrong), f'"share": {reason}')
        need(_close(found, eta / (eta + a * (1 - mu))), '"share": at rest, what is written equals what decays.')
        found = number(length(eta, mu, slope), 'What "length" returns')
        avoid(found, (eta * slope, "That is the first step. Momentum adds up what came before."))
        need(_close(found, eta * slope / (1 - mu)), '"length": where does G ← μ G + η g come to rest?')
        found = number(half(a), 'What "half life" returns')
        need(_close(found, math.log(0.5) / math.log(1 - a), 0.05), '"half life": after k steps, (1 - a)^k is left.')
    return "Decay keeps a memory from ever holding a pair fully; momentum makes the step longer, and the loss smaller."


@exercise("9.4", 'a dict with the keys "pair", a function of N, and "recalls", a function of N and σ')
def where_storage_ends(answer: Any) -> str:
    pair, recalls = functions(answer, "pair", "recalls")
    for count in (5, 12):
        found = number(pair(count), 'What "pair" returns')
        avoid(
            found,
            (2 * math.sin(math.pi / count), "That is their distance."),
            (math.sin(math.pi / count) ** 2, "That is σ². By exercise 2.3, β = 4/δ², and β = 1/σ²."),
            (2 * math.pi / count, "That is their distance along the circle."),
        )
        need(_close(found, math.sin(math.pi / count)), '"pair": half of the distance of two neighbours.')
    for count, sigma, stored in ((8, 0.05, True), (8, 0.5, False), (20, 0.04, True), (20, 0.3, False)):
        given = recalls(count, sigma)
        need(isinstance(given, bool), f'"recalls" must return True or False; this is a {type(given).__name__}.')
        need(
            given == stored,
            f'"recalls": {count} points at σ = {sigma:g} {"are" if stored else "are not"} recalled. Is descent done?',
        )
    return "Below, a memory; above, a density. The border moves with the distance of neighbours."


@exercise("9.5", "a model of pairs with write(k, v), called as model(k, v, q), whose memory holds at most 1024 floats")
def own_fast_loop(answer: Any) -> str:
    need(isinstance(answer, nn.Module) and hasattr(answer, "write"), "Hand in a module with write(k, v).")
    k, v = _signs(100, PAIRS, DIM, seed=95) / math.sqrt(DIM), _signs(100, PAIRS, DIM, seed=96)
    flip = torch.rand(k.shape, generator=seeded(97)) < 0.15
    q = torch.where(flip, -k, k)
    with torch.no_grad():
        floats = _held(answer.write(k[:1], v[:1]))
        read = tensor(answer(k.clone(), v.clone(), q.clone()), v.shape, "What it returns")
    need(floats <= MOST, f"Its memory holds {floats} floats; {MOST} are allowed.")
    wrong = ((read > 0) != (v > 0)).float().mean().item()
    need(wrong < 0.4, f"{wrong:.0%} of the signs are wrong, which is near chance. Is it trained?")
    best = _least_squares(k, v, q)
    beside = "fewer than" if wrong < best else "not yet fewer than"
    return f"{wrong:.1%} of the signs are wrong, {beside} least squares leaves, {best:.1%}."


def _held(memory: Any) -> int:
    tensors = [memory] if isinstance(memory, Tensor) else list(memory.values() if hasattr(memory, "values") else memory)
    return sum(held[0].numel() for held in tensors)


def _least_squares(k: Tensor, v: Tensor, q: Tensor, overlap: float = 0.7) -> float:
    spread = PAIRS / DIM * (1 - overlap**2) * torch.eye(DIM)
    M = torch.linalg.solve(overlap**2 * k.mT @ k + spread, k.mT @ v)
    return float(((q @ M > 0) != (v > 0)).float().mean())
