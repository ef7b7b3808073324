"""The LSTM as a memory: its equations, what it costs, and what it learns."""

import pytest
import torch
from torch import nn

from ebmm import evaluate, fit, tasks
from ebmm.baselines.lstm import LSTMLayer, LSTMMemory, _flagged
from ebmm.tasks import Task


def random_bits(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def small_memory(**changes):
    torch.manual_seed(0)
    return LSTMMemory(**({"features": 6, "hidden": 5, "layers": 2, "width": 4} | changes))


def naive_step(model, x, flag, state):
    """One input into all layers, gate by gate; the state is a list of (output, cell), one a layer."""
    code = torch.cat([model.encoder(x[None])[0], x.new_tensor([flag])])
    below, new = code, []
    for layer, (h, c) in zip(model.layers, state, strict=True):
        i, f, o, g = (layer.from_input.weight @ below + layer.from_input.bias + layer.recurrent.T @ h).split(
            model.hidden
        )
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        new.append((h, c))
        below = torch.cat([code, h])
    return new


def naive_write(model, patterns):
    """States of the memories after their patterns."""
    states = []
    for of_one in patterns:
        state = [(of_one.new_zeros(model.hidden),) * 2 for _ in model.layers]
        for x in of_one:
            state = naive_step(model, x, 1.0, state)
        states.append(state)
    return states


def naive_read(model, query, states):
    x = torch.empty_like(query)
    for b, state in enumerate(states):
        for q in range(query.shape[1]):
            outputs = [h for h, _ in naive_step(model, query[b, q], -1.0, state)]
            x[b, q] = model.decoder(torch.cat(outputs)[None])[0]
    return x


# The equations


@pytest.mark.parametrize("layers", [1, 3])
def test_writing_and_reading_follow_the_equations(layers):
    model = small_memory(layers=layers).double()
    patterns, query = torch.rand(2, 4, 6).double(), torch.rand(2, 3, 6).double()
    memory, states = model.write(patterns), naive_write(model, patterns)
    for b in range(2):
        for number in range(layers):
            output, cell = states[b][number]
            assert torch.allclose(memory["output"][b, number], output, rtol=0, atol=1e-12)
            assert torch.allclose(memory["cell"][b, number], cell, rtol=0, atol=1e-12)
    assert torch.allclose(model.read(query, memory), naive_read(model, query, states), rtol=0, atol=1e-12)


def test_gradients_follow_the_equations():
    model = small_memory().double()
    patterns, query = torch.rand(2, 4, 6).double(), torch.rand(2, 3, 6).double()
    target = torch.rand(2, 3, 6).double()
    parameters = list(model.parameters())
    fast = torch.autograd.grad((model.read(query, model.write(patterns)) - target).square().sum(), parameters)
    naive = naive_read(model, query, naive_write(model, patterns))
    slow = torch.autograd.grad((naive - target).square().sum(), parameters)
    for a, b in zip(fast, slow, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


def test_a_layer_agrees_with_pytorchs_own():
    torch.manual_seed(0)
    layer, reference = LSTMLayer(3, hidden=5).double(), nn.LSTM(3, 5).double()
    order = torch.arange(20).view(4, 5)[[0, 1, 3, 2]].flatten()  # PyTorch's gates: input, forget, candidate, output
    with torch.no_grad():
        layer.from_input.bias.normal_()
        reference.weight_ih_l0[order] = layer.from_input.weight
        reference.weight_hh_l0[order] = layer.recurrent.T
        reference.bias_ih_l0[order] = layer.from_input.bias
        reference.bias_hh_l0.zero_()
    inputs, output, cell = torch.randn(7, 2, 3).double(), torch.randn(2, 5).double(), torch.randn(2, 5).double()
    outputs, last = layer(inputs, output, cell)
    expected, (_, expected_last) = reference(inputs, (output[None], cell[None]))
    assert torch.allclose(outputs, expected, rtol=0, atol=1e-12)
    assert torch.allclose(last, expected_last[0], rtol=0, atol=1e-12)


def test_one_cell_by_hand():
    # All weights zero: gates are σ of their biases, here σ(0) = ½ and σ(1) for the forget gate; the candidate tanh(2).
    layer = LSTMLayer(1, hidden=1).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.from_input.bias.copy_(torch.tensor([0.0, 1.0, 0.0, 2.0]))
    outputs, cell = layer(torch.rand(2, 1).double(), torch.zeros(1).double(), torch.full((1,), 3.0).double())
    candidate, keep = torch.tanh(torch.tensor(2.0).double()), torch.sigmoid(torch.tensor(1.0).double())
    first = keep * 3 + candidate / 2
    second = keep * first + candidate / 2
    assert torch.allclose(cell, second)
    assert torch.allclose(outputs[:, 0], torch.stack([first, second]).tanh() / 2)


def test_at_first_only_the_forget_gates_have_a_bias():
    for layer in small_memory().layers:
        assert layer.from_input.bias.tolist() == [0.0] * 5 + [1.0] * 5 + [0.0] * 10


def test_the_order_of_the_patterns_matters_and_storing_is_not_recalling():
    model = small_memory()
    patterns = random_bits(1, 2, 6)
    assert not torch.allclose(model.write(patterns)["cell"], model.write(patterns.flip(1))["cell"])
    codes = model._encoded(patterns)
    inputs = _flagged(codes, 1.0), _flagged(codes, -1.0)
    assert torch.equal(inputs[0][..., :-1], inputs[1][..., :-1])
    assert (inputs[0][..., -1] == 1).all() and (inputs[1][..., -1] == -1).all()


# What it costs


@pytest.mark.parametrize(("hidden", "layers", "floats"), [(520, 2, 2080), (516, 8, 8256), (1, 1, 2)])
def test_a_memory_holds_the_floats_that_are_counted(hidden, layers, floats):
    model = LSTMMemory(32, hidden, layers)
    for number in (1, 3):
        memory = model.write(random_bits(1, number, 32))
        assert sum(tensor.numel() for tensor in memory.values()) == model.memory_floats == floats


# Learning


def test_it_learns_to_keep_one_pattern():
    # All bits of the query are random: what is recalled can only come from the memory.
    torch.manual_seed(0)
    model, task = LSTMMemory(16, hidden=64, width=32), Task(tasks.RandomBits(16), tasks.RedrawBits(16), 1)
    fit(model, task, 200, memories=32, learning_rate=1e-2, progress=False)
    assert evaluate(model, task, 200)["mean"] / 16 < 0.01


@pytest.mark.slow
def test_it_learns_to_tell_two_patterns_apart_by_their_halves():
    # Copying the query leaves a quarter of the bits wrong, blending both patterns an eighth.
    torch.manual_seed(0)
    model, task = LSTMMemory(16, hidden=128, width=32), Task(tasks.RandomBits(16), tasks.MaskPart(0.5), 2)
    fit(model, task, 1000, memories=32, learning_rate=1e-2, progress=False)
    assert evaluate(model, task, 200)["mean"] / 16 < 0.01
