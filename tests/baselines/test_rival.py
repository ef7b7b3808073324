"""What the rivals' base does for all of them: sizes, coders, and what a memory costs."""

import pytest
import torch
from torch import nn

from ebmm.baselines import MANN, Autoencoder, DifferentiablePlasticity, KanervaMachine, LSTMMemory, MemoryNetwork
from ebmm.coders import Decoder, Encoder

# A rival, its sizes, and how many numbers its encoder gives and its decoder takes.
RIVALS = {
    "MANN": (MANN, {"rows": 3, "width": 4, "heads": 2, "controller": 7, "code_width": 8}, 8, 15),
    "Kanerva machine": (KanervaMachine, {"rows": 3, "width": 5, "read_steps": 2}, 5, 5),
    "plasticity": (DifferentiablePlasticity, {"units": 5, "read_steps": 2}, 5, 5),
    "LSTM": (LSTMMemory, {"hidden": 5, "layers": 2, "width": 4}, 4, 10),
    "memory network": (MemoryNetwork, {"slots": 5, "width": 4}, 4, 4),
    "autoencoder": (Autoencoder, {"slots": 5, "width": 4}, 4, 4),
}
EACH_SIZE = [(name, size) for name, (_, sizes, *_) in RIVALS.items() for size in sizes]


def make(name, features=6, **changes):
    kind, sizes, _, _ = RIVALS[name]
    return kind(features, **{**sizes, **changes})


@pytest.mark.parametrize(("name", "size"), EACH_SIZE)
def test_sizes_that_cannot_be_are_refused(name, size):
    with pytest.raises(ValueError, match=f"^{size} must be at least 1, got 0"):
        make(name, **{size: 0})
    with pytest.raises(TypeError, match=f"^{size} must be a whole number, got 2.5"):
        make(name, **{size: 2.5})


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize(
    ("features", "error", "words"),
    [(0, ValueError, "at least 1, got 0"), ((2, 0), ValueError, "at least 1, got 0"), ("six", TypeError, "'six'")],
)
def test_shapes_that_cannot_be_are_refused(name, features, error, words):
    with pytest.raises(error, match=f"^features must be .*{words}"):
        make(name, features)


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("coders", [{}, {"encoder": nn.Flatten()}, {"decoder": nn.Unflatten(1, (2, 3))}])
def test_patterns_that_are_not_vectors_need_coders(name, coders):
    with pytest.raises(ValueError, match=r"patterns of shape \(2, 3\) need an encoder and a decoder of your own"):
        make(name, (2, 3), **coders)


@pytest.mark.parametrize("name", RIVALS)
def test_one_coder_of_ones_own_leaves_the_other_to_the_default(name):
    _, _, _, taken = RIVALS[name]
    decoder = Decoder(taken, features=6)
    model = make(name, decoder=decoder)
    assert model.decoder is decoder and isinstance(model.encoder, Encoder)
    empty = nn.Sequential()  # false as a condition, and yet a module
    assert make(name, encoder=empty).encoder is empty


@pytest.mark.parametrize("name", RIVALS)
def test_coders_of_wrong_sizes_are_named(name):
    _, _, given, taken = RIVALS[name]
    x = torch.rand(2, 2, 6)
    with pytest.raises(ValueError, match=rf"Encoder must map \(4, 6\) to \(4, {given}\), it gave \(4, {given + 1}\)"):
        make(name, encoder=Encoder(6, given + 1)).write(x)
    model = make(name, decoder=Decoder(taken, 7))
    with pytest.raises(ValueError, match=rf"Decoder must map \(4, {taken}\) to \(4, 6\), it gave \(4, 7\)"):
        model.read(x, model.write(x))


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_tells_its_shape_and_sizes(name):
    _, sizes, _, _ = RIVALS[name]
    told = make(name).extra_repr()
    assert told.startswith("(6,), ")
    assert all(f"{size}={value}" in told for size, value in sizes.items() if size != "layers")


@pytest.mark.parametrize(
    ("name", "changes", "floats"),
    [
        ("MANN", {}, 3 * (4 + 1 + 2)),
        ("Kanerva machine", {}, 3 * 5 + 6),
        ("plasticity", {"units": 7}, 28),
        ("LSTM", {"layers": 3}, 2 * 3 * 5),
        ("memory network", {}, 20),
        ("autoencoder", {"slots": 9}, 36),
    ],
)
def test_what_a_memory_costs(name, changes, floats):
    assert make(name, **changes).memory_floats == floats


@pytest.mark.parametrize("kind", [Autoencoder, MemoryNetwork])
def test_slots_are_filled_in_their_order(kind):
    codes, same = torch.arange(6.0).view(1, 6, 1) / 6, nn.Identity()
    model = kind(1, slots=6, width=1, encoder=same, decoder=same)
    assert torch.equal(model.write(codes[:, 4:], model.write(codes[:, :4]))["slots"], codes)
    assert torch.equal(model.write(codes)["slots"], codes)
    model = kind(1, slots=5, width=1, encoder=same, decoder=same)
    with pytest.raises(ValueError, match="5 slots, one a pattern: 4 are filled, 2 more patterns do not fit"):
        model.write(codes[:, 4:], model.write(codes[:, :4]))
