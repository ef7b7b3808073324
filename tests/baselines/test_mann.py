import math

import naive
import pytest
import torch
from torch import nn

from ebmm import Task, evaluate, fit, tasks
from ebmm.baselines.mann import EMPTY, MANN, rows_and_width

DIM = 6


def make(heads=2, rows=3, seed=0):
    """A float64 model whose gates are open, so that every term of a write counts."""
    torch.manual_seed(seed)
    model = MANN(DIM, rows, 4, heads, controller=5, code_width=7).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.to_gates.bias.fill_(0.3)
        model.log_sharpness.copy_(torch.linspace(0.5, 1.5, heads)[:, None])
    return model


def patterns_for(memories=2, number=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(memories, number, DIM, generator=generator, dtype=torch.double)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def naive_controller(model, x):
    """One step for one pattern, unit by unit."""
    units = model.controller
    code = model.encoder(x[None])[0]
    drive = (model.from_code.weight @ code + model.from_code.bias).tolist()
    output = []
    for u in range(units):
        cell = sigmoid(drive[u]) * math.tanh(drive[2 * units + u])
        output.append(sigmoid(drive[units + u]) * math.tanh(cell))
    seen = torch.tensor(output, dtype=torch.double)
    keys = (model.to_keys.weight @ seen + model.to_keys.bias).reshape(model.heads, model.width).tolist()
    gates = [sigmoid(a) for a in (model.to_gates.weight @ seen + model.to_gates.bias).tolist()]
    return output, keys, gates


def naive_address(model, keys, matrix):
    weights = []
    for head, key in enumerate(keys):
        sharpness = math.exp(model.log_sharpness[head].item())
        exponentials = []
        for row in matrix:
            product = sum(k * m for k, m in zip(key, row, strict=True))
            exponentials.append(math.exp(sharpness * product / (math.hypot(*key) * (math.hypot(*row) + EMPTY))))
        weights.append([e / sum(exponentials) for e in exponentials])
    return weights


def naive_reads(weights, matrix):
    return [
        [sum(w * row[i] for w, row in zip(head, matrix, strict=True)) for i in range(len(matrix[0]))]
        for head in weights
    ]


def naive_write(model, patterns):
    rows, width, heads = model.rows, model.width, model.heads
    state = {
        "matrix": [[1e-6] * width for _ in range(rows)],
        "usage": [0.0] * rows,
        "weights": [[0.0] * rows for _ in range(heads)],
    }
    for x in patterns:
        _, keys, gates = naive_controller(model, x)
        least = min(range(rows), key=lambda row: state["usage"][row])
        written = [
            [g * w + (1 - g) * (row == least) for row, w in enumerate(head)]
            for g, head in zip(gates, state["weights"], strict=True)
        ]
        state["matrix"][least] = [0.0] * width
        state["matrix"] = [
            [m + sum(written[h][row] * keys[h][i] for h in range(heads)) for i, m in enumerate(old)]
            for row, old in enumerate(state["matrix"])
        ]
        state["weights"] = naive_address(model, keys, state["matrix"])
        state["usage"] = [
            model.decay * u + sum(state["weights"][h][row] + written[h][row] for h in range(heads))
            for row, u in enumerate(state["usage"])
        ]
    return state


def naive_read(model, query, state):
    output, keys, _ = naive_controller(model, query)
    reads = naive_reads(naive_address(model, keys, state["matrix"]), state["matrix"])
    found = torch.tensor(output + [r for head in reads for r in head], dtype=torch.double)
    return model.decoder(found[None])[0]


def by_usage(matrix, usage):
    """The rows in the order of their usage: which of several unused rows is taken first is left open."""
    return matrix.gather(1, usage.argsort(1)[..., None].expand_as(matrix)), usage.sort(1).values


@pytest.mark.parametrize("heads", [1, 3])
@torch.no_grad()
def test_write_and_read_equal_the_naive_loop(heads):
    model, patterns = make(heads), patterns_for()
    memory = model.write(patterns)
    x = model.read(1 - patterns, memory)
    for b in range(2):
        state = naive_write(model, patterns[b])
        found = by_usage(memory["matrix"][b : b + 1], memory["usage"][b : b + 1])
        expected = by_usage(*(torch.tensor([state[name]], dtype=torch.double) for name in ("matrix", "usage")))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
        slow = torch.stack([naive_read(model, query, state) for query in 1 - patterns[b]])
        torch.testing.assert_close(x[b], slow, rtol=1e-6, atol=1e-7)


@torch.no_grad()
def test_a_closed_gate_puts_each_key_alone_into_the_row_used_longest_ago():
    model = make(heads=1, rows=2)
    model.to_gates.bias.fill_(-100)
    patterns = patterns_for(1, 3)
    keys = model._keys_and_gates(model._controlled(model._encoded(patterns)))[0][0, :, 0]
    model.log_sharpness.fill_(10)  # reading finds the row that was just written, and nothing else
    for number, rows in [(1, [0]), (2, [0, 1]), (3, [2, 1])]:
        matrix = model.write(patterns[:, :number])["matrix"][0]
        torch.testing.assert_close(matrix[: len(rows)], keys[rows])
    memory = model.write(patterns)
    # The row of pattern 2 is one step old; row 0 was used by pattern 1, two steps ago, and now by pattern 3.
    torch.testing.assert_close(memory["usage"][0], torch.tensor([2 * 0.95**2 + 2, 2 * 0.95], dtype=torch.double))
    torch.testing.assert_close(memory["weights"][0, 0], torch.tensor([1.0, 0.0], dtype=torch.double))


@torch.no_grad()
def test_an_open_gate_writes_where_the_head_last_read():
    model = make(heads=1, rows=2)
    patterns = patterns_for(1, 2)
    keys = model._keys_and_gates(model._controlled(model._encoded(patterns)))[0][0, :, 0]
    model.log_sharpness.fill_(10)
    model.to_gates.weight.zero_()
    model.to_gates.bias.fill_(-100)
    memory = model.write(patterns[:, :1])
    model.to_gates.bias.fill_(100)
    matrix = model.write(patterns[:, 1:], memory)["matrix"][0]
    torch.testing.assert_close(matrix, torch.stack([keys[0] + keys[1], 0 * keys[0]]))  # row 1 was erased all the same


def test_learns_an_easy_task():
    torch.manual_seed(0)
    task = Task(tasks.RandomBits(24), tasks.FlipBits(0.05), number=4)
    model = MANN(24, rows=4, width=40, heads=2, controller=100)
    fit(model, task, steps=250, memories=16, learning_rate=3e-3, progress=False)
    assert evaluate(model, task, memories=200, seed=1)["mean"] < 0.24


@pytest.mark.parametrize(
    ("options", "floats"),
    [
        ({"rows": 16, "width": 125}, 2080),
        ({"rows": 16, "width": 128, "heads": 1}, 2080),
        ({"rows": 8, "width": 10, "heads": 3, "controller": 7}, 8 * 14),
    ],
)
def test_memory_floats_count_all_that_travels(options, floats):
    model = MANN(64, **options)
    memory = model.write(torch.rand(1, 3, 64))
    assert model.memory_floats == floats == sum(tensor.numel() for tensor in memory.values())
    assert sum(tensor.numel() for tensor in model.initial_memory().values()) == floats


@pytest.mark.parametrize("budget", [2080, 8256])
@pytest.mark.parametrize("number", [8, 16, 24, 32, 48, 64, 96])
@pytest.mark.parametrize("heads", [1, 4])
def test_rows_and_width_use_the_budget_and_never_more(budget, number, heads):
    rows, width = rows_and_width(budget, number, heads)
    model = MANN(64, rows, width, heads)
    assert rows == number and budget - rows < model.memory_floats <= budget


def test_a_budget_too_small_is_refused():
    with pytest.raises(ValueError, match="80 floats are too few for 16 rows, each with 5 of bookkeeping"):
        rows_and_width(80, 16)
    assert rows_and_width(96, 16) == (16, 1)


def test_gradients_equal_finite_differences():
    model, patterns = make(), patterns_for()

    def loss():
        return (model.read(1 - patterns, model.write(patterns)) - patterns).square().sum()

    gradients = torch.autograd.grad(loss(), list(model.parameters()))
    generator = torch.Generator().manual_seed(2)
    for (key, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.double)
        measured = naive.central_difference(loss, parameter, direction, 1e-6)
        assert measured == pytest.approx((gradient * direction).sum().item(), rel=1e-4, abs=1e-7), key


@torch.no_grad()
def test_an_empty_row_is_like_no_key():
    model = make(heads=1, rows=2)
    model.log_sharpness.fill_(math.log(3))
    matrix = torch.tensor([[[2.0] * 4, [1e-6] * 4]], dtype=torch.double)
    weights = model._address(torch.ones(1, 1, 4, dtype=torch.double), matrix)[0, 0]
    assert (weights[0] / weights[1]).item() == pytest.approx(math.exp(3), rel=0.02)


@pytest.mark.parametrize("heads", [1, 4])
def test_gradients_stay_moderate_while_rows_are_nearly_empty(heads):
    batch = Task(tasks.RandomBits(64), tasks.RedrawBits(32), 32).sample(16, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = MANN(64, *rows_and_width(2080, 32, heads), heads)
    loss = (model.read(batch.queries, model.write(batch.patterns)) - batch.patterns).square().sum(-1).mean()
    norms = [gradient.norm() for gradient in torch.autograd.grad(loss, list(model.parameters()))]
    assert torch.stack(norms).norm() < 50


@torch.no_grad()
def test_at_first_a_pattern_goes_to_a_row_of_its_own_and_keys_differ():
    torch.manual_seed(0)
    model = MANN(64, 16, 20)
    keys, gates = model._keys_and_gates(model._controlled(model._encoded(torch.rand(1, 50, 64).round())))
    assert (gates > 0.001).all() and (gates < 0.05).all()
    cosines = nn.functional.cosine_similarity(keys[0, :25], keys[0, 25:], dim=-1)
    assert cosines.abs().mean() < 0.4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"decay": 1.0}, r"decay must lie in \[0, 1\) .* got 1.0 and 20.0"),
        ({"decay": -0.1}, "decay must lie"),
        ({"sharpness": 0.0}, "sharpness above 0, got 0.95 and 0.0"),
    ],
)
def test_start_values_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        MANN(6, 3, 4, **arguments)
