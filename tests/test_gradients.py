"""Meta-gradients that are right pass, those that PyTorch gets wrong are found."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrize import register_parametrization

from ebmm import EBMM, Task, baselines, check_gradients, energies, fit, layers
from ebmm.coders import image_coders
from ebmm.gradients import GradientError
from ebmm.tasks import FlipBits, RandomBits

TASK = Task(RandomBits(6), FlipBits(0.1), number=4)
QUIET = {"progress": False, "device": "cpu", "memories": 4}


class Own(nn.Module):
    """A perceptron with a function of a user's own between its layers."""

    writable = ("inner",)

    def __init__(self, between, width=5):
        super().__init__()
        self.inner, self.between, self.outer = nn.Linear(6, width), between, nn.Linear(width, 1)

    def forward(self, x):
        return self.outer(torch.tanh(self.between(self.inner(x)))).squeeze(-1)


class Attention(nn.Module):
    writable = ("keys",)

    def __init__(self):
        super().__init__()
        self.places, self.keys, self.outer = nn.Parameter(torch.randn(6, 4)), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x):
        tokens = x.unsqueeze(-1) * self.places
        with sdpa_kernel(SDPBackend.MATH):
            mixed = F.scaled_dot_product_attention(tokens, self.keys(tokens), torch.tanh(tokens))
        return self.outer(mixed).sum((-1, -2))


class Convolutions(nn.Module):
    writable = ("inner",)

    def __init__(self):
        super().__init__()
        self.inner, self.norm = nn.Conv2d(1, 4, 2), nn.GroupNorm(1, 4)
        self.middle, self.outer = nn.Conv2d(4, 3, 2), nn.Linear(3, 1)

    def forward(self, x):  # one memory's, (N, 6)
        hidden = F.silu(self.inner(x.reshape(-1, 1, 2, 3)))
        hidden = self.middle(F.pad(self.norm(hidden), (0, 1, 0, 1)))
        return self.outer(F.gelu(F.avg_pool2d(hidden, (1, 2))).flatten(-3)).squeeze(-1)


class Recurrent(nn.Module):
    writable = ("inner",)

    def __init__(self):
        super().__init__()
        self.inner, self.state, self.outer = nn.Linear(1, 12), nn.Linear(4, 12), nn.Linear(4, 1)

    def forward(self, x):
        state = x.new_zeros(*x.shape[:-1], 4)
        for place in range(x.shape[-1]):
            (a, b, c), (d, e, f) = self.inner(x[..., place, None]).chunk(3, -1), self.state(state).chunk(3, -1)
            reset, update = torch.sigmoid(a + d), torch.sigmoid(b + e)
            state = (1 - update) * torch.tanh(c + reset * f) + update * state
        return self.outer(state).squeeze(-1)


class WeightNorm(nn.Module):
    """Weight norm from primitives."""

    def forward(self, g, v):
        return g * v / v.norm(dim=1, keepdim=True)

    def right_inverse(self, weight):
        return weight.norm(dim=1, keepdim=True), weight


def normed(normalise, width=5):
    energy = Own(nn.Identity(), width)
    normalise(energy.inner)
    return energy


def relu_net():
    return nn.Sequential(
        nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 1), nn.Flatten(-2)
    )


RIGHT = {
    "quadratic": lambda **options: EBMM(energies.QuadraticEnergy(6, 0.5), **options),
    "mlp": lambda **options: EBMM(energies.MLPEnergy(6, 4, 5), **options),
    "predictive": lambda **options: EBMM(energies.PredictiveEnergy(6, 5), write_rate=(0.1, 1e-4, 1e-4), **options),
    "gated": lambda **options: EBMM(energies.GatedRNNEnergy(6, 3, 5, 2), projection="straight-through", **options),
    "dense": lambda **options: EBMM(energies.DenseEnergy(6, 4), read_rate=0.3, **options),
    "slots": lambda **options: EBMM(energies.SlotEnergy(6, 4, beta=2.0), sequential=True, **options),
    "attention": lambda **options: EBMM(Attention(), **options),
    "convolutions": lambda **options: EBMM(Convolutions(), **options),
    "recurrent": lambda **options: EBMM(Recurrent(), write_rate=0.1, **options),
    "relu": lambda **options: EBMM(relu_net(), "2", read_rate=0.5, **options),
    "recomputed": lambda **options: EBMM(Own(torch.sin), recompute=True, momentum=False, **options),
    "layer norm": lambda **options: EBMM(Own(layers.LayerNorm(5)), write_rate=0.05, **options),
    "rms norm": lambda **options: EBMM(Own(nn.RMSNorm(5)), write_rate=0.05, **options),
    "weight norm": lambda **options: EBMM(
        normed(lambda layer: register_parametrization(layer, "weight", WeightNorm())), write_rate=0.5, **options
    ),
}


