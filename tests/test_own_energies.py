"""What a user's own energy may do: it is written and read right, whatever the batch, or refused with the cause."""

import copy
import io
import warnings

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.parametrize import register_parametrization

from ebmm import EBMM, Batch, energies
from ebmm.layers import LayerNorm, MemoryConv2d, MemoryLinear, MemorySlots
from ebmm.training import reconstruction_loss

DIM = 6


class Own(nn.Module):
    """Two layers, the first writable, and a formula of the two and x that gives the energy."""

    writable = ("a",)

    def __init__(self, formula, layer=MemoryLinear):
        super().__init__()
        self.a, self.h, self.formula = layer(DIM, 5), nn.Linear(5, 1), formula

    def plain(self, x):
        return self.h(torch.tanh(self.a(x))).squeeze(-1)

    def forward(self, x):
        return self.formula(self, x)


class SlotsEnergy(nn.Module):
    writable = ("memory",)

    def __init__(self):
        super().__init__()
        self.memory = MemorySlots(4, DIM, scale=0.5)

    def forward(self, x):
        slots = self.memory()
        return -torch.logsumexp(x @ slots.mT, -1) + slots.square().sum((-1, -2))  # (B,): added to the wrong dimension


class PenalisedConvolution(nn.Module):
    writable = ("memory",)

    def __init__(self):
        super().__init__()
        self.memory = MemoryConv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.memory(x.unflatten(-1, (1, 2, 3)))).sum((-1, -2, -3)) * self.memory.weight.abs().mean()


def make(energy, **options):
    torch.manual_seed(0)
    options = {"write_steps": 2, "read_steps": 3, "write_rate": 0.02, "read_rate": 0.05, "box": None} | options
    return EBMM(energy, **options).double()


def batch_of(memories, number=3, shape=(DIM,), seed=1):
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(memories, number, *shape, generator=generator, dtype=torch.double)
    return Batch(patterns, 0.8 * patterns + 0.1, torch.ones_like(patterns, dtype=torch.bool))


def loss_and_gradient(model, batch, loss=None):
    loss = reconstruction_loss(model, batch)[0] if loss is None else loss
    return loss, torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)]
    )


# Memories that mix

MIXING = {
    "penalty on a weight": lambda: Own(lambda e, x: e.plain(x) + 0.5 * e.a.weight.square().sum()),
    "small penalty": lambda: Own(lambda e, x: e.plain(x) + 1e-9 * e.a.bias.abs().sum()),
    "norm over a weight": lambda: Own(lambda e, x: e.plain(x) / e.a.weight.norm()),
    "detached norm": lambda: Own(lambda e, x: e.plain(x) * e.a.weight.detach().norm()),
    "centred weight": lambda: Own(lambda e, x: F.linear(torch.tanh(e.a(x)), e.h.weight * e.a.bias.mean()).squeeze(-1)),
    "tied weight": lambda: Own(lambda e, x: (F.linear(torch.tanh(e.a(x)), e.a.weight.t()) - x).square().sum(-1)),
    "slots summed": SlotsEnergy,
    "convolution": PenalisedConvolution,
    "number of memories": lambda: Own(lambda e, x: e.plain(x) / (1 if x.dim() < 3 else x.shape[0])),
}


