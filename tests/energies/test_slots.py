import pytest
import torch
from naive import moved
from test_vector_energies import bits, signs
from torch import nn

from ebmm import EBMM, DenseMemory, Task, evaluate
from ebmm.coders import sign_coders
from ebmm.energies import CodedSlotEnergy, DenseEnergy, SlotEnergy
from ebmm.energies.slots import slot_scores
from ebmm.tasks import RandomBits, RedrawBits

ONE_BY_ONE = {
    "write_steps": 1, "sequential": True, "gradient_term": False, "decay_term": False, "projection": "straight-through",
}  # fmt: skip


def test_scores_are_their_formula():
    code, slots = torch.randn(3, 4).double(), torch.randn(5, 4).double()
    found = slot_scores(code, slots, torch.tensor(0.9), torch.tensor(2.0))
    for n, e in enumerate(code):
        for j, m in enumerate(slots):
            price = 0.45 * (m @ m) * ((e @ e) / 4) ** 2
            assert found[n, j].item() == pytest.approx((m @ e - price).item(), rel=1e-4)


def test_without_a_price_it_is_the_dense_energy():
    energy, dense = SlotEnergy(6, 3, beta=2.0, price=0.0).double(), DenseEnergy(6, 3, beta=2.0).double()
    dense.memory.weight.data = energy.memory.weight.data
    x = torch.rand(4, 6).double()
    torch.testing.assert_close(energy(x), dense(x))


def test_the_coded_energy_is_its_formula():
    encoder, decoder = (moved(coder).double() for coder in sign_coders(6, 4, steps=3))
    energy = moved(CodedSlotEnergy(6, 3, 4, encoder, decoder, beta=2.0, share=0.3)).double()
    energy.memory.weight.data = torch.tensor([[1.0, -1, 1, 0.5], [0.1, 0, 0.2, 0], [0.8, 0.5, 0.5, 0.4]]).double()
    beta, share, price, power = energy.log_beta.exp(), energy.log_share.exp(), energy.price, energy.power
    x = torch.rand(6).double()
    s, e, scores = 2 * x - 1, encoder(x[None])[0], []
    for m in energy.memory.weight:
        y = 2 * decoder(m[None])[0] - 1
        part = min(max(((m @ m) / 4 - 0.2) / 0.6, torch.tensor(0.0)), torch.tensor(1.0))
        g = part**2 * (3 - 2 * part)
        full = y @ s - price / 2 * (y @ y) * ((s @ s) / 6 + 1e-6) ** power
        scores.append(g * full + share * (m @ e - 0.5 * m @ m))
    expected = 0.5 * s @ s - torch.logsumexp(beta * torch.stack(scores), 0) / beta
    torch.testing.assert_close(energy(x), expected)


def test_an_empty_slot_reminds_of_nothing():
    torch.manual_seed(0)
    energy = CodedSlotEnergy(6, 3, 4).double()  # all slots are empty at first
    x = torch.rand(5, 6).double()
    before = energy(x)
    energy.decoder = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid()).double()
    assert torch.equal(energy(x), before)
    with torch.no_grad():
        energy.memory.weight[0] = 1.0
    assert not torch.equal(energy(x)[0], before[0])


def test_slots_hold_codes_of_length_one_whatever_the_coders_make():
    class Longer(nn.Module):
        def __init__(self, coder, before, behind):
            super().__init__()
            self.coder, self.before, self.behind = coder, before, behind

        def forward(self, x):
            return self.behind * self.coder(self.before * x)

    encoder, decoder = (coder.double() for coder in sign_coders(6, 4, steps=3))
    plain = CodedSlotEnergy(6, 3, 4, encoder, decoder, beta=2.0).double()
    longer = CodedSlotEnergy(6, 3, 4, Longer(encoder, 1, 3.0), Longer(decoder, 1 / 3, 1), beta=2.0, scale=3.0).double()
    plain.memory.weight.data = longer.memory.weight.data = torch.randn(3, 4).double()
    x = torch.rand(5, 6).double()
    torch.testing.assert_close(longer(x), plain(x))


