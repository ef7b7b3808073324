"""The Hopfield network and the dense memory: rules, dynamics, the paper's rows, and what they refuse."""

import math
import re
import time
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmm.dense import DenseMemory
from ebmm.hopfield import Hopfield
from ebmm.memory import Memory

RULES = ("hebb", "storkey", "pseudo-inverse")
few_examples = settings(max_examples=40, deadline=None)


def random_signs(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randint(0, 2, shape, generator=generator).to(dtype) - 1


def redrawn_bits(memories, number, dim, count, seed):
    """Random bits, the same with ``count`` of them drawn anew, and where they were left intact."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randint(0, 2, (memories, number, dim), generator=generator).float()
    redrawn = torch.rand(patterns.shape, generator=generator).argsort(-1) < count
    noise = torch.randint(0, 2, patterns.shape, generator=generator).float()
    return patterns, torch.where(redrawn, noise, patterns), ~redrawn


def naive_sweep(weight, state, frozen, order):
    """One sweep over one query, unit by unit, as the textbook has it."""
    state = state.clone()
    for i in order:
        field = weight[i] @ state
        if field != 0 and not frozen[i]:
            state[i] = field.sign()
    return state


# The paper's table 1


PAPER = {  # wrong bits of 128 after reading with the intact bits clamped
    "hebb": (0.4, 5.0, 9.8, 13.0, 16.5),
    "storkey": (0.0, 0.9, 6.3, 11.3, 17.1),
    "pseudo-inverse": (0.0, 0.0, 0.3, 4.3, 22.5),
}


@pytest.mark.parametrize("rule", RULES)
def test_clamped_reading_reproduces_the_papers_table(rule):
    model = Hopfield(128, rule)
    for number, paper in zip((16, 32, 48, 64, 96), PAPER[rule], strict=True):
        patterns, queries, intact = redrawn_bits(200, number, 128, count=64, seed=number)
        x = model.read(queries, model.write(patterns), clamp=intact)
        wrong = (x != patterns).sum(-1).float().mean().item()
        bound = 3 if (rule, number) == ("pseudo-inverse", 64) else max(0.6, 0.1 * paper)
        assert abs(wrong - paper) <= bound, f"{number} patterns: {wrong:.2f} wrong bits, paper {paper}"


def test_free_reading_by_hebbs_rule_fails_as_it_must():
    model = Hopfield(128, "hebb")
    for number, expected in zip((16, 32, 48, 64, 96), (9.8, 40, 44, 46, 48), strict=True):
        patterns, queries, _ = redrawn_bits(200, number, 128, count=64, seed=number)
        wrong = (model.read(queries, model.write(patterns)) != patterns).sum(-1).float().mean().item()
        assert wrong == pytest.approx(expected, rel=0.15), f"{number} patterns"


def test_reading_is_fast():
    patterns, queries, intact = redrawn_bits(200, 96, 128, count=64, seed=0)
    model = Hopfield(128)
    memory = model.write(patterns)
    start = time.process_time()
    model.read(queries, memory, clamp=intact)
    assert time.process_time() - start < 15  # under 2 seconds on one core of an ordinary machine


# Rules


def test_hebb_by_hand():
    memory = Hopfield(3, "hebb", values="signs").write(torch.tensor([[[1.0, 1, -1], [1, -1, -1]]]))
    expected = torch.tensor([[0.0, 0, -2], [0, 0, 0], [-2, 0, 0]]) / 3
    torch.testing.assert_close(memory["weight"][0], expected)


def test_storkey_by_hand():
    # The first pattern meets W = 0: Hebb's rule, w01 = 1/2. The second has h = (-1/2, 1/2), so that
    # x_0 x_1 - x_0 h_1 - h_0 x_1 = -1 - 1/2 - 1/2 = -2 with x = (1, -1), and w01 = 1/2 - 2/2.
    memory = Hopfield(2, "storkey", values="signs").write(torch.tensor([[[1.0, 1], [1, -1]]]))
    torch.testing.assert_close(memory["weight"][0], torch.tensor([[0.0, -0.5], [-0.5, 0]]))


def test_pseudo_inverse_by_hand():
    # P onto (1,1,1,1)/2 and the rest of (1,1,1,-1) beside it, (1,1,1,-3)/sqrt(12).
    model = Hopfield(4, "pseudo-inverse", values="signs")
    memory = model.write(torch.tensor([[[1.0, 1, 1, 1], [1, 1, 1, -1]]]))
    third = torch.zeros(4, 4)
    third[:3, :3] = 1 / 3
    expected = third.clone()
    expected[3, 3] = 1
    torch.testing.assert_close(memory["projection"][0], expected)
    torch.testing.assert_close(model.weights(memory)[0], third - torch.diag(third.diagonal()))


def test_storkey_equals_the_loop_over_its_entries():
    d = 9
    signs = random_signs(3, 5, d)
    weight = Hopfield(d, "storkey", values="signs").write(signs)["weight"]
    for b in range(3):
        expected = torch.zeros(d, d, dtype=torch.float64)
        for x in signs[b]:
            h = expected @ x
            grown = expected.clone()
            for i in range(d):
                for j in range(d):
                    if i != j:
                        grown[i, j] += (x[i] * x[j] - x[i] * h[j] - h[i] * x[j]) / d
            expected = grown
        torch.testing.assert_close(weight[b], expected)


@pytest.mark.parametrize("rule", RULES)
def test_the_couplings_are_symmetric_without_diagonal(rule):
    model = Hopfield(31, rule, values="signs")
    weight = model.weights(model.write(random_signs(2, 7, 31, dtype=torch.float32)))
    torch.testing.assert_close(weight, weight.mT, rtol=0, atol=1e-7)
    assert (weight.diagonal(dim1=1, dim2=2) == 0).all() and weight.abs().sum() > 0


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("number", [5, 30, 60])
def test_pseudo_inverse_is_the_projection_and_keeps_every_pattern(number, dtype, tolerance):
    signs = random_signs(4, number, 64, seed=number, dtype=dtype)
    model = Hopfield(64, "pseudo-inverse", values="signs")
    memory = model.write(signs)
    wide = signs.double()
    expected = torch.linalg.pinv(wide) @ wide
    torch.testing.assert_close(memory["projection"].double(), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(signs @ memory["projection"], signs, rtol=0, atol=10 * tolerance)
    assert torch.equal(model.read(signs, memory), signs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pseudo_inverse_passes_over_patterns_in_the_span(dtype):
    signs = random_signs(2, 20, 16, dtype=dtype)  # more patterns than units: they span everything
    signs = torch.cat([signs[:, :6], signs[:, :6], -signs[:, :3], signs], dim=1)
    model = Hopfield(16, "pseudo-inverse", values="signs")
    once, again = model.write(signs[:, :6]), model.write(signs[:, :15])
    torch.testing.assert_close(again["projection"], once["projection"], rtol=0, atol=1e-6)
    everything = model.write(signs)
    torch.testing.assert_close(everything["projection"], torch.eye(16, dtype=dtype).expand(2, -1, -1))
    query = random_signs(2, 5, 16, seed=1, dtype=dtype)
    assert torch.equal(model.read(query, everything), query)  # no coupling is left, only rounding


@pytest.mark.parametrize("rule", RULES)
def test_writing_goes_on(rule):
    signs = random_signs(3, 10, 20)
    model = Hopfield(20, rule, values="signs")
    first = model.write(signs[:, :4])
    kept = {name: tensor.clone() for name, tensor in first.items()}
    parts = model.write(signs[:, 4:], first)
    for name, tensor in model.write(signs).items():
        torch.testing.assert_close(parts[name], tensor)
        assert torch.equal(first[name], kept[name]), "the old memory must stay as it was"


@pytest.mark.parametrize("rule", RULES)
def test_each_memory_is_written_and_read_alone(rule):
    patterns, queries, intact = redrawn_bits(8, 6, 100, count=30, seed=3)
    model = Hopfield(100, rule)

    def run(part):
        memory = model.write(patterns[part])
        order = torch.Generator().manual_seed(5)
        return model.read(queries[part], memory, clamp=intact[part], generator=order)

    parts = [run(slice(b, b + 4)) for b in (0, 4)]
    assert torch.equal(run(slice(None)), torch.cat(parts))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dynamics", ["asynchronous", "synchronous"])
def test_bits_and_signs_agree(rule, dynamics):
    patterns, queries, _ = redrawn_bits(3, 6, 33, count=20, seed=1)
    of_bits, of_signs = Hopfield(33, rule), Hopfield(33, rule, values="signs")
    memory = of_bits.write(patterns)
    other = of_signs.write(2 * patterns - 1)
    for name in memory:
        assert torch.equal(memory[name], other[name])
    x = of_bits.read(queries, memory, dynamics=dynamics)
    signs = of_signs.read(2 * queries - 1, other, dynamics=dynamics)
    assert set(x.unique().tolist()) == {0, 1} and torch.equal(2 * x - 1, signs)
    assert torch.equal(of_bits.energy(x, memory), of_signs.energy(signs, other))


# Reading


@pytest.mark.parametrize("dim", [1, 15, 16, 17, 50])
@pytest.mark.parametrize("clamped", [False, True])
@pytest.mark.parametrize("drawn", [False, True])
def test_a_sweep_equals_the_textbooks_loop(dim, clamped, drawn):
    """By Hebb's rule d W holds whole numbers, so the loop over them is exact, ties included."""
    signs = random_signs(3, 4, dim, dtype=torch.float32)
    query = random_signs(3, 5, dim, seed=1, dtype=torch.float32)
    frozen = random_signs(3, 5, dim, seed=2) > 0 if clamped else torch.zeros(3, 5, dim, dtype=torch.bool)
    model = Hopfield(dim, "hebb", values="signs")
    generator, order = None, list(range(dim))
    if drawn:
        order = torch.randperm(dim, generator=torch.Generator().manual_seed(7)).tolist()
        generator = torch.Generator().manual_seed(7)
    x = model.read(query, model.write(signs), steps=1, clamp=frozen if clamped else None, generator=generator)
    whole = signs.long().mT @ signs.long()
    whole -= torch.diag_embed(whole.diagonal(dim1=1, dim2=2))
    for b in range(3):
        for q in range(5):
            expected = naive_sweep(whole[b], query[b, q].long(), frozen[b, q], order)
            assert torch.equal(x[b, q].long(), expected)


def test_the_order_of_the_units_is_drawn_anew_for_each_sweep():
    model = Hopfield(30, values="signs")
    memory, query = model.write(random_signs(2, 6, 30)), random_signs(2, 9, 30, seed=1)
    x = model.read(query, memory, steps=2, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    once = model.read(query, memory, steps=1, generator=generator)
    assert torch.equal(model.read(once, memory, steps=1, generator=generator), x)
    same_order = model.read(once, memory, steps=1, generator=torch.Generator().manual_seed(3))
    assert not torch.equal(same_order, x)


def test_a_field_of_zero_leaves_the_unit():
    model = Hopfield(2, values="signs")
    memory = model.write(torch.tensor([[[1.0, 1], [1, -1]]]))  # the two cancel: W = 0
    query = torch.tensor([[[1.0, 1], [1, -1], [-1, 1], [-1, -1]]])
    for dynamics in ("asynchronous", "synchronous"):
        assert torch.equal(model.read(query, memory, dynamics=dynamics), query)


@pytest.mark.parametrize("rule", RULES)
@few_examples
@given(dim=st.integers(2, 40), number=st.integers(1, 12), seed=st.integers(0, 1000))
def test_energy_never_rises_along_asynchronous_updates(rule, dim, number, seed):
    model = Hopfield(dim, rule, values="signs")
    memory = model.write(random_signs(1, number, dim, seed=seed))
    query = random_signs(1, 1, dim, seed=seed + 1)
    order = torch.Generator().manual_seed(seed)
    states = list(model.updates(query, memory, generator=order))
    energies = torch.stack([model.energy(x, memory)[0, 0] for x in states])
    assert (energies.diff() < 0).all()
    assert torch.equal(states[0], query)
    for before, after in pairwise(states):
        assert (before != after).sum() == 1
    x = model.read(query, memory, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(states[-1], x)
    assert torch.equal(model.read(x, memory, steps=1), x), "reading ends where no unit changes"


def test_energy_never_rises_along_a_batched_trajectory():
    signs = random_signs(3, 12, 40)
    model = Hopfield(40, "hebb", values="signs")
    memory = model.write(signs)
    query = random_signs(3, 50, 40, seed=1)
    x, trajectory = model.read(query, memory, trajectory=True)
    assert torch.equal(trajectory[0], query) and torch.equal(trajectory[-1], x)
    assert torch.equal(trajectory[-2], x) and not torch.equal(trajectory[-3], x)
    energies = torch.stack([model.energy(state, memory) for state in trajectory])
    assert (energies.diff(dim=0) <= 1e-12).all() and (energies[-1] < energies[0]).any()
    states = list(model.updates(query, memory))
    assert torch.equal(states[-1], x)


def test_synchronous_updates_may_cycle():
    model = Hopfield(2, values="signs")
    memory = model.write(torch.tensor([[[1.0, -1]]]))
    query = torch.tensor([[[1.0, 1]]])
    _, trajectory = model.read(query, memory, trajectory=True, dynamics="synchronous", steps=4)
    assert trajectory[:, 0, 0].tolist() == [[1, 1], [-1, -1], [1, 1], [-1, -1], [1, 1]]
    assert model.read(query, memory).tolist() == [[[-1, 1]]]


def test_synchronous_updates_equal_the_formula():
    signs, query = random_signs(2, 3, 21), random_signs(2, 4, 21, seed=1)
    frozen = random_signs(2, 4, 21, seed=2) > 0
    model = Hopfield(21, "storkey", values="signs")
    memory = model.write(signs)
    x = model.read(query, memory, dynamics="synchronous", steps=1, clamp=frozen)
    expected = torch.where(frozen, query, (query @ memory["weight"]).sign())
    assert torch.equal(x, expected) and not torch.equal(x, query)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dynamics", ["asynchronous", "synchronous"])
def test_clamped_units_never_move(rule, dynamics):
    patterns, queries, _ = redrawn_bits(3, 8, 24, count=24, seed=2)
    clamp = torch.rand(queries.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    model = Hopfield(24, rule)
    memory = model.write(patterns)
    _, trajectory = model.read(queries, memory, trajectory=True, clamp=clamp, dynamics=dynamics)
    assert (trajectory == queries)[:, clamp].all()
    assert not (trajectory == queries)[:, ~clamp].all()
    for x in model.updates(queries, memory, clamp=clamp):
        assert (x == queries)[clamp].all()


def test_patterns_may_have_any_shape():
    patterns, queries, intact = redrawn_bits(2, 3, 20, count=8, seed=4)
    flat, shaped = Hopfield(20), Hopfield((4, 5))
    memory = flat.write(patterns)
    assert torch.equal(shaped.write(patterns.unflatten(2, (4, 5)))["weight"], memory["weight"])
    queries_, intact_ = queries.unflatten(2, (4, 5)), intact.unflatten(2, (4, 5))
    x, trajectory = shaped.read(queries_, memory, trajectory=True, clamp=intact_)
    assert trajectory.shape[1:] == (2, 3, 4, 5)
    assert torch.equal(x.flatten(2), flat.read(queries, memory, clamp=intact))
    assert torch.equal(shaped.energy(queries_, memory), flat.energy(queries, memory))
    assert shaped.memory_floats == flat.memory_floats == 210


def test_energy_equals_the_double_sum():
    model = Hopfield(5)
    patterns = (random_signs(2, 2, 5) + 1) / 2
    memory = model.write(patterns)
    x = torch.rand(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    energy = model.energy(x, memory)
    for b in range(2):
        for q in range(3):
            s = 2 * x[b, q] - 1
            w = memory["weight"][b]
            expected = -0.5 * sum(w[i, j] * s[i] * s[j] for i in range(5) for j in range(5) if i != j)
            torch.testing.assert_close(energy[b, q], expected)


@pytest.mark.parametrize("rule", RULES)
def test_reading_leaves_the_memory_as_it_was(rule):
    model, signs = Hopfield(8, rule, values="signs"), random_signs(2, 3, 8)
    memory, again = model.write(signs), model.write(signs)
    model.read(signs, memory)
    assert torch.equal(*(next(iter(one.values())) for one in (memory, again)))


def test_the_energy_of_a_projection_leaves_its_diagonal_out():
    model = Hopfield(3, "pseudo-inverse", values="signs")
    x = torch.tensor([[[1.0, 1, -1]]])
    assert model.energy(x, model.write(x)).item() == pytest.approx(-1)  # -1/2 (3 - trace 1)


def test_the_budget_of_table_1():
    assert Hopfield(128).memory_floats == 8256
    assert DenseMemory(128, capacity=64).memory_floats == 8192
    assert not list(Hopfield(3).parameters()) and not list(DenseMemory(3, capacity=2).parameters())


# The dense memory


def box_points(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_dense_energy_and_update_by_hand():
    model = DenseMemory(1, capacity=2, beta=2.0, centred=False)
    memory = model.write(torch.tensor([[[1.0], [-1.0]]]).double())
    x = torch.tensor([[[0.3]]], dtype=torch.float64)
    expected = 0.5 * 0.3**2 - math.log(math.exp(0.6) + math.exp(-0.6)) / 2
    assert model.energy(x, memory).item() == pytest.approx(expected)
    assert model.read(x, memory, steps=1).item() == pytest.approx(math.tanh(0.6))


@pytest.mark.parametrize("centred", [True, False])
@few_examples
@given(dim=st.integers(1, 20), number=st.integers(1, 10), beta=st.floats(0.05, 20), seed=st.integers(0, 1000))
def test_a_dense_step_never_raises_the_energy(centred, dim, number, beta, seed):
    model = DenseMemory(dim, capacity=number, beta=beta, centred=centred)
    patterns, query = box_points(2, number, dim, seed=seed), box_points(2, 3, dim, seed=seed + 1)
    if not centred:
        patterns, query = 4 * patterns - 2, 6 * query - 3
    memory = model.write(patterns)
    x, trajectory = model.read(query, memory, trajectory=True, steps=6)
    energies = torch.stack([model.energy(state, memory) for state in trajectory])
    assert (energies.diff(dim=0) <= 1e-9).all()
    assert (energies[1] < energies[0]).all()  # no random query is a fixed point
    assert trajectory.shape == (7, 2, 3, dim)
    assert torch.equal(trajectory[0], query) and torch.equal(trajectory[-1], x)


@pytest.mark.parametrize("centred, size", [(True, 1 / 4), (False, 1)])
def test_a_dense_step_is_a_gradient_step(centred, size):
    model = DenseMemory((2, 3), capacity=4, beta=3.0, centred=centred)
    memory = model.write(box_points(2, 4, 2, 3))
    query = box_points(2, 5, 2, 3, seed=1).requires_grad_()
    (gradient,) = torch.autograd.grad(model.energy(query, memory).sum(), query)
    torch.testing.assert_close(model.read(query, memory, steps=1), query - size * gradient)


def test_a_large_beta_returns_the_nearest_pattern():
    patterns, queries, _ = redrawn_bits(3, 30, 64, count=24, seed=8)
    model = DenseMemory(64, capacity=30, beta=100.0)
    nearest = torch.cdist(queries, patterns, p=1).argmin(-1)
    expected = torch.gather(patterns, 1, nearest[..., None].expand(-1, -1, 64))
    torch.testing.assert_close(model.read(queries, model.write(patterns)), expected)


def test_a_small_beta_returns_the_mean():
    patterns = box_points(2, 6, 9)
    model = DenseMemory(9, capacity=6, beta=1e-7)
    x = model.read(patterns[:, :1], model.write(patterns))
    torch.testing.assert_close(x, patterns.mean(1, keepdim=True), rtol=0, atol=1e-5)


def test_without_centring_a_long_pattern_wins_over_a_nearer_one():
    patterns, query = torch.tensor([[[1.0, 0.5], [0.3, 0.2]]]), torch.tensor([[[0.3, 0.2]]])
    model = DenseMemory(2, capacity=2, beta=1000.0, centred=False)
    torch.testing.assert_close(model.read(query, model.write(patterns)), patterns[:, :1])


def test_what_a_dense_memory_reads_lies_in_the_box():
    patterns = torch.ones(1, 20, 50)
    patterns[:, :, ::3] = 0  # twenty times the same: without care rounding leaves the box here
    model = DenseMemory(50, capacity=20, beta=0.01)
    memory = model.write(patterns)
    x = model.read(box_points(1, 500, 50, dtype=torch.float32), memory)
    assert x.min() >= 0 and x.max() <= 1
    model.energy(x, memory)
    slots = memory["patterns"].clone().requires_grad_()
    model.read(x, Memory({"patterns": slots})).sum().backward()
    torch.testing.assert_close(slots.grad.sum(1), torch.full((1, 50), 500 / 2), rtol=1e-4, atol=0)


def test_in_a_full_dense_memory_the_oldest_patterns_give_way():
    patterns = box_points(2, 7, 4)
    model = DenseMemory(4, capacity=3, full="overwrite")
    last = DenseMemory(4, capacity=3).write(patterns[:, -3:])["patterns"]
    memory = model.write(patterns[:, :2])
    for more in (patterns[:, 2:4], patterns[:, 4:]):  # the first overflows, the second fills all by itself
        before = memory["patterns"].clone()
        later = model.write(more, memory)
        assert torch.equal(memory["patterns"], before)
        memory = later
    assert torch.equal(memory["patterns"], last)
    assert torch.equal(model.write(patterns)["patterns"], last)
    assert memory[:1]["patterns"].numel() == model.memory_floats == 12


@pytest.mark.parametrize("centred", [True, False])
def test_gradients_flow_through_a_dense_memory(centred):
    model = DenseMemory(3, capacity=4, beta=2.0, centred=centred)
    patterns, query = (0.1 + 0.8 * box_points(2, n, 3, seed=n) for n in (4, 2))
    inputs = patterns.requires_grad_(), query.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, q: model.read(q, model.write(p), steps=3), inputs)
    assert torch.autograd.gradcheck(lambda p, q: model.energy(q, model.write(p)), inputs)


# What they refuse


def hopfield_memory(dim=4, rule="hebb"):
    return Hopfield(dim, rule).write(torch.ones(2, 1, dim))


BITS = torch.ones(2, 3, 4)
DENSE = DenseMemory(4, capacity=2)
ERRORS = {
    "rule": (
        lambda: Hopfield(4, rule="hebbian"),
        ValueError,
        "rule must be one of ('hebb', 'storkey', 'pseudo-inverse'), got 'hebbian'",
    ),
    "values": (
        lambda: Hopfield(4, values="reals"),
        ValueError,
        "values must be one of ('bits', 'signs'), got 'reals'",
    ),
    "no units": (lambda: Hopfield(0), ValueError, "dim must be at least 1, got 0"),
    "dim": (lambda: Hopfield(4.0), TypeError, "dim must be a whole number, got 4.0"),
    "an empty shape": (
        lambda: DenseMemory((), capacity=1),
        TypeError,
        "dim must be a whole number, got ()",
    ),
    "signs for bits": (
        lambda: Hopfield(4).write(2 * BITS - 3),
        ValueError,
        "patterns must hold only 0 and 1 in a network with values='bits', got -1 among them",
    ),
    "bits for signs": (
        lambda: Hopfield(4, values="signs").write(0 * BITS),
        ValueError,
        "patterns must hold only -1 and 1 in a network with values='signs', got 0 among them",
    ),
    "grey values": (
        lambda: Hopfield(4).read(0.5 * BITS, hopfield_memory()),
        ValueError,
        "query must hold only 0 and 1 in a network with values='bits', got 0.5 among them",
    ),
    "memory of another rule": (
        lambda: Hopfield(4, "pseudo-inverse").read(BITS, hopfield_memory()),
        ValueError,
        "Hopfield with rule='pseudo-inverse' reads a Memory with projection: (B, 4, 4), as its write returns it",
    ),
    "clamp dtype": (
        lambda: Hopfield(4).read(BITS, hopfield_memory(), clamp=BITS),
        TypeError,
        "clamp must be a torch.bool tensor, got torch.float32",
    ),
    "clamp type": (
        lambda: Hopfield(4).read(BITS, hopfield_memory(), clamp=[True]),
        TypeError,
        "clamp must be a torch.bool tensor, got list",
    ),
    "clamp shape": (
        lambda: Hopfield(4).updates(BITS, hopfield_memory(), clamp=BITS[:, :1].bool()),
        ValueError,
        "clamp must have the query's shape (2, 3, 4), got (2, 1, 4)",
    ),
    "dynamics": (
        lambda: Hopfield(4).read(BITS, hopfield_memory(), dynamics="parallel"),
        ValueError,
        "dynamics must be one of ('asynchronous', 'synchronous'), got 'parallel'",
    ),
    "steps": (
        lambda: Hopfield(4).read(BITS, hopfield_memory(), steps=0),
        ValueError,
        "steps must be at least 1, got 0",
    ),
    "half steps": (
        lambda: Hopfield(4).read(BITS, hopfield_memory(), steps=0.5),
        TypeError,
        "steps must be a whole number, got 0.5",
    ),
    "beta": (lambda: DenseMemory(4, capacity=2, beta=0), ValueError, "beta must be a number above 0, got 0"),
    "beta inf": (lambda: DenseMemory(4, 2, beta=math.inf), ValueError, "beta must be a number above 0, got inf"),
    "capacity": (
        lambda: DenseMemory(4, capacity=0),
        ValueError,
        "capacity must be at least 1, got 0",
    ),
    "capacity type": (
        lambda: DenseMemory(4, capacity=1.5),
        TypeError,
        "capacity must be a whole number, got 1.5",
    ),
    "what a full memory does": (
        lambda: DenseMemory(4, capacity=2, full="forget"),
        ValueError,
        "full must be one of ('error', 'overwrite'), got 'forget'",
    ),
    "dense steps": (
        lambda: DENSE.read(BITS, DENSE.write(BITS[:, :2]), steps=-1),
        ValueError,
        "steps must be at least 1, got -1",
    ),
}


@pytest.mark.parametrize("wrong", ERRORS)
def test_errors_say_what_was_given_and_what_was_expected(wrong):
    call, kind, message = ERRORS[wrong]
    with pytest.raises(kind, match=re.escape(message)):
        call()
