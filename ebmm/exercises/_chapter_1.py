"""Judges of the exercises of chapter 1."""

from __future__ import annotations

import torch

from ebmm.exercises.verdict import exercise, need


@exercise("1.1", "the matrix W, a tensor of shape (6, 6)")
def hebb_on_paper(answer) -> str:
    W = torch.as_tensor(answer).float()
    need(W.shape == (6, 6), f"Six units have 6 x 6 couplings; this has shape {tuple(W.shape)}.")
    need(torch.allclose(W, W.T), "A coupling goes both ways: W must be symmetric.")
    need(not W.diagonal().any(), "No unit is coupled to itself: the diagonal must be zero.")
    pair = torch.tensor([[1.0, 1, 1, 1, 1, 1], [1, 1, 1, 1, -1, -1]])
    right = pair.T @ pair / 6
    right.fill_diagonal_(0)
    need(
        not torch.allclose(W, 6 * right),
        "The signs are right, the scale is not: Hebb's rule (1.2) has a factor of 1/d.",
    )
    need(torch.allclose(W, right, atol=1e-4), "Some coupling is off: add up s_i s_j of both patterns, then divide.")
    return "Units that agree in both patterns hold together; those that agree in one and not in the other do not."