@pytest.mark.parametrize("gradient_term", [True, False])
@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_pass(name, gradient_term):
    torch.manual_seed(0)
    assert check_gradients(RIGHT[name](gradient_term=gradient_term), TASK) < 1e-5


BASELINES = {
    "kanerva": lambda: baselines.KanervaMachine(6, 3, 4),
    "lstm": lambda: baselines.LSTMMemory(6, 5),
    "mann": lambda: baselines.MANN(6, 4, 5),
    "memory network": lambda: baselines.MemoryNetwork(6, 4, 3),
    "plasticity": lambda: baselines.DifferentiablePlasticity(6, 8),
}


@pytest.mark.parametrize("name", BASELINES)
def test_gradients_of_baselines_pass(name):
    torch.manual_seed(0)
    assert check_gradients(BASELINES[name](), TASK) < 1e-5


OF_IMAGES = {
    "linear": lambda: EBMM(energies.ResNetLinearEnergy((8, 8), 3, 5, 2, (4,), 5, 6)),
    "convolutional": lambda: EBMM(energies.ResNetConvEnergy((8, 8), 2, 5, 2, (4,), 3, 3, 5)),
    "association": lambda: EBMM(energies.linear_association((8, 8), 3, 4), reduction="sum", gradient_term=False),
    "association by convolution": lambda: EBMM(
        energies.convolutional_association((8, 8), 3, 4, hops=2), reduction="sum", gradient_term=False
    ),
    "slots of pictures": lambda: EBMM(energies.PictureSlotEnergy((8, 8), 3, 4), sequential=True, gradient_term=False),
    "inpainter": lambda: baselines.Inpainter((8, 8), hidden=4, blocks=2),
    "slot memory": lambda: baselines.InpaintingMemory(
        (8, 8), 3, 4, *image_coders((8, 8), 4, channels=(2, 2)), hidden=3
    ),
}


@pytest.mark.filterwarnings("ignore:grey patterns")
@pytest.mark.parametrize("kind", OF_IMAGES)
def test_gradients_of_memories_of_images_pass(kind):
    torch.manual_seed(0)
    task = Task(lambda number, generator: torch.rand(number, 8, 8, generator=generator), FlipBits(0.1), 2)
    assert check_gradients(OF_IMAGES[kind](), task) < 1e-5


WRONG = {
    "layer_norm": lambda: EBMM(Own(lambda h: F.layer_norm(h, (5,)))),
    "nn.LayerNorm": lambda: EBMM(Own(nn.LayerNorm(5)), write_rate=0.05),
    "instance_norm": lambda: EBMM(Own(lambda h: F.instance_norm(h.unsqueeze(-2)).squeeze(-2)), write_rate=0.05),
    "detach": lambda: EBMM(Own(lambda h: h * h.detach()), gradient_term=False),
}


@pytest.mark.filterwarnings("ignore:torch.nn.LayerNorm and InstanceNorm")
@pytest.mark.parametrize("kind", WRONG)
def test_wrong_gradients_are_found_and_their_cause_is_named(kind):
    torch.manual_seed(0)
    model, cause = WRONG[kind](), kind.removeprefix("nn.").replace("LayerNorm", "layer_norm")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(GradientError, match=rf"of EBMM differs from difference quotients by .*{cause}"):
        check_gradients(model, TASK)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(GradientError):
        fit(model, TASK, 2, **QUIET)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert len(fit(model, TASK, 2, check_gradients=False, **QUIET).rows) == 2


class WrongInTraining(nn.Module):
    def forward(self, h):
        return h * (h.detach() if self.training else h)


def test_a_model_is_asked_in_the_mode_that_it_is_trained_in():
    torch.manual_seed(0)
    model = EBMM(Own(WrongInTraining()), gradient_term=False).eval()
    with pytest.raises(GradientError):
        check_gradients(model, TASK)
    assert not any(module.training for module in model.modules())


def test_only_second_derivatives_of_layer_norm_are_asked_without_the_gradient_term():
    torch.manual_seed(0)
    assert check_gradients(EBMM(Own(nn.LayerNorm(5)), write_rate=0.05, gradient_term=False), TASK) < 1e-5


@pytest.mark.parametrize("seed", range(5))
def test_kinks_give_no_false_alarm(seed):
    torch.manual_seed(seed)
    model = EBMM(relu_net(), "0", write_rate=0.2, read_rate=0.5, gradient_term=False)
    assert check_gradients(model, Task(RandomBits(6), FlipBits(0.3), 3), seed=seed) < 1e-5


