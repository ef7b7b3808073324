"""The page on what training costs: it runs, and what its results files say is what the package promises."""

import pytest

BOUNDS = {
    "ours by plain, small": (0.9, 1.1),
    "ours by plain, medium": (0.9, 1.1),
    "ours by plain, paper": (0.9, 1.06),
    "ours by plain, small, highest": (0.95, 1.08),
    "ours by plain, medium, highest": (0.95, 1.08),
    "ours by plain, paper, highest": (0.95, 1.06),
    "whole, EBMM, slots": (3, 12),
    "whole, EBMM, hops": (2.3, 4),
    "two processes by one": (1.3, 2),
    "MB a memory, kept": (6, 9.5),
    "MB a memory, recomputed": (1.5, 3),
    "EBMM, slots, 1 minutes": (0.1, 0.4),
    "EBMM, hops, 1 minutes": (0.8, 1.8),
    "memory network, plain coders, 1 minutes": (0.1, 0.4),
    "EBMM, slots, 10 minutes": (0.1, 0.4),
    "EBMM, hops, 10 minutes": (0.7, 1.2),
    "EBMM, predictive, 10 minutes": (0.9, 1.7),
    "EBMM, gated beside margins, 10 minutes": (1, 1.8),
    "EBMM, the paper's network, 10 minutes": (4, 8),
    "Kanerva machine, 10 minutes": (1.4, 1.9),
}


@pytest.mark.slow
def test_the_page_reads_what_was_measured(execute_chapter):
    execution = execute_chapter("speed")
    assert not execution.error, execution.error
    found = execution.results
    assert {name: found[name] for name, (low, high) in BOUNDS.items() if not low <= found[name] <= high} == {}
    assert max(found[f"jax by plain, {size}"] for size in ("small", "medium", "paper")) < 1
    assert min(found[f"higher by plain, {size}"] for size in ("small", "medium", "paper")) > 1.2
