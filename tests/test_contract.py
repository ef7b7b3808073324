"""What every memory promises, whatever it is made of: one table of memories, and each test over all of it."""

import copy
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import pytest
import torch
from torch import nn

from ebmm import EBMM, DenseMemory, Hopfield, Memory
from ebmm.baselines import (
    MANN,
    Autoencoder,
    DifferentiablePlasticity,
    InpaintingMemory,
    KanervaMachine,
    LSTMMemory,
    MemoryNetwork,
)
from ebmm.coders import image_coders
from ebmm.energies import (
    CodedSlotEnergy,
    DenseEnergy,
    GatedRNNEnergy,
    HopEnergy,
    MarginEnergy,
    MLPEnergy,
    PictureSlotEnergy,
    PredictiveEnergy,
    QuadraticEnergy,
    ResNetConvEnergy,
    ResNetLinearEnergy,
    SlotEnergy,
    convolutional_association,
    linear_association,
)
from ebmm.experiments.networks import Perceptron
from ebmm.memory import AssociativeMemory, floats_held

MEMORIES, PATTERNS, QUERIES = 3, 5, 4  # five patterns fill the memories that have places
VECTOR, IMAGE, SQUARE = (6,), (2, 3), (8, 8)


class PlainEnergy(nn.Module):
    """A user's module of ordinary layers, served by vmap."""

    pattern_shape = VECTOR

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x))).squeeze(-1)


def ebmm(energy, writable=None, **options):
    return EBMM(energy, writable, write_steps=2, read_steps=3, **{"write_rate": 0.05, "read_rate": 0.05, **options})