def test_fit_asks_energies_of_a_users_own_before_a_run_begins(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr("ebmm.gradients._error_on", lambda model, batch: asked.append(tuple(batch.patterns.shape)))
    run = {"steps": 1} | QUIET
    own, ours = EBMM(Own(torch.sin)), EBMM(energies.MLPEnergy(6, 4))
    fit(ours, TASK, **run)
    fit(baselines.KanervaMachine(6, 3, 4), TASK, **run)
    fit(own, TASK, check_gradients=False, **run)
    fit(EBMM(Own(torch.sin, width=26_000), recompute=True), TASK, **run)
    assert asked == []
    fit(own, TASK, checkpoint=tmp_path / "run.training", **run)
    assert asked == [(2, 3, 6)]
    fit(own, TASK, checkpoint=tmp_path / "run.training", **run)
    assert len(asked) == 1
    fit(ours, TASK, check_gradients=True, **run)
    ours.energy_network.hidden = nn.Sequential(ours.energy_network.hidden, WithOwnLayer())
    fit(ours, TASK, **run)
    assert len(asked) == 3


CHANGES = {
    "hook": lambda energy: energy.register_forward_hook(lambda module, x, value: value),
    "hook before": lambda energy: energy.hidden.register_forward_pre_hook(lambda module, x: x),
    "forward": lambda energy: setattr(energy, "forward", partial(type(energy).forward, energy)),
    "norm": lambda energy: setattr(energy, "hidden", nn.Sequential(energy.hidden, nn.LayerNorm(128))),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_fit_asks_our_energies_too_where_somebody_changed_them(kind, monkeypatch):
    asked = []
    monkeypatch.setattr("ebmm.gradients._error_on", lambda model, batch: asked.append(model))
    model = EBMM(energies.MLPEnergy(6, 4))
    CHANGES[kind](model.energy_network)
    fit(model, TASK, 1, **QUIET)
    assert asked == [model]


NOT_ASKED = {
    "rounds": lambda **options: EBMM(Own(lambda h: F.layer_norm(h.float(), (5,))), write_rate=0.05, **options),
    "large": lambda **options: EBMM(Own(lambda h: F.layer_norm(h, h.shape[-1:]), 26_000), write_rate=0.01, **options),
}


@pytest.mark.parametrize("kind", NOT_ASKED)
def test_known_faults_are_refused_where_the_error_is_not_to_be_had(kind):
    torch.manual_seed(0)
    with pytest.raises(
        GradientError, match="of EBMM is wrong: layer_norm of PyTorch is wrong in third derivatives: use"
    ):
        fit(NOT_ASKED[kind](), TASK, 2, **QUIET)
    for options, asked in (({"gradient_term": False}, None), ({}, False)):
        assert len(fit(NOT_ASKED[kind](**options), TASK, 1, check_gradients=asked, **QUIET).rows) == 1


class WithOwnLayer(nn.Module):
    def forward(self, x):
        return x


def test_asking_changes_nothing_in_training():
    results = []
    for asked in (True, False):
        torch.manual_seed(0)
        model = EBMM(Own(torch.sin))
        history = fit(model, TASK, 3, check_gradients=asked, **QUIET)
        results.append((history.rows, torch.rand(1).item()))
    assert results[0] == results[1]


def test_what_cannot_be_checked_is_no_fault_unless_asked():
    class Rounds(nn.Module):
        writable = ("inner",)

        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 5)

        def forward(self, x):
            return torch.tanh(self.inner(x.float()).float()).sum(-1)

    class Constants(Rounds):
        def forward(self, x):
            return torch.tanh(self.inner(x) @ torch.eye(5)).sum(-1)

    class Casts(Rounds):
        def forward(self, x):
            return torch.tanh(self.inner(x).float()).sum(-1)

    for energy in (Rounds(), Constants(), Casts()):
        assert len(fit(EBMM(energy), TASK, 2, **QUIET).rows) == 2
        with pytest.raises((RuntimeError, ValueError)) as caught:
            fit(EBMM(energy), TASK, 2, check_gradients=True, **QUIET)
        assert not isinstance(caught.value, GradientError)
    with pytest.raises(ValueError, match="the energy rounds to float32, and float64 is needed"):
        check_gradients(EBMM(Casts()), TASK)


def test_gradients_that_are_not_finite_are_told():
    with pytest.raises(ValueError, match="cannot be checked, it is not finite: try smaller write and read rates"):
        check_gradients(EBMM(energies.PredictiveEnergy(6), write_rate=200.0, write_steps=50, box=None), TASK)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="only a torch.nn.Module has gradients to check, got Task"):
        check_gradients(TASK, TASK)