@pytest.mark.parametrize("scale", [0, -1.0, float("nan")])
def test_codes_of_no_length_are_refused(scale):
    with pytest.raises(ValueError, match="scale"):
        CodedSlotEnergy(6, 3, 4, scale=scale)


@pytest.mark.parametrize("coded", [False, True])
def test_each_pattern_finds_an_empty_slot(coded):
    """One gradient step on the energy itself copies the pattern, or its code, into a slot that nothing was in."""
    torch.manual_seed(0)
    energy = CodedSlotEnergy(48, 6, 40, share=0.5) if coded else SlotEnergy(48, 6)
    model = EBMM(energy, write_rate=2.0 if coded else 1.0, **ONE_BY_ONE)
    patterns = bits(signs(6, 48)).float()
    with torch.no_grad():
        slots = model.write(patterns)["memory.weight"][0]
        expected = energy.encoder(patterns[0]) if coded else 2 * patterns[0] - 1
    alike = torch.nn.functional.cosine_similarity(expected[:, None], slots[None], dim=-1)
    assert sorted(alike.argmax(1).tolist()) == list(range(6))
    assert alike.max(1).values.min() > 0.97


def test_a_full_slot_has_its_price_and_an_empty_one_has_none():
    s = signs(2, 64)[0]
    price, power = torch.tensor(0.9), torch.tensor(2.0)
    other, empty = slot_scores(s[:1], torch.stack([s[1], 0 * s[1]]), price, power)[0]
    assert empty == 0 and other < -10  # a new pattern prefers the empty slot
    damaged = s[:1].clone()
    damaged[0, :20] *= -1  # overlap 24, less than the price of 28.8
    assert slot_scores(damaged, s[:1], price, power) < 0 < slot_scores(0.5 * damaged, s[:1], price, power)


def test_where_nothing_is_known_the_energy_has_a_slope():
    x = torch.full((1, 6), 0.5, requires_grad=True)
    SlotEnergy(6, 3, power=0.5)(x).sum().backward()
    assert x.grad.isfinite().all() and x.grad.any()


@pytest.mark.parametrize(("number", "most"), [(8, 0.6), (32, 1.2)])
def test_it_is_about_as_good_as_a_list_before_it_is_trained(number, most):
    torch.manual_seed(0)
    task = Task(RandomBits(64), RedrawBits(32), number)
    model = EBMM(SlotEnergy(64, 32), read_rate=0.07, write_rate=1.0, **ONE_BY_ONE)
    mean = evaluate(model, task, memories=30)["mean"]
    assert mean < most and mean < evaluate(DenseMemory(64, 32), task, memories=30)["mean"] + 0.6


def test_short_codes_are_read_back():
    torch.manual_seed(0)
    task = Task(RandomBits(64), RedrawBits(32), 40)
    model = EBMM(CodedSlotEnergy(64, 40, 50, share=0.5), read_rate=0.07, write_rate=2.0, **ONE_BY_ONE)
    assert evaluate(model, task, memories=10)["mean"] < 2.0
    assert model.memory_floats == 40 * 50 < 40 * 64


def test_codes_stand_for_patterns_of_any_shape_with_coders_for_them():
    torch.manual_seed(0)
    coders = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)), nn.Sequential(nn.Linear(4, 6), nn.Unflatten(1, (2, 3)))
    model = EBMM(CodedSlotEnergy((2, 3), 5, 4, *coders), **ONE_BY_ONE)
    patterns = torch.rand(2, 4, 2, 3)
    assert model.read(patterns, model.write(patterns)).shape == (2, 4, 2, 3)
    with pytest.raises(ValueError, match="need an encoder and a decoder"):
        CodedSlotEnergy((2, 3), slots=5, width=4)