def coders(read, code):
    """Coders of images: codes of ``code`` numbers, patterns from ``read`` numbers."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(6, code))
    return encoder, nn.Sequential(nn.Linear(read, 6), nn.Sigmoid(), nn.Unflatten(1, IMAGE))


def slot_memory():
    """With networks that do something: they start as zero, so that nothing reaches what stands before."""
    model = InpaintingMemory(SQUARE, 5, 4, *image_coders(SQUARE, 4, channels=(2, 2)), hidden=3)
    for layer in (
        model.misfit.detail[-1],
        model.misfit.tolerance[-1],
        model.encoder.network[-1],
        model.decoder.network[5],
    ):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.1)
    return model


class Case(NamedTuple):
    """A memory, and what it does not promise."""

    build: Callable[[], AssociativeMemory]
    shape: tuple[int, ...] = VECTOR
    bits: bool = False  # takes bits only
    goes_on: bool = True  # writing in two calls is writing in one
    asks: bool = True  # what is read depends on the query, and on nothing but its own
    box: bool = True


ONE_BY_ONE = {"sequential": True, "gradient_term": False, "decay_term": False}
TABLE = {
    "hebb": Case(lambda: Hopfield(6), bits=True),
    "storkey": Case(lambda: Hopfield(6, "storkey"), bits=True),
    "pseudo-inverse": Case(lambda: Hopfield(6, "pseudo-inverse"), bits=True),
    "hebb, images": Case(lambda: Hopfield(IMAGE), IMAGE, bits=True),
    "dense": Case(lambda: DenseMemory(6, capacity=5)),
    "dense, images": Case(lambda: DenseMemory(IMAGE, capacity=5, beta=2.0), IMAGE),
    "dense, any numbers": Case(lambda: DenseMemory(6, capacity=5, centred=False), box=False),
    "dense, overwriting": Case(lambda: DenseMemory(6, capacity=4, full="overwrite")),
    "EBMM, quadratic": Case(lambda: ebmm(QuadraticEnergy(6, curvature=0.5)), goes_on=False),
    "EBMM, slots": Case(lambda: ebmm(DenseEnergy(6, slots=4)), goes_on=False),
    "EBMM, perceptron": Case(lambda: ebmm(MLPEnergy(6, memory_features=3, hidden=5)), goes_on=False),
    "EBMM, predictive": Case(lambda: ebmm(PredictiveEnergy(6, hidden=5), momentum=False), goes_on=False),
    "EBMM, gated": Case(lambda: ebmm(GatedRNNEnergy(6, 3, hidden=5), projection="straight-through"), goes_on=False),
    "EBMM, places of codes of images": Case(
        lambda: ebmm(CodedSlotEnergy(IMAGE, 5, 4, *coders(4, 4), beta=2.0), **ONE_BY_ONE), IMAGE
    ),
    "EBMM, margins": Case(lambda: ebmm(MarginEnergy(6, Perceptron(6, 4), 4), reduction="sum"), goes_on=False),
    "EBMM, hops": Case(lambda: ebmm(HopEnergy(6, hops=2), reduction="sum"), goes_on=False),
    "EBMM, places": Case(lambda: ebmm(SlotEnergy(6, slots=5, beta=2.0), **ONE_BY_ONE)),
    "EBMM, places of codes": Case(lambda: ebmm(CodedSlotEnergy(6, 5, width=4, beta=2.0), **ONE_BY_ONE)),
    "EBMM, any module": Case(lambda: ebmm(PlainEnergy(), ["first", "last"]), goes_on=False),
    "EBMM, any module, without a box": Case(
        lambda: ebmm(PlainEnergy(), ["first.weight"], box=None), goes_on=False, box=False
    ),
    "EBMM, recomputing": Case(lambda: ebmm(MLPEnergy(6, 3, hidden=5), recompute=True), goes_on=False),
    "EBMM, residual, linear": Case(
        lambda: ebmm(ResNetLinearEnergy(IMAGE, 2, hidden=5, widths=(2, 3), features=4, head=4)), IMAGE, goes_on=False
    ),
    "EBMM, residual, convolution": Case(
        lambda: ebmm(ResNetConvEnergy(IMAGE, 2, hidden=3, widths=(2, 3), inside=4, outside=5, head=4)),
        IMAGE,
        goes_on=False,
    ),
    "EBMM, association": Case(lambda: ebmm(linear_association(SQUARE, 3, 4), reduction="sum"), SQUARE, goes_on=False),
    "EBMM, association by convolution": Case(
        lambda: ebmm(convolutional_association(SQUARE, 3, 4, hops=2), reduction="sum"), SQUARE, goes_on=False
    ),
    "EBMM, slots of pictures": Case(lambda: ebmm(PictureSlotEnergy(SQUARE, 5, 4), **ONE_BY_ONE), SQUARE),
    "MANN": Case(lambda: MANN(6, rows=5, width=4, heads=2, controller=7, code_width=8)),
    "MANN, images": Case(lambda: MANN(IMAGE, 5, 4, 2, 7, *coders(7 + 8, 8), code_width=8), IMAGE),
    "Kanerva machine": Case(lambda: KanervaMachine(6, rows=4, width=5, read_steps=3)),
    "Kanerva machine, images": Case(lambda: KanervaMachine(IMAGE, 4, 5, 2, *coders(5, 5)), IMAGE),
    "plasticity": Case(lambda: DifferentiablePlasticity(6, units=5)),
    "plasticity, images": Case(lambda: DifferentiablePlasticity(IMAGE, 5, 2, *coders(5, 5)), IMAGE),
    "LSTM": Case(lambda: LSTMMemory(6, hidden=5, layers=2, width=4)),
    "LSTM, images": Case(lambda: LSTMMemory(IMAGE, 5, 1, *coders(5, 4), width=4), IMAGE),
    "memory network": Case(lambda: MemoryNetwork(6, slots=5, width=4)),
    "memory network, images": Case(lambda: MemoryNetwork(IMAGE, 5, 4, *coders(4, 4)), IMAGE),
    "slot memory, images": Case(slot_memory, SQUARE),
    "autoencoder": Case(lambda: Autoencoder(6, slots=5, width=4), asks=False),
    "autoencoder, images": Case(lambda: Autoencoder(IMAGE, 5, 4, *coders(4, 4)), IMAGE, asks=False),
}
RIVALS = [name for name in TABLE if not name.startswith(("EBMM", "hebb", "storkey", "pseudo", "dense"))]


def make(name, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return TABLE[name].build().to(dtype)


def points(name, number, memories=MEMORIES, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(memories, number, *TABLE[name].shape, generator=generator, dtype=dtype)
    return x.round() if TABLE[name].bits else x


def queries_for(name, dtype=torch.float64):
    """As many as patterns where there must be."""
    return points(name, QUERIES if TABLE[name].asks else PATTERNS, dtype=dtype, seed=2)


def written(name, dtype=torch.float64):
    model = make(name, dtype)
    return model, model.write(points(name, PATTERNS, dtype=dtype)), queries_for(name, dtype)


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def copied(tensors):
    return {key: tensor.clone() for key, tensor in tensors.items()}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


# What is given back


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_dtype_and_box(name, dtype):
    model, memory, query = written(name, dtype)
    x = model.read(query, memory)
    assert isinstance(memory, Memory) and memory.batch_size == MEMORIES
    assert all(tensor.dtype == dtype and tensor.device == query.device for tensor in memory.values())
    assert x.shape == query.shape and x.dtype == dtype and x.device == query.device
    assert all(tensor.isfinite().all() for tensor in (x, *memory.values()))
    assert not TABLE[name].box or ((x >= 0).all() and (x <= 1).all())
    assert model.pattern_shape == TABLE[name].shape


@pytest.mark.parametrize("name", TABLE)
def test_the_trajectory_begins_with_the_query_and_ends_with_what_is_read(name):
    model, memory, query = written(name)
    x, trajectory = model.read(query, memory, trajectory=True)
    assert trajectory.shape[1:] == query.shape and len(trajectory) > 1
    assert torch.equal(trajectory[0], query) and torch.equal(trajectory[-1], x)
    assert torch.equal(model.read(query, memory), x)


@pytest.mark.parametrize("name", [name for name in TABLE if hasattr(TABLE[name].build(), "energy")])
def test_an_energy_is_one_number_a_point(name):
    model, memory, query = written(name)
    energy = model.energy(query, memory)
    assert energy.shape == query.shape[:2] and energy.isfinite().all()
    close(model.energy(query[1:2, 2:], memory[1]), energy[1:2, 2:])


@pytest.mark.parametrize("name", TABLE)
def test_a_full_memory_holds_the_floats_that_are_counted(name):
    model, memory, _ = written(name, torch.float32)
    assert isinstance(model.memory_floats, int)
    assert floats_held(memory) == model.memory_floats


@pytest.mark.parametrize("name", TABLE)
def test_what_is_read_depends_on_what_was_written(name):
    model, memory, query = written(name)
    other = model.write(points(name, PATTERNS, seed=3))
    assert not torch.equal(model.read(query, memory), model.read(query, other))


# Values, apart from each other


@pytest.mark.parametrize("name", TABLE)
def test_memories_do_not_see_each_other(name):
    model, memory, query = written(name)
    patterns, x = points(name, PATTERNS), model.read(query, memory)
    for b in range(MEMORIES):
        alone = model.write(patterns[b : b + 1])
        for key in memory:
            close(alone[key], memory[b][key])
        close(model.read(query[b : b + 1], memory[b]), x[b : b + 1])
        close(model.read(query[b : b + 1], alone), x[b : b + 1])


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].asks])
def test_queries_do_not_see_each_other(name):
    model, memory, query = written(name)
    x = model.read(query, memory)
    close(model.read(query.flip(1), memory).flip(1), x)
    for q in range(QUERIES):
        close(model.read(query[:, q : q + 1], memory), x[:, q : q + 1])


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("keep_graph", [True, False])
def test_neither_writing_nor_reading_changes_what_it_was_given(name, keep_graph):
    model, whole, query = written(name)
    patterns = points(name, PATTERNS)
    kept_weights, given = copied(model.state_dict()), (patterns.clone(), query.clone())
    with torch.set_grad_enabled(keep_graph):
        memory = model.write(patterns[:, :3])
        kept = copied(memory)
        later = model.write(patterns[:, 3:], memory)
        model.read(query, whole)
        model.read(query, whole, trajectory=True)
    assert same(memory, kept) and same(model.state_dict(), kept_weights)
    assert torch.equal(patterns, given[0]) and torch.equal(query, given[1])
    assert any(later[key].shape != kept[key].shape or not torch.equal(later[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", [name for name in TABLE if TABLE[name].goes_on])
def test_writing_in_two_calls_is_writing_in_one(name):
    model, at_once, query = written(name)
    patterns = points(name, PATTERNS)
    in_two = model.write(patterns[:, 2:], model.write(patterns[:, :2]))
    for key in at_once:
        close(in_two[key], at_once[key])
    close(model.read(query, in_two), model.read(query, at_once))


@pytest.mark.parametrize("name", [name for name in TABLE if hasattr(TABLE[name].build(), "initial_memory")])
def test_writing_starts_from_the_initial_memory(name):
    model, memory, _ = written(name)
    empty = model.initial_memory(MEMORIES)
    assert not same(empty, memory) and floats_held(empty.to(torch.float32)) == model.memory_floats
    assert same(model.write(points(name, PATTERNS), empty), memory)


@pytest.mark.parametrize("name", [name for name in TABLE if hasattr(TABLE[name].build(), "initial_memory")])
def test_an_empty_memory_is_a_value_that_training_does_not_change(name):
    model = TABLE[name].build()
    with torch.no_grad():
        empty = model.initial_memory(MEMORIES)
        before = {key: tensor.clone() for key, tensor in empty.items()}
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert same(empty, before)


@pytest.mark.parametrize("name", TABLE)
def test_the_same_comes_out_again_in_either_mode_and_nothing_is_drawn(name):
    model, memory, query = written(name)
    x, state = model.read(query, memory), torch.random.get_rng_state()
    model.eval()
    again = model.write(points(name, PATTERNS))
    assert same(again, memory) and torch.equal(model.read(query, again), x)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_a_graph_the_same_is_read(name, mode):
    model, memory, query = written(name)
    x = model.read(query, memory)
    with mode():
        plain = model.write(points(name, PATTERNS))
        recalled = model.read(query, plain)
    assert not any(tensor.requires_grad for tensor in (recalled, *plain.values()))
    close(recalled, x.detach())
    for key in memory:
        close(plain[key], memory[key].detach())


@pytest.mark.parametrize("name", RIVALS)
def test_gradients_reach_every_parameter(name):
    model, memory, query = written(name)
    model.read(query, memory).square().sum().backward()
    assert list(model.parameters())
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), key


# Kept and copied


@pytest.mark.parametrize("name", TABLE)
def test_a_model_is_its_state_dict(name):
    model, memory, query = written(name)
    other = make(name, seed=5)
    other.load_state_dict(model.state_dict())
    assert same(other.write(points(name, PATTERNS)), memory)
    assert torch.equal(other.read(query, memory), model.read(query, memory))


@pytest.mark.parametrize("name", TABLE)
def test_a_copy_is_the_same_model_and_another(name):
    model, memory, query = written(name)
    x, other = model.read(query, memory), copy.deepcopy(model)
    assert same(other.write(points(name, PATTERNS)), memory) and torch.equal(other.read(query, memory), x)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    assert torch.equal(model.read(query, memory), x)


@pytest.mark.parametrize("name", TABLE)
def test_a_memory_survives_its_file(name, tmp_path):
    model, memory, query = written(name)
    memory.save(tmp_path / "memory.safetensors")
    loaded = Memory.load(tmp_path / "memory.safetensors")
    assert same(loaded, memory)
    close(model.read(query, loaded), model.read(query, memory))


# What is refused, by all in the same words


WRONG_POINTS = {
    "another shape": (lambda x: x[..., :-1], ValueError, "must have shape"),
    "no batch": (lambda x: x[0], ValueError, "must have shape"),
    "none": (lambda x: x[:, :0], ValueError, "must not be empty"),
    "no memory": (lambda x: x[:0], ValueError, "must not be empty"),
    "NaN": (lambda x: x * float("nan"), ValueError, "must be finite"),
    "infinity": (lambda x: x + float("inf"), ValueError, "must be finite"),
    "whole numbers": (lambda x: x.long(), TypeError, "must be floating point, got torch.int64"),
    "another dtype": (lambda x: x.float(), TypeError, "must be torch.float64 like the model, got torch.float32"),
    "another device": (lambda x: x.to("meta"), ValueError, "must be on cpu like the model, got meta"),
    "a list": (lambda x: x.tolist(), TypeError, "must be a torch tensor of shape"),
    "an array": (lambda x: x.numpy(), TypeError, "must be a torch tensor of shape .*, got ndarray"),
    "above the box": (lambda x: x + 1.5, ValueError, r"must (lie in \[0, 1\]|hold only 0 and 1)"),
    "below the box": (lambda x: x - 1.5, ValueError, r"must (lie in \[0, 1\]|hold only 0 and 1)"),
    "other memories": (lambda x: x[:1], ValueError, "addresses 1 memories .*, the memory holds 3"),
}


def doors(model):
    """All that takes points and a memory, with the name that it has for the points."""
    yield "patterns", model.write
    yield "query", model.read
    yield from (
        (word, getattr(model, door))
        for word, door in (("x", "energy"), ("query", "address"), ("query", "updates"))
        if hasattr(model, door)
    )


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("wrong", WRONG_POINTS)
def test_what_are_no_points_is_refused(name, wrong):
    change, error, words = WRONG_POINTS[wrong]
    if not TABLE[name].box and "box" in wrong:
        pytest.skip("it takes any numbers")
    model, memory, query = written(name)
    for word, door in doors(model):
        with pytest.raises(error, match=f"^{word} {words}"):
            door(change(query), memory)
    if wrong != "other memories" and list(model.parameters()):
        with pytest.raises(error, match=f"^patterns {words}"):
            model.write(change(query))


def longer(tensor):
    return torch.cat([tensor, tensor[..., :1]], dim=-1)


WRONG_MEMORIES = {
    "a tensor": (lambda memory: next(iter(memory.values())), TypeError),
    "a dict": (dict, TypeError),
    "another model's": (lambda memory: Memory({"other": torch.zeros(MEMORIES, 2)}), ValueError),
    "with one more": (lambda memory: Memory({**memory, "other": torch.zeros(MEMORIES)}), ValueError),
    "of another size": (lambda memory: Memory({key: longer(t) for key, t in memory.items()}), ValueError),
    "with one more dimension": (lambda memory: Memory({key: t[..., None] for key, t in memory.items()}), ValueError),
}


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("wrong", WRONG_MEMORIES)
def test_what_is_no_memory_of_this_model_is_refused(name, wrong):
    change, error = WRONG_MEMORIES[wrong]
    model, memory, query = written(name)
    foreign = change(memory)
    got = type(foreign).__name__  # a Memory's text begins with its name too
    names = ", ".join(rf"{key}: \(B, .*\)" for key in memory)
    for _, door in doors(model):
        with pytest.raises(error, match=rf" reads a Memory with {names}, as its write returns it, got {got}"):
            door(query, foreign)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_memory_of_another_dtype_than_the_models_is_refused_but_not_under_autocast(name, dtype):
    model, memory, query = written(name, torch.float32)
    if not list(model.parameters()):
        words = f"must be {dtype} like the model, got torch.float32"  # a memory has no other dtype to keep to
    else:
        words = rf" reads a Memory with .*, in torch.float32, got {dtype}: take memory.to\(torch.float32\)"
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), suppress(RuntimeError):  # PyTorch's own
            model.read(query, memory.to(dtype))
    for _, door in doors(model):
        with pytest.raises(TypeError, match=words):
            door(query, memory.to(dtype))


def test_an_energy_whose_weights_have_several_dtypes_reads_what_it_wrote():
    energy = PlainEnergy()
    energy.last.double()
    energy.forward = lambda x: energy.last(torch.tanh(energy.first(x)).to(energy.last.weight.dtype)).squeeze(-1)
    model, x = ebmm(energy, ["first", "last"]), points("dense", PATTERNS, dtype=torch.float32)
    assert model.read(x, model.write(x)).dtype == torch.float32


@pytest.mark.parametrize("name", TABLE)
def test_none_is_no_memory_to_read(name):
    model, _, query = written(name)
    with pytest.raises(TypeError, match="reads a Memory with .*, as its write returns it, got NoneType"):
        model.read(query, None)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("memory network", "the memory has 5 slots, one a pattern: 4 are filled, 2 more patterns do not fit"),
        ("autoencoder", "the memory has 5 slots, one a pattern: 4 are filled, 2 more patterns do not fit"),
        ("slot memory, images", "the memory has 5 slots, one a pattern: 4 are filled, 2 more patterns do not fit"),
        ("dense", r"capacity is 5 patterns: the memory holds 4, it has no room for 2 more \(full='overwrite' lets"),
    ],
)
def test_more_patterns_than_places_are_refused(name, words):
    model = make(name)
    memory = model.write(points(name, 4))
    with pytest.raises(ValueError, match=words):
        model.write(points(name, 2), memory)
    with pytest.raises(ValueError, match=words.replace("4", "0").replace("2", "6")):
        model.write(points(name, 6))
    filled = next(iter(memory))
    too_full = Memory({filled: memory[filled].repeat(1, 2, 1)})
    with pytest.raises(ValueError, match=rf"{filled}: \(B, up to 5, \d\)"):
        model.read(points(name, 4), too_full)