@pytest.mark.parametrize("name", MIXING)
@pytest.mark.parametrize("first", [1, 3])
def test_memories_that_would_mix_are_called_one_by_one(name, first):
    model = make(naive.moved(MIXING[name]()))
    with pytest.warns(UserWarning, match="through torch.vmap"), torch.no_grad():
        model.write(batch_of(first).patterns)
    batch = batch_of(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loss_and_gradient(model, batch)
        together = model.write(batch.patterns)
        alone = [model.write(patterns[None]) for patterns in batch.patterns]
    one_by_one = copy.deepcopy(model)
    one_by_one.energy_network.forward = lambda x, f=one_by_one.energy_network.forward: f(x[0])[
        None
    ]  # naive: (1, 1, *S)
    expected = loss_and_gradient(one_by_one, batch, naive.loss(one_by_one, batch.patterns, batch.queries))
    for f, s in zip(found, expected, strict=True):
        torch.testing.assert_close(f, s, rtol=1e-8, atol=1e-10)
    for b, memory in enumerate(alone):
        for key, weight in memory.items():
            torch.testing.assert_close(together[key][b], weight[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "energy",
    [
        lambda: Own(Own.plain),
        lambda: Own(lambda e, x: (torch.tanh(e.a(x)) @ e.a.weight - x).square().sum(-1)),  # tied, and batched too
        lambda: energies.PredictiveEnergy(DIM),
        lambda: energies.DenseEnergy(DIM, 4, beta=50.0),
        lambda: energies.SlotEnergy(DIM, 4),
        lambda: energies.GatedRNNEnergy(DIM, 3, 8),
    ],
)
def test_memories_that_do_not_mix_stay_in_one_batched_call(energy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = EBMM(energy())
        model.read(torch.rand(2, 3, DIM), model.write(torch.rand(2, 3, DIM)))
    assert model._batched


def test_memories_that_mix_behind_a_constant_are_called_one_by_one():
    model = make(Own(lambda e, x: 1e9 + e.plain(x) / e.a.weight.detach().norm()))
    with pytest.warns(UserWarning, match="through torch.vmap"):
        model.write(batch_of(3).patterns)


def test_a_start_of_zeros_is_no_missing_gradient():
    energy = Own(Own.plain, nn.Linear)
    nn.init.zeros_(energy.h.weight)
    EBMM(energy).write(torch.zeros(2, 3, DIM))


POINTS = {
    "mean": lambda e, x: e.plain(x - x.mean(-2, keepdim=True)),
    "detached mean": lambda e, x: e.plain(x - x.detach().mean(-2, keepdim=True)),
    "a tiny share of the others": lambda e, x: e.plain(x) + 1e-9 * e.plain(x).sum(-1, keepdim=True),
    "share of all": lambda e, x: torch.softmax(e.plain(x), -1),
    "the number of points": lambda e, x: e.plain(x) / x.shape[-2],
    "the point before": lambda e, x: e.plain(x) + torch.roll(e.plain(x), 1, -1),
    "from the front": lambda e, x: e.plain(x - x.mean(0)),
    "greatest": lambda e, x: e.plain(x / x.amax()),
    "detached extremes": lambda e, x: e.plain((x - x.detach().amin()) / x.detach().amax((-1, -2), keepdim=True)),
    "median": lambda e, x: e.plain(x - x.median(-2, keepdim=True).values.detach()),
    "farthest other": lambda e, x: e.plain(x) * (x[..., None, :] - x.detach()[..., None, :, :]).abs().sum(-1).amax(-1),
    "detached and added": lambda e, x: e.plain(x) + x.detach().square().sum(),
    "behind a constant": lambda e, x: 1e9 + e.plain(x - x.detach().mean(-2, keepdim=True)),
    "number behind a constant": lambda e, x: 1e9 + e.plain(x / x.shape[-2]),
    "batch statistic": lambda e, x: F.batch_norm(e.plain(x).reshape(-1, 1), None, None, training=True).view(
        x.shape[:-1]
    ),
}


@pytest.mark.parametrize("name", POINTS)
@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_an_energy_that_depends_on_other_points_is_refused(name, layer):
    model = make(Own(POINTS[name], layer))
    with pytest.raises(ValueError, match="energy of a point depends on the other points"):
        model.write(batch_of(2, 1).patterns)
    with pytest.raises(ValueError, match="energy of a point depends on the other points"):
        model.read(batch_of(2).queries, model.initial_memory(2))


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize("greatest", range(6))
def test_an_extreme_over_all_points_is_found_in_whichever_it_lies(greatest, layer):
    patterns = 0.2 * batch_of(2).patterns
    patterns.view(6, DIM)[greatest] += 0.8
    with pytest.raises(ValueError, match="energy of a point depends on the other points"):
        make(Own(lambda e, x: e.plain(x / x.detach().amax()), layer), box=(0.0, 1.0)).write(patterns)


# Chance and state


def from_generator(generator):
    return lambda e, x: e.plain(x) + torch.rand(x.shape[-2], generator=generator)


RANDOM = {
    "dropout": lambda e, x: e.h(F.dropout(e.a(x), 1e-3)).squeeze(-1),
    "noise": lambda e, x: e.plain(x + 0.1 * torch.randn_like(x)),
    "a draw without effect": lambda e, x: e.plain(x) + 0 * torch.rand(()),
    "a generator of its own": from_generator(torch.Generator()),
    "numpy": lambda e, x: e.plain(x) + float(np.random.default_rng().random()),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_an_energy_that_draws_is_refused(name, layer):
    with pytest.raises(ValueError, match="must be the same each time .* dropout"):
        EBMM(Own(RANDOM[name], layer)).write(torch.rand(2, 3, DIM))


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_dropout_is_refused_only_where_it_drops(layer):
    energy = Own(lambda e, x: e.plain(e.drop(x)), layer)
    energy.drop = nn.Dropout(0.5)
    model, x = EBMM(energy).eval(), torch.rand(2, 3, DIM)
    memory = model.write(x)
    model.read(x, memory)
    model.train()
    for use in (lambda: model.write(x), lambda: model.read(x, memory), lambda: model.energy(x, memory)):
        with pytest.raises(ValueError, match="must be the same each time"):
            use()
    energy.drop.p = 0.0
    torch.testing.assert_close(model.read(x, memory), model.eval().read(x, memory))


def test_the_trial_leaves_the_generator_and_the_gradients_alone():
    model, before = EBMM(Own(Own.plain)), torch.get_rng_state()
    model.read(torch.rand_like(p := torch.zeros(2, 3, DIM)) * 0, model.write(p))
    torch.set_rng_state(before)
    model = copy.deepcopy(model)
    model._tried.clear()
    model.write(p)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(parameter.grad is None for parameter in model.parameters())


def average(e, x):
    e.kept = 0.9 * e.kept + 0.1 * e.a(x).detach().mean(0)
    return e.plain(x)


def average_in_place(e, x):
    e.kept.mul_(0.9).add_(0.1 * e.a(x).detach().flatten(0, -2).mean(0))
    return e.plain(x)


def count(e, x):
    e.kept += 1
    return e.plain(x)


def keep_activation(e, x):
    e.activation = e.a(x)
    return e.plain(x)


def come_and_go(e, x):
    e.seen = None if isinstance(getattr(e, "seen", None), torch.Tensor) else torch.zeros(2)
    return e.plain(x)


@pytest.mark.parametrize("called_before", [0, 1])
def test_a_tensor_that_comes_and_goes_is_refused(called_before):
    energy = Own(come_and_go)
    for _ in range(called_before):
        energy(torch.rand(DIM))
    with pytest.raises(ValueError, match="changes or assigns seen"):
        EBMM(energy).write(torch.rand(3, 3, DIM))


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize("formula", [average, average_in_place, count, keep_activation])
@pytest.mark.parametrize("registered", [True, False])
def test_an_energy_that_changes_what_it_holds_is_refused_and_left_as_it_was(formula, layer, registered):
    energy = Own(formula, layer)
    start = torch.zeros(5)
    energy.register_buffer("kept", start) if registered else setattr(energy, "kept", start)
    model = EBMM(energy)
    with pytest.raises(ValueError, match="must not change when it is called, but changes or assigns"):
        model.write(torch.rand(3, 3, DIM))
    assert energy.kept is start and torch.equal(start, torch.zeros(5))
    assert "activation" not in vars(energy)
    torch.save(model.state_dict(), io.BytesIO())


def test_the_changed_buffer_is_named():
    energy = Own(lambda e, x: e.plain(e.norm(x)))
    energy.norm = nn.InstanceNorm1d(3, track_running_stats=True)
    with pytest.raises(ValueError, match="changes or assigns norm.running_mean and norm.running_var: "):
        EBMM(energy, gradient_term=False).write(torch.rand(2, 3, DIM))


def test_what_is_made_once_may_stay():
    def formula(e, x):
        if e.grid is None:
            e.grid = torch.linspace(0, 1, DIM)
        return e.plain(x * e.grid)

    energy = Own(formula)
    energy.grid = None
    model = EBMM(energy)
    model.read(torch.rand(2, 3, DIM), model.write(torch.rand(2, 3, DIM)))
    assert energy.grid is not None


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize("keep", [setattr, lambda e, name, value: e.kept.setdefault(name, value)])
def test_what_is_made_of_static_weights_once_is_made_of_the_right_ones(layer, keep):
    def formula(e, x):
        if not hasattr(e, "scaled") and "scaled" not in e.kept:
            keep(e, "scaled", (e.h.weight / e.h.weight.abs().sum()).detach())
        scaled = e.scaled if hasattr(e, "scaled") else e.kept["scaled"]
        return F.linear(torch.tanh(e.a(x)), scaled).squeeze(-1)

    energy, x = Own(formula, layer), torch.rand(2, 3, DIM)
    energy.kept = {}
    model = EBMM(energy)
    found = model.energy(x, model.initial_memory(2))
    every_time = EBMM(Own(lambda e, x: F.linear(torch.tanh(e.a(x)), e.h.weight / e.h.weight.abs().sum()).squeeze(-1)))
    every_time.energy_network.load_state_dict(energy.state_dict())
    torch.testing.assert_close(found, every_time.energy(x, model.initial_memory(2)))


def steps_in_a_number(e, x):
    e.number = getattr(e, "number", 0) + 1
    return e.plain(x) * (1 - 2e-5 * e.number)


def average_in_a_number(e, x):
    e.number = 0.9998 * getattr(e, "number", 0.5)
    return e.plain(x) + e.number


def average_in_a_dictionary(e, x):
    e.held["shift"].lerp_(torch.ones(5), 1e-3)
    return e.h(torch.tanh(e.a(x) + e.held["shift"])).squeeze(-1)


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize("formula", [steps_in_a_number, average_in_a_number, average_in_a_dictionary])
def test_state_in_numbers_and_dictionaries_is_found_by_what_it_does(formula, layer):
    energy = Own(formula, layer)
    energy.held = {"shift": torch.zeros(5)}
    with pytest.raises(ValueError, match="must be the same each time"):
        EBMM(energy).write(torch.rand(2, 3, DIM))
    assert "number" not in vars(energy)


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_a_refused_energy_keeps_the_attributes_it_had(layer):
    def formula(e, x):
        e.grid = torch.linspace(0, 1, DIM) if e.grid is None else e.grid
        e.calls += 1
        return e.plain(F.dropout(x * e.grid, 0.5, e.training))

    energy = Own(formula, layer)
    energy.grid, energy.calls = None, 0
    model = EBMM(energy)
    with pytest.raises(ValueError, match="must be the same each time"):
        model.write(torch.rand(2, 3, DIM))
    assert energy.grid is None and energy.calls == 0
    model.eval().write(torch.rand(2, 3, DIM))


def in_a_list(energy):
    kept = [energy.a.weight]
    return lambda e, x: e.plain(x) + F.linear(x, kept[0]).sum(-1)


def in_a_list_and_detached(energy):
    kept = [energy.a.bias]
    return lambda e, x: e.plain(x) * (1 + kept[0].detach().square().mean())


def among_others(energy):
    kept = list(energy.parameters())
    return lambda e, x: e.plain(x) + torch.cat([p.flatten() for p in kept]).square().sum()


def made_of_it_before(energy):
    norm = energy.a.weight.norm()
    return lambda e, x: e.plain(x) / norm


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize(
    ("way", "frozen"),
    [
        *((way, frozen) for way in (in_a_list, in_a_list_and_detached, among_others) for frozen in (False, True)),
        (made_of_it_before, False),  # a frozen one leaves a number, which is no weight any more
    ],
)
def test_a_writable_weight_reached_past_its_module_is_refused(way, layer, frozen):
    energy = Own(None, layer)
    energy.a.requires_grad_(not frozen)
    energy.formula = way(energy)
    with pytest.raises(ValueError, match=r"reaches 'a.(weight|bias)' past its module.* take self.a.(weight|bias) in"):
        EBMM(energy).write(torch.rand(2, 3, DIM))
    assert all(parameter.grad is None for parameter in energy.parameters())


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_static_weights_and_shapes_may_be_reached_past_their_modules(layer):
    energy = Own(None, layer)
    kept = [energy.h.weight, energy.a.weight]
    energy.formula = lambda e, x: e.plain(x) + F.linear(torch.tanh(e.a(x)), kept[0])[..., 0] / kept[1].shape[0]
    model = EBMM(energy)
    model.read(torch.rand(2, 3, DIM), model.write(torch.rand(2, 3, DIM)))


def test_cached_parametrizations_are_refused_and_do_no_harm_where_there_are_none():
    energy, x = Own(Own.plain, nn.Linear), torch.rand(2, 3, DIM)
    with parametrize.cached():
        EBMM(energy).write(x)
    register_parametrization(energy.a, "weight", DividedByNorm())
    model = EBMM(energy)
    memory = model.write(x)
    with parametrize.cached():
        for use in (lambda: model.write(x), lambda: model.read(x, memory), lambda: model.energy(x, memory)):
            with pytest.raises(ValueError, match=r"parametrize.cached\(\) keeps .* write and read outside it"):
                use()


@pytest.mark.parametrize("wall", [0, 1])
@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_an_energy_that_is_nan_at_the_walls_is_refused(layer, wall):
    def formula(e, x):
        apart = (x - wall).abs()
        return e.plain(x) + (apart * apart.log()).sum(-1)

    with pytest.raises(ValueError, match="energy is NaN where x is 0.0 or 1.0"):
        EBMM(Own(formula, layer)).write(torch.rand(2, 3, DIM))
    EBMM(Own(formula, layer), box=(-1.0, 0.5)).write(torch.rand(2, 3, DIM) / 2)
    EBMM(Own(lambda e, x: e.plain(x / x.norm(dim=-1, keepdim=True)), layer)).write(torch.rand(2, 3, DIM))


# Layers whose derivatives are missing or wrong


class Attention(nn.Module):
    """Attention within one point of four rows, by one of PyTorch's functions or from products."""

    def __init__(self, kind, layer):
        super().__init__()
        self.kind, self.q = kind, layer(DIM, DIM)
        self.attention = nn.MultiheadAttention(DIM, 1, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(DIM, 1, 8, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x):
        q = self.q(x.flatten(-3, -2)).reshape(x.shape)
        rows = q.reshape(-1, 4, DIM)
        if self.kind == "function":
            rows = F.scaled_dot_product_attention(rows, rows, rows)
        elif self.kind == "products":
            rows = torch.softmax(rows @ rows.mT / DIM**0.5, -1) @ rows
        elif self.kind == "module":
            rows = self.attention(rows, rows, rows, need_weights=False)[0]
        else:
            rows = self.encoder(rows)
        return torch.tanh(rows).sum((-1, -2)).reshape(x.shape[:-2])


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize("kind", ["function", "module", "encoder"])
@pytest.mark.filterwarnings("ignore:torch.nn.LayerNorm")
def test_attention_has_a_right_meta_gradient(kind, layer):
    model = make(Attention(kind, layer), writable="q", gradient_term=kind != "encoder")
    assert model._batched == (layer is MemoryLinear)
    batch = batch_of(2, shape=(4, DIM))
    fast = torch.backends.mha.get_fastpath_enabled()
    loss, gradient = loss_and_gradient(model, batch)
    assert torch.backends.mha.get_fastpath_enabled() == fast and torch.backends.cuda.flash_sdp_enabled()
    assert model._batched == (layer is MemoryLinear) and model._plain_attention
    with torch.no_grad():
        torch.testing.assert_close(reconstruction_loss(model.eval(), batch)[0], loss)
    parameter = model.energy_network.q.weight
    direction = torch.randn(parameter.shape, dtype=torch.double)
    measured = naive.central_difference(lambda: reconstruction_loss(model, batch)[0], parameter, direction, 1e-5)
    where = [name for name, _ in model.named_parameters()].index("energy_network.q.weight")
    slope = gradient.split([p.numel() for p in model.parameters()])[where]
    assert measured == pytest.approx((slope * direction.flatten()).sum().item(), rel=1e-5)
    if kind == "function":
        from_products = make(Attention("products", layer), writable="q")
        from_products.load_state_dict(model.state_dict())
        torch.testing.assert_close(loss_and_gradient(from_products, batch)[1], gradient, rtol=1e-9, atol=1e-12)
        assert not from_products._plain_attention


@pytest.mark.filterwarnings("ignore:torch.nn.LayerNorm and InstanceNorm")
@pytest.mark.parametrize("fast", [True, False])
def test_the_fast_path_of_attention_is_left_as_it_was_set(fast):
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        make(Attention("function", nn.Linear), writable="q").write(batch_of(2, shape=(4, DIM)).patterns)
        assert torch.backends.mha.get_fastpath_enabled() is fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Recurrent(nn.Module):
    def __init__(self, kind, layer):
        super().__init__()
        self.a, self.kind = layer(DIM, DIM), kind(DIM, 5, batch_first=True)

    def forward(self, x):
        rows = self.a(x.flatten(-3, -2)).reshape(-1, 4, DIM)
        return self.kind(rows)[0].sum((-1, -2)).reshape(x.shape[:-2])


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_fused_recurrent_layers_are_refused(kind, layer):
    with pytest.raises(RuntimeError, match=f"nn.{kind.__name__} is one fused operation.* recurrence from nn.Linear"):
        EBMM(Recurrent(kind, layer), "a").write(torch.rand(2, 3, 4, DIM))


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_an_operation_without_a_second_derivative_is_refused_where_one_is_needed(layer):
    def formula(e, x):
        return torch.cdist(e.a(x).unsqueeze(-2), e.h.weight, p=1.5).square().sum((-1, -2))

    model = EBMM(Own(formula, layer), gradient_term=False)
    with torch.no_grad():
        model.write(torch.rand(2, 3, DIM))  # needs only the first
    with pytest.raises(RuntimeError, match="without the second derivative .*cdist.* write it from products"):
        model.write(torch.rand(2, 3, DIM))


class Bend(torch.autograd.Function):
    """A function of a user's own, whose backward pass is not recorded."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, slope):
        return 2 * slope * ctx.saved_tensors[0]


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize(
    "formula", [lambda e, x: Bend.apply(e.plain(x)), lambda e, x: e.h(torch.tanh(Bend.apply(e.a(x)))).squeeze(-1)]
)
def test_a_function_that_is_once_differentiable_is_refused(formula, layer):
    with pytest.raises(RuntimeError, match="without the second derivative .*once_differentiable"):
        EBMM(Own(formula, layer), gradient_term=False).write(torch.rand(2, 3, DIM))


class DividedByNorm(nn.Module):
    def forward(self, g, v):
        return g * v / v.norm(dim=1, keepdim=True)

    def right_inverse(self, weight):
        return weight.norm(dim=1, keepdim=True), weight


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_of_pytorch_is_refused_and_one_from_primitives_is_right():
    for norm in (parametrizations.weight_norm, nn.utils.weight_norm):
        energy = Own(Own.plain, nn.Linear)
        norm(energy.a)
        with pytest.raises(ValueError, match="weight_norm has a wrong second derivative: .* g \\* v / v.norm"):
            EBMM(energy, gradient_term=False)
    energy = Own(Own.plain, nn.Linear)
    register_parametrization(energy.a, "weight", DividedByNorm())
    model, batch = make(naive.moved(energy), write_rate=0.5), batch_of(2)
    _, gradient = loss_and_gradient(model, batch)
    parameter = energy.a.parametrizations.weight.original1
    where = [p is parameter for p in model.parameters()].index(True)
    slope = gradient.split([p.numel() for p in model.parameters()])[where]
    direction = torch.randn(parameter.shape, dtype=torch.double)
    measured = naive.central_difference(lambda: reconstruction_loss(model, batch)[0], parameter, direction, 1e-5)
    assert measured == pytest.approx((slope * direction.flatten()).sum().item(), rel=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_spectral_norm_is_refused_in_training_and_right_in_evaluation(layer):
    energy = Own(Own.plain, layer)
    parametrizations.spectral_norm(energy.h)
    model, batch = make(naive.moved(energy)), batch_of(2)
    held = {name: buffer.clone() for name, buffer in energy.named_buffers()}
    with pytest.raises(RuntimeError, match=r"spectral_norm of 'h' .* in train\(\) mode\. Call model.eval\(\)"):
        model.write(batch.patterns)
    assert all(torch.equal(held[name], buffer) for name, buffer in energy.named_buffers()) and held
    written = model.eval().write(batch.patterns)
    divided = copy.deepcopy(energy)
    with torch.no_grad():
        weight = energy.h.weight
        nn.utils.parametrize.remove_parametrizations(divided.h, "weight")
        torch.testing.assert_close(divided.h.weight, weight)
    torch.testing.assert_close(written["a.weight"], make(divided).write(batch.patterns)["a.weight"])


def test_the_old_spectral_norm_is_refused():
    energy = Own(Own.plain)
    nn.utils.spectral_norm(energy.h)
    with pytest.raises(ValueError, match="old torch.nn.utils.spectral_norm"):
        EBMM(energy)


# inference_mode


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_inference_mode_is_like_no_grad(layer):
    model, x = EBMM(Own(Own.plain, layer)), torch.rand(2, 3, DIM)
    with torch.no_grad():
        expected = model.read(0.5 * x, model.write(x[:, 1:], model.write(x[:, :1])))
        level = model.energy(expected, model.write(x))
    with torch.inference_mode():
        inside = 0.5 * x
        memory = model.write(x[:, 1:], model.write(x[:, :1] * 1))
        read = model.read(inside, memory)
        assert torch.equal(read, expected) and not read.requires_grad and torch.is_inference_mode_enabled()
        assert torch.equal(model.energy(read, model.write(x)), level)
        _, trajectory = model.write(x, trajectory=True)
        made_inside = model.initial_memory(2).to(torch.double).to(torch.float)
    assert len(trajectory) == 6 and not any(weight.requires_grad for weight in trajectory[0].values())
    # What was made there serves outside, recorded or not.
    assert inside.is_inference()
    torch.testing.assert_close(model.read(inside, memory), expected)
    model.read(inside, made_inside).sum().backward()
    model.write(inside, made_inside)["a.weight"].sum().backward()
    assert model.raw_write_rates.grad.abs().sum() > 0
    torch.testing.assert_close(model.energy(inside, made_inside), model.energy(0.5 * x, model.initial_memory(2)))


@pytest.mark.parametrize("shift", [1, -1])
def test_a_small_share_of_a_neighbour_is_refused(shift):
    model = EBMM(Own(lambda own, x: own.plain(x) + 1e-8 * x.roll(shift, -2).sum(-1)))
    with pytest.raises(ValueError, match="the energy of a point depends on the other points"):
        model.write(torch.rand(2, 3, DIM))


def test_an_energy_is_tried_unrounded_also_where_it_is_used_in_16_bits():
    rounded = []

    def noted(own, x):
        rounded.append(torch.is_autocast_enabled("cpu"))
        return own.plain(x)

    with torch.autocast("cpu", torch.bfloat16):
        EBMM(Own(noted), write_steps=1).write(torch.rand(2, 3, DIM))
    assert rounded[-1] and not any(rounded[:-1])


def test_a_buffer_made_in_inference_mode_is_refused():
    energy = Own(Own.plain)
    with torch.inference_mode():
        energy.register_buffer("mask", torch.ones(DIM))
    with pytest.raises(ValueError, match=r"made under torch.inference_mode\(\), which keeps no gradients"):
        EBMM(energy)


def test_a_model_made_in_inference_mode_is_refused():
    with torch.inference_mode():
        energy = Own(Own.plain)
    with pytest.raises(ValueError, match="made under torch.inference_mode"):
        EBMM(energy)


# Errors that teach

GRADIENTS = {
    "no x": (lambda e, x: e.plain(0 * x), r"gradient of the energy in x is exactly 0"),
    "x not at all": (lambda e, x: e.plain(torch.ones_like(x)), r"gradient of the energy in x is exactly 0"),
    "x detached": (lambda e, x: e.plain(x.detach()), r"gradient of the energy in x is exactly 0"),
    "x rounded": (lambda e, x: e.plain(x.round()), r"gradient of the energy in x is exactly 0"),
    "no memory": (lambda e, x: e.h(x[..., :5]).tanh().squeeze(-1), "in its writable weights is exactly 0"),
    "sign of the memory": (lambda e, x: e.h(e.a(x).sign() + x[..., :5]).squeeze(-1), "in its writable weights is ex"),
    "detached": (lambda e, x: e.plain(x).detach(), "no gradient: .* or is detached"),
    "argmax": (lambda e, x: e.a(x).argmax(-1).float(), "no gradient: .* or is detached"),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_an_energy_without_a_gradient_is_refused(name, layer):
    formula, words = GRADIENTS[name]
    model, x = EBMM(Own(formula, layer)), torch.rand(2, 3, DIM)
    for use in (lambda: model.write(x), lambda: model.read(x, model.initial_memory(2))):
        with pytest.raises(ValueError, match=words):
            use()


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda e, x: (e.plain(x), x), "one floating-point tensor of energies, got a tuple"),
        (lambda e, x: [e.plain(x)], "got a list"),
        (lambda e, x: {"energy": e.plain(x)}, "got a dict"),
        (lambda e, x: None, "got a NoneType"),
        (lambda e, x: e.a(x).argmax(-1), "got torch.int64"),
    ],
)
def test_an_energy_that_returns_something_else_is_refused(formula, words, layer):
    with pytest.raises(TypeError, match=words):
        EBMM(Own(formula, layer)).write(torch.rand(2, 3, DIM))


def test_lazy_layers_are_called_first():
    energy = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(1), nn.Flatten(-2))
    with pytest.raises(ValueError, match="lazy layers of unknown size: call it once on a pattern"):
        EBMM(energy, "0")
    energy(torch.rand(3, DIM))
    EBMM(energy, "0").write(torch.rand(2, 3, DIM))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_scripted_energy_is_refused():
    energy = torch.jit.script(nn.Sequential(nn.Linear(DIM, 1), nn.Flatten(-2)))
    with pytest.raises(TypeError, match="torch.jit.* give the module itself"):
        EBMM(energy, "0")


@pytest.mark.parametrize("layer", [nn.Linear, MemoryLinear])
def test_a_tensor_filled_in_place_is_named_as_a_possible_cause(layer):
    def formula(e, x):
        total = torch.zeros(x.shape[:-1])
        total += e.plain(x)
        return total

    energy = Own(formula, layer)
    if layer is MemoryLinear:
        EBMM(energy).write(torch.rand(2, 3, DIM))  # only torch.vmap cannot
    else:
        with pytest.raises(ValueError, match="a buffer, or fills a tensor in place"):
            EBMM(energy).write(torch.rand(2, 3, DIM))


def test_layer_norm_of_ours_is_no_state():
    energy = Own(lambda e, x: e.h(e.norm(e.a(x))).squeeze(-1))
    energy.norm = LayerNorm(5)
    EBMM(energy).write(torch.rand(2, 3, DIM))


def test_parameters_may_be_whole_numbers():
    energy = Own(lambda e, x: e.plain(x[..., e.order]))
    energy.order = nn.Parameter(torch.arange(DIM).flip(0), requires_grad=False)
    EBMM(energy).write(torch.rand(2, 3, DIM))
