import copy
import dataclasses
import math
import pickle
import warnings

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from ebmm import Hopfield, Task, evaluate, tasks
from ebmm.datasets import digits, photos
from ebmm.tasks import (
    CorrelatedBits,
    DatasetPatterns,
    EraseBits,
    FlipBits,
    GaussianNoise,
    ImagePatterns,
    LazyImages,
    MaskPart,
    NoiseBlock,
    RandomBits,
    RedrawBits,
    check_task,
    mirrored,
    turned_and_shifted,
)

quick = settings(deadline=None, max_examples=40, derandomize=True)
IMAGES = torch.rand(30, 6, 5, generator=torch.Generator().manual_seed(7))

GREY = pytest.mark.filterwarnings("ignore:grey patterns")

SOURCES = {
    "random": (RandomBits(24), (24,)),
    "correlated": (CorrelatedBits(24, factors=4, noise=0.1), (24,)),
    "images": (ImagePatterns(IMAGES), (6, 5)),
    "flat images": (ImagePatterns(IMAGES, threshold=0.5, flatten=True), (30,)),
    "colour images": (ImagePatterns(torch.rand(9, 3, 6, 5)), (3, 6, 5)),
}
CORRUPTIONS = {
    "redraw": RedrawBits(11),
    "erase": EraseBits(9, value=0.5),
    "flip": FlipBits(0.2),
    "block": NoiseBlock(3),
    "binary block": NoiseBlock(2, binary=True),
    "mask": MaskPart(0.4, value=0.5),
    "gauss": GaussianNoise(0.3),
}
# A block of noise needs images.
PAIRS = [(s, c) for s in SOURCES for c in CORRUPTIONS if len(SOURCES[s][1]) > 1 or "block" not in c]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@GREY
@pytest.mark.parametrize(("source", "corruption"), PAIRS)
def test_a_batch_keeps_its_promises(source, corruption):
    source, shape = SOURCES[source]
    task = Task(source, CORRUPTIONS[corruption], number=5)
    batch = task.sample(4, seeded())
    for tensor in batch:
        assert tensor.shape == (4, 5, *shape)
    assert batch.patterns.dtype == batch.queries.dtype == torch.float and batch.intact.dtype == torch.bool
    for tensor in (batch.patterns, batch.queries):
        assert tensor.min() >= 0 and tensor.max() <= 1
    assert torch.equal(batch.queries[batch.intact], batch.patterns[batch.intact])
    assert not torch.equal(batch.queries, batch.patterns)
    for mine, moved in zip(batch, batch.to("meta"), strict=True):
        assert moved.device.type == "meta" and moved.shape == mine.shape


@GREY
@pytest.mark.parametrize(("source", "corruption"), PAIRS)
def test_a_generator_draws_the_same_again_and_two_fours_equal_an_eight(source, corruption):
    task = Task(SOURCES[source][0], CORRUPTIONS[corruption], number=3)
    eight = task.sample(8, seeded(1))
    generator = seeded(1)
    halves = task.sample(4, generator), task.sample(4, generator)
    other = task.sample(8, seeded(2))
    for whole, first, second in zip(eight, *halves, strict=True):
        assert torch.equal(whole, torch.cat([first, second]))
    assert not torch.equal(eight.patterns, other.patterns)
    assert not torch.equal(eight.patterns[0], eight.patterns[1])


@GREY
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("source", "corruption"), PAIRS)
def test_draws_do_not_depend_on_the_default_dtype(source, corruption, default):
    task = Task(SOURCES[source][0], CORRUPTIONS[corruption], number=3)
    want = task.sample(2, seeded(5))
    torch.set_default_dtype(default)
    try:
        got = task.sample(2, seeded(5))
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(mine, theirs) and mine.dtype == theirs.dtype for mine, theirs in zip(got, want, strict=True))


@GREY
@pytest.mark.parametrize(("source", "corruption"), PAIRS)
def test_sampling_leaves_the_global_generator_alone(source, corruption):
    before = torch.get_rng_state()
    Task(SOURCES[source][0], CORRUPTIONS[corruption], number=3).sample(2, seeded())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("corruption", CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_corruptions_leave_the_patterns_as_they_were_and_keep_their_dtype(corruption):
    patterns = torch.rand(4, 6, 5, dtype=torch.double)
    before = patterns.clone()
    queries, _ = corruption(patterns, seeded())
    assert torch.equal(patterns, before) and queries.dtype == torch.double


# Sources


def test_random_bits_are_fair_and_independent():
    bits = RandomBits(40)(5000, seeded())
    assert set(bits.unique().tolist()) == {0.0, 1.0}
    assert bits.mean().item() == pytest.approx(0.5, abs=0.005)
    correlation = torch.corrcoef(bits.T) - torch.eye(40)
    assert correlation.abs().max() < 0.07


@quick
@given(st.integers(1, 20), st.data(), st.integers(0, 5))
def test_correlated_bits_without_noise_copy_their_factors(dim, data, seed):
    factors = data.draw(st.integers(1, dim))
    source = CorrelatedBits(dim, factors, seed=seed)
    signs = source(200, seeded(3)) * 2 - 1
    # Each bit is a factor or its inverse: as many groups of bits that agree up to a sign as there are factors.
    groups = {tuple((column * column[0]).tolist()) for column in signs.T}
    assert len(groups) == factors
    assert source.entropy_bound == factors


def test_correlated_bits_have_signs_of_their_own():
    # Without its sign a bit would equal its factor: bits of one factor could never differ.
    bits = CorrelatedBits(64, factors=1, seed=2)(50, seeded(3))
    share = (bits[0] == bits[0, 0]).float().mean()
    assert 0.25 < share < 0.75
    assert all(torch.equal(row, bits[0]) or torch.equal(row, 1 - bits[0]) for row in bits)


def test_correlated_bits_share_their_assignment_and_not_their_noise():
    source = CorrelatedBits(60, factors=3, noise=0.1, seed=4)
    clean = CorrelatedBits(60, factors=3, noise=0.0, seed=4)
    # The same generator draws the same factors first, then the noise.
    noisy, exact = source(3000, seeded(5)), clean(3000, seeded(5))
    flipped = noisy != exact
    assert flipped.float().mean().item() == pytest.approx(0.1, abs=0.005)
    assert flipped.float().mean(0).sub(0.1).abs().max() < 0.03
    assert set(noisy.unique().tolist()) == {0.0, 1.0}
    assert noisy.mean().item() == pytest.approx(0.5, abs=0.02)
    first, second = clean(500, seeded(1)), clean(500, seeded(2))
    agree = [torch.corrcoef(x.T).round().abs() > 0.5 for x in (first, second)]
    assert torch.equal(*agree)
    other = torch.corrcoef(CorrelatedBits(60, factors=3, seed=5)(500, seeded(1)).T).round().abs() > 0.5
    assert not torch.equal(agree[0], other)


@pytest.mark.parametrize(
    ("dim", "factors", "noise", "bound"),
    [
        (64, 8, 0.0, 8.0),
        (64, 8, 0.5, 64.0),
        (64, 64, 0.3, 64.0),
        (100, 10, 0.25, 10 + 100 * (2 - 0.75 * math.log2(3))),
        (64, 8, 0.05, 26.3294),
    ],
)
def test_entropy_bound(dim, factors, noise, bound):
    assert CorrelatedBits(dim, factors, noise).entropy_bound == pytest.approx(min(dim, bound), abs=1e-3)


def test_entropy_bound_bounds_the_entropy():
    source = CorrelatedBits(6, factors=2, noise=0.1)
    drawn = source(200_000, seeded()) @ (2.0 ** torch.arange(6))
    shares = torch.bincount(drawn.long(), minlength=64) / len(drawn)
    entropy = -(shares[shares > 0] * shares[shares > 0].log2()).sum().item()
    assert entropy < source.entropy_bound < 6
    assert entropy > 0.8 * source.entropy_bound


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda x, g: x, "two tensors, queries and intact, got Tensor"),
        (lambda x, g: (x, x == x, x), "two tensors, queries and intact, got tuple"),
        (lambda x, g: (x, None), "two tensors, queries and intact, got tuple"),
        (lambda x, g: (x, torch.ones_like(x)), "in bools which elements are intact, got torch.float32"),
    ],
)
def test_a_corruption_that_returns_something_else_is_refused(made, words):
    with pytest.raises(TypeError, match=words):
        Task(RandomBits(4), made, 2).sample(1, torch.Generator())


def test_a_corruption_cannot_damage_what_is_stored():
    def erase(patterns, generator):
        patterns[:] = 0
        return patterns, torch.zeros_like(patterns, dtype=torch.bool)

    batch = Task(RandomBits(64), erase, 2).sample(3, seeded())
    assert batch.patterns.any() and not batch.queries.any()


def test_a_mask_that_is_inverted_is_refused():
    def inverted(patterns, generator):
        queries, intact = FlipBits(0.3)(patterns, generator)
        return queries, ~intact

    with pytest.raises(ValueError, match="calls elements intact that it changed"):
        Task(RandomBits(64), inverted, 2).sample(1, seeded())


def test_a_corruption_of_arrays_is_taken():
    def by_numpy(patterns, generator):
        hit = np.arange(8) < 3
        return np.where(hit, 1 - patterns.numpy(), patterns.numpy()).astype(np.float64), np.broadcast_to(~hit, (2, 8))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of torch, over what is read-only
        batch = Task(RandomBits(8), by_numpy, 2).sample(3, seeded())
    assert batch.queries.dtype == torch.float and batch.intact.dtype == torch.bool
    assert torch.equal(batch.queries != batch.patterns, ~batch.intact) and batch.intact.sum() == 3 * 2 * 5


@pytest.mark.parametrize("change", [torch.Tensor.double, torch.Tensor.bool, torch.Tensor.requires_grad_])
def test_queries_become_what_the_patterns_are(change):
    def corruption(patterns, generator):
        return change(1 - patterns), torch.zeros_like(patterns, dtype=torch.bool)

    batch = Task(RandomBits(8), corruption, 2).sample(3, seeded())
    assert torch.equal(batch.queries, 1 - batch.patterns)
    assert batch.queries.dtype == torch.float and not batch.queries.requires_grad


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda x, g: (x * math.nan, x != x), "queries must be finite, but made gives NaN or infinity"),
        (lambda x, g: (x + math.inf, x != x), "queries must be finite, but made gives NaN or infinity"),
        (lambda x, g: (x[:1], x == x), r"like the patterns, \(2, 4\), got \(1, 4\) and \(2, 4\)"),
        (lambda x, g: (x, x[0] == x[0]), r"like the patterns, \(2, 4\), got \(2, 4\) and \(4,\)"),
    ],
)
def test_what_a_corruption_spoils_is_blamed_on_it(made, words):
    made.__name__ = "made"
    with pytest.raises(ValueError, match=words):
        Task(RandomBits(4), made, 2).sample(3, seeded())


# Data as users have them

BITS = torch.randint(0, 2, (20, 8), generator=torch.Generator().manual_seed(3)).float()
FLIP = FlipBits(0.2)


class Labelled(Dataset):
    """A data set as users write it: what its members are only __getitem__ knows."""

    def __init__(self, members):
        self.images = members * 255

    def __len__(self):
        return len(self.images)

    def __getitem__(self, place):
        return self.images[place] / 255, place


class Stream(IterableDataset):
    def __len__(self):
        return len(BITS)

    def __iter__(self):
        return iter(BITS)


@pytest.mark.parametrize(
    "data",
    [
        BITS,
        BITS.half(),
        BITS.bfloat16(),
        BITS.int(),
        BITS.bool(),
        BITS.byte(),
        BITS.clone().requires_grad_(),
        torch.nn.Parameter(BITS),
        BITS.numpy(),
        BITS.numpy().astype(np.float64),
        BITS.numpy().astype(np.int64),
        BITS.numpy().astype(np.uint8),
        BITS.numpy().astype(bool),
        BITS.numpy().astype(">f4"),
        BITS.numpy()[::-1][::-1],
        BITS.tolist(),
        list(BITS),
        list(BITS.numpy()),
        pandas.DataFrame(BITS.numpy()),
        TensorDataset(BITS),
        TensorDataset(BITS, torch.arange(20)),
        Labelled(BITS),
        Labelled(BITS.numpy()),
        Subset(TensorDataset(BITS), range(20)),
    ],
    ids=lambda data: f"{type(data).__name__}-{getattr(data, 'dtype', '')}",
)
def test_data_of_all_kinds_are_patterns_drawn_without_repetition(data):
    want = Task(ImagePatterns(BITS), FLIP, 20).sample(2, seeded(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = Task(data, FLIP, 20).sample(2, seeded(4))
    for mine, theirs in zip(got, want, strict=True):
        assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype and not mine.requires_grad
    assert torch.equal(got.patterns[0].sum(0), BITS.sum(0))
    assert evaluate(Hopfield(8), Task(data, FLIP, 2), memories=2)["patterns"] == 2


def test_an_array_is_taken_without_a_copy_and_a_read_only_one_without_a_warning():
    array = BITS.numpy().copy()
    assert ImagePatterns(array).images.data_ptr() == array.ctypes.data
    array.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(ImagePatterns(array).images, BITS)


@pytest.mark.parametrize("take", [lambda x: x, np.asarray, lambda x: TensorDataset(x)])
def test_bytes_are_255ths_and_the_sets_of_this_package_serve_as_they_are(take):
    found = photos()
    got = Task(take(found.images), NoiseBlock(4), 5, "squared error").sample(2, seeded())
    want = Task(found, NoiseBlock(4), 5, "squared error").sample(2, seeded())
    assert torch.equal(got.patterns, want.patterns) and 0.9 < got.patterns.max() <= 1
    late = torch.zeros(1200, 2, dtype=torch.uint8)
    late[-1] = 255  # bytes, though the first thousand look like bits
    assert ImagePatterns(late)(1200, seeded()).sum() == 2
    assert torch.equal(Task(digits(), NoiseBlock(4), 5).source.images, digits().images)


class Bytes(Labelled):
    def __getitem__(self, place):
        return self.images[place].byte().numpy()


def test_bytes_of_a_data_set_are_255ths_in_any_container_as_those_of_a_tensor_are():
    grey = (BITS * 200).byte()
    want = Task(grey, EraseBits(2), 4, "squared error").sample(2, seeded())
    for data in (Subset(TensorDataset(grey), range(20)), Bytes(BITS * 200 / 255)):
        got = Task(data, EraseBits(2), 4, "squared error").sample(2, seeded())
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(got, want, strict=True))
    assert not Task(Bytes(BITS * 0), FLIP, 4).sample(1, seeded()).patterns.any()


@pytest.mark.parametrize("bits", [BITS.byte(), torch.eye(20, dtype=torch.uint8)])
def test_bytes_of_a_data_set_that_may_be_bits_are_refused(bits):
    with pytest.raises(ValueError, match="bytes of 0 and 1 in a Dataset may be bits or 255ths: give floats"):
        Task(Subset(TensorDataset(bits), range(20)), FLIP, 4).sample(1, seeded())


@pytest.mark.parametrize("make", [torch.Tensor.byte, lambda x: x.byte().numpy(), lambda x: list(x.byte())])
def test_bytes_of_a_function_are_refused_under_any_metric_unless_they_are_bits(make):
    for metric in ("wrong bits", "squared error"):
        task = Task(lambda n, g: make(7 * RandomBits(8)(n, g)), EraseBits(3), 4, metric)
        with pytest.raises(ValueError, match=r"source .* gives bytes, got 0 to 7: let it divide bytes with x / 255"):
            task.sample(1, seeded())


@pytest.mark.parametrize("wrap", [lambda x: x, list])
def test_masked_numbers_are_refused_and_an_empty_mask_is_not(wrap):
    array = np.ma.masked_array(BITS.numpy(), mask=np.arange(160).reshape(20, 8) == 77)
    for source in (wrap(array), lambda n, g: wrap(array)[9 : 9 + n]):
        with pytest.raises(TypeError, match=r"numbers throughout, got some that are masked: .* x.filled\(0\)"):
            Task(source, FLIP, 4).sample(1, seeded())
    array.mask = False
    assert torch.equal(ImagePatterns(wrap(array)).images, BITS)


def test_float64_tensors_stay_and_arrays_become_float32():
    assert Task(BITS.double(), FLIP, 2).sample(1, seeded()).queries.dtype == torch.double
    assert Task(lambda n, g: BITS[:n].double(), FLIP, 2).sample(1, seeded()).patterns.dtype == torch.double
    assert Task(lambda n, g: np.eye(8)[:n], FLIP, 2).sample(1, seeded()).patterns.dtype == torch.float


@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        list,
        torch.Tensor.byte,
        torch.Tensor.long,
        torch.Tensor.bool,
        torch.Tensor.bfloat16,
        torch.nn.Parameter,
    ],
)
def test_what_a_source_returns_is_taken_as_floats(change):
    source = RandomBits(8)
    got = Task(lambda n, g: change(source(n, g)), FLIP, 3).sample(2, seeded())
    want = Task(source, FLIP, 3).sample(2, seeded())
    for mine, theirs in zip(got, want, strict=True):
        assert torch.equal(mine, theirs) and mine.dtype == theirs.dtype and not mine.requires_grad


def test_a_source_may_fill_the_same_tensor_again_and_again():
    kept = torch.zeros(3, 8)
    got = Task(lambda n, g: kept.copy_(RandomBits(8)(n, g)), FLIP, 3).sample(4, seeded())
    want = Task(RandomBits(8), FLIP, 3).sample(4, seeded())
    assert torch.equal(got.patterns, want.patterns)


def test_a_data_set_reads_only_what_is_drawn():
    class Counting(Labelled):
        asked = []

        def __getitem__(self, place):
            self.asked.append(place)
            return super().__getitem__(place)

    source = Task(Counting(BITS), FLIP, 4).source
    assert isinstance(source, DatasetPatterns) and not Counting.asked
    source(4, seeded())
    assert len(set(Counting.asked)) == 4
    with pytest.raises(ValueError, match="21 different images .* got a set of 20"):
        source(21, seeded())
    ragged = DatasetPatterns([torch.rand(3), torch.rand(4)])
    with pytest.raises(ValueError, match="a Dataset must give a tensor or an array"):
        ragged(2, seeded())
    with pytest.raises(TypeError, match="a Dataset must give a tensor or an array of numbers, got dict"):
        DatasetPatterns([{"image": 1}])(1, seeded())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda n, g: torch.zeros(n + 1, 8), r"asked for 2 patterns must return \(2, \*S\), got \(3, 8\)"),
        (lambda n, g: torch.zeros(n), r"asked for 2 patterns must return \(2, \*S\), got \(2,\)"),
        (lambda n, g: torch.zeros(n, 0), r"must return \(2, \*S\), got \(2, 0\)"),
        (lambda n, g: torch.tensor(1.0), r"must return \(2, \*S\), got \(\)"),
        (lambda n, g: torch.zeros(n, int(torch.randint(3, 99, (), generator=g))), "patterns of one shape for all mem"),
        (lambda n, g: torch.full((n, 8), math.nan), "patterns must be finite, but the source drawn gives NaN"),
        (lambda n, g: torch.full((n, 8), math.inf), "patterns must be finite, but the source drawn gives NaN"),
        (lambda n, g: RandomBits(8)(n, g) * 2 - 1, r"'wrong bits'.*, got -1 to 1: .* map signs with \(x \+ 1\) / 2"),
        (lambda n, g: (RandomBits(8)(n, g) * 255).byte(), "got 0 to 255: .* bytes with x / 255"),
        (lambda n, g: [torch.zeros(8), torch.zeros(7)], "a source must return a tensor or an array, got a list"),
    ],
)
def test_what_a_source_spoils_is_blamed_on_it(source, words):
    source.__name__ = "drawn"
    with pytest.raises(ValueError, match=words):
        Task(source, lambda x, g: (x, x == x), 2).sample(3, seeded())


@pytest.mark.parametrize("made", [None, "bits", {"x": 1}, TensorDataset(BITS), BITS + 0j, BITS.to_sparse()])
def test_a_source_that_returns_no_numbers_is_refused(made):
    with pytest.raises(TypeError, match="a source must return a tensor or an array of numbers, got"):
        Task(lambda n, g: made, FLIP, 2).sample(1, seeded())


@pytest.mark.parametrize("corruption", [RedrawBits(2), FlipBits(0.1), NoiseBlock(2), GaussianNoise(0.1)])
def test_signs_are_refused_where_a_corruption_would_spoil_them(corruption):
    def signs(number, generator):
        return 2 * RandomBits(16)(number, generator).view(number, 4, 4) - 1

    with pytest.raises(ValueError, match=r"must lie in \[0, 1\] for metric='squared error' and \w+\(.*got -1 to 1"):
        Task(signs, corruption, 2, "squared error").sample(1, seeded())
    batch = Task(signs, MaskPart(0.5), 2, "squared error").sample(1, seeded())  # for a model whose box holds them
    assert batch.patterns.min() == -1 and set(batch.queries.unique().tolist()) == {-1, 0, 1}


def test_grey_patterns_are_judged_as_bits_only_with_a_warning():
    grey = ImagePatterns(IMAGES)
    with pytest.warns(UserWarning, match="grey patterns with metric='wrong bits'.*take metric='squared error'"):
        Task(grey, FLIP, 3).sample(1, seeded())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Task(grey, FLIP, 3, "squared error").sample(1, seeded())
        Task(ImagePatterns(IMAGES, 0.5), EraseBits(3, 0.5), 3).sample(1, seeded())


@pytest.mark.parametrize("number", [3, np.int64(3), 3.0, np.float32(3), torch.tensor([3.0]).item()])
def test_whole_numbers_of_all_kinds_are_taken(number):
    task = Task(RandomBits(8), FLIP, number, np.str_("wrong bits"))
    assert type(task.number) is int and type(task.metric) is str and task == Task(RandomBits(8), FLIP, 3)
    assert task.sample(number, seeded()).patterns.shape == (3, 3, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Task(None, FLIP, 2), "source must be a function .* got NoneType"),
        (lambda: Task("mnist", FLIP, 2), "source must be a function .* got str"),
        (lambda: Task(RandomBits, FLIP, 2), "source must be a function .* got the class RandomBits"),
        (lambda: Task(DataLoader(TensorDataset(BITS)), FLIP, 2), "got DataLoader: take loader.dataset"),
        (lambda: Task(Stream(), FLIP, 2), r"got Stream: .* torch.stack\(list\(data\)\) of what is only iterable"),
        (lambda: Task(["a", "b"], FLIP, 2), "source must be a tensor or an array of numbers, got list"),
        (lambda: Task(RandomBits(8), 0.1, 2), r"corruption must be a function, such as FlipBits\(0.1\), got float"),
        (lambda: Task(RandomBits(8), FlipBits, 2), "corruption must be a function, .* got the class FlipBits"),
        (lambda: Task(RandomBits(8), FLIP, 2.5), "number must be a whole number, got 2.5"),
        (lambda: Task(RandomBits(8), FLIP, True), "number must be a whole number, got True"),
        (lambda: Task(RandomBits(8), FLIP, "2"), "number must be a whole number, got '2'"),
        (lambda: Task(RandomBits(8), FLIP, 2).sample(1.5, seeded()), "memories must be a whole number, got 1.5"),
        (
            lambda: Task(RandomBits(8), FLIP, 2).sample(1, 7),
            r"must be one such as torch.Generator\(\).manual_seed\(0\), got int",
        ),
        (lambda: check_task(DataLoader(TensorDataset(BITS))), r"ebmm.Task, such as Task\(data, .* got DataLoader"),
        (lambda: check_task(Task), "task must be an ebmm.Task, .* got the class Task"),
    ],
)
def test_what_is_of_another_kind_is_refused_with_what_to_write_instead(make, words):
    with pytest.raises(TypeError, match=words):
        make()


def test_a_task_passes_the_check_of_tasks_and_can_be_compared():
    task = Task(BITS, FLIP, 2)
    check_task(task)
    assert task == dataclasses.replace(task) != Task(BITS, FLIP, 2) and len({task, dataclasses.replace(task)}) == 1


def test_a_set_of_images_is_named_by_its_shape():
    assert repr(ImagePatterns(torch.zeros(500, 8, 8))) == "ImagePatterns(500, 8, 8)"


def test_image_patterns_are_different_images_of_the_set():
    drawn = ImagePatterns(IMAGES)(30, seeded())
    assert not torch.equal(drawn, IMAGES)
    order = [next(i for i, image in enumerate(IMAGES) if torch.equal(image, x)) for x in drawn]
    assert sorted(order) == list(range(30))
    flat = ImagePatterns(IMAGES, flatten=True)(30, seeded())
    assert torch.equal(flat, drawn.flatten(1))
    binary = ImagePatterns(IMAGES, threshold=0.7)(30, seeded())
    assert torch.equal(binary, (drawn > 0.7).float())
    at_the_level = torch.tensor([[0.25, 0.5, 0.75]])
    assert ImagePatterns(at_the_level, threshold=0.5)(1, seeded()).tolist() == [[0, 0, 1]]


# Corruptions


@quick
@given(st.integers(1, 30), st.data(), st.integers(0, 1000))
def test_redrawn_bits_are_as_many_as_asked(dim, data, seed):
    count = data.draw(st.integers(0, dim))
    patterns = RandomBits(dim)(7, seeded(seed))
    queries, intact = RedrawBits(count)(patterns, seeded(seed + 1))
    assert ((~intact).sum(1) == count).all()
    assert torch.equal(queries[intact], patterns[intact])
    assert set(queries.unique().tolist()) <= {0.0, 1.0}


def test_half_of_the_redrawn_bits_change_and_any_bit_may_be_drawn():
    patterns = RandomBits(20)(4000, seeded())
    queries, intact = RedrawBits(8)(patterns, seeded(1))
    assert (queries != patterns).sum(1).float().mean().item() == pytest.approx(4, abs=0.1)
    assert (~intact).float().mean(0).sub(0.4).abs().max() < 0.04
    images = patterns[:10].view(10, 4, 5)
    queries, intact = RedrawBits(8)(images, seeded(1))
    assert queries.shape == intact.shape == (10, 4, 5) and ((~intact).flatten(1).sum(1) == 8).all()


@quick
@given(st.integers(0, 30), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 1000))
def test_erased_elements_are_as_many_as_asked_and_hold_the_value(count, value, seed):
    patterns = ImagePatterns(IMAGES)(7, seeded(seed))
    queries, intact = EraseBits(count, value)(patterns, seeded(seed + 1))
    assert ((~intact).flatten(1).sum(1) == count).all()
    assert torch.equal(queries[intact], patterns[intact]) and (queries[~intact] == value).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: EraseBits(3, value=1.5), "value must lie in .0, 1., got 1.5"),
        (lambda: EraseBits(25)(torch.zeros(2, 24), seeded()), "count must lie in .0, 24., got 25"),
        (lambda: RedrawBits(-1)(torch.zeros(2, 24), seeded()), "count must lie in .0, 24., got -1"),
    ],
)
def test_impossible_counts_and_values_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@quick
@given(st.floats(0, 1), st.integers(0, 1000))
def test_flipped_bits_are_the_opposite_and_marked(probability, seed):
    patterns = torch.rand(6, 9, generator=seeded(seed))
    queries, intact = FlipBits(probability)(patterns, seeded(seed))
    assert torch.equal(queries, torch.where(intact, patterns, 1 - patterns))


@pytest.mark.parametrize("probability", [0.0, 0.15, 0.8, 1.0])
def test_as_many_bits_flip_as_asked(probability):
    patterns = RandomBits(50)(2000, seeded())
    queries, _ = FlipBits(probability)(patterns, seeded(1))
    share = (queries != patterns).float().mean(0)
    assert share.sub(probability).abs().max() <= (0.0 if probability in (0, 1) else 0.04)


@quick
@given(st.integers(1, 9), st.integers(1, 9), st.booleans(), st.booleans(), st.data())
def test_a_noise_block_is_a_square_inside_the_image(height, width, colour, binary, data):
    size = data.draw(st.integers(1, min(height, width)))
    shape = (3, height, width) if colour else (height, width)
    patterns = torch.full((8, *shape), 0.25)
    queries, intact = NoiseBlock(size, binary)(patterns, seeded(data.draw(st.integers(0, 99))))
    assert torch.equal(queries[intact], patterns[intact])
    for mask in intact.reshape(-1, *((3,) if colour else (1,)), height, width):
        assert (mask == mask[0]).all()
        rows, columns = (~mask[0]).nonzero(as_tuple=True)
        assert len(rows) == size * size
        assert rows.max() - rows.min() == columns.max() - columns.min() == size - 1
    if binary:
        assert set(queries[~intact].tolist()) <= {0.0, 1.0}


def test_noise_blocks_reach_every_place_and_are_noise():
    patterns = torch.full((3000, 6, 5), 0.25)
    queries, intact = NoiseBlock(3)(patterns, seeded())
    corners = {tuple((~mask).nonzero()[0].tolist()) for mask in intact}
    assert corners == {(i, j) for i in range(4) for j in range(3)}
    noise = queries[~intact]
    assert noise.mean().item() == pytest.approx(0.5, abs=0.01)
    assert noise.std().item() == pytest.approx(12**-0.5, abs=0.01)
    bits = NoiseBlock(3, binary=True)(patterns, seeded())[0][~intact]
    assert set(bits.tolist()) == {0.0, 1.0} and bits.mean().item() == pytest.approx(0.5, abs=0.02)


def test_mask_part_erases_the_end_of_strings_and_the_lower_rows_of_images():
    queries, intact = MaskPart(0.25, value=0.5)(torch.ones(3, 8), seeded())
    assert queries[0].tolist() == [1, 1, 1, 1, 1, 1, 0.5, 0.5]
    assert torch.equal(intact, queries == 1)
    for shape in [(4, 3), (2, 4, 3)]:
        queries, intact = MaskPart()(torch.ones(5, *shape), seeded())
        assert (queries[..., :2, :] == 1).all() and (queries[..., 2:, :] == 0).all()
        assert torch.equal(intact, queries == 1)
    for fraction, kept in [(0.0, 8), (0.2, 6), (0.3, 6), (1.0, 0)]:
        assert MaskPart(fraction)(torch.ones(3, 8), seeded())[1].sum(1).tolist() == [kept] * 3


def test_gaussian_noise_has_its_width_and_is_clipped():
    patterns = torch.full((2000, 20), 0.5)
    queries, intact = GaussianNoise(0.1)(patterns, seeded())
    assert (queries - patterns).std().item() == pytest.approx(0.1, abs=0.002)
    assert queries.mean().item() == pytest.approx(0.5, abs=0.002)
    assert not intact.any()
    wide, _ = GaussianNoise(2.0)(patterns, seeded())
    assert wide.min() == 0 and wide.max() == 1
    none, intact = GaussianNoise(0.0)(patterns, seeded())
    assert torch.equal(none, patterns) and intact.all()


# Images that are read when needed, and their variations


def test_lazy_images_read_nothing_until_the_first_patterns_are_drawn():
    calls = []

    def load():
        calls.append("read")
        return digits()

    source = LazyImages(load, threshold=0.5)
    assert calls == []
    patterns = source(6, seeded())
    assert torch.equal(patterns, ImagePatterns(digits().images, threshold=0.5)(6, seeded()))
    assert source.loaded.name == digits().name
    source(6, seeded())
    assert calls == ["read"]


def test_lazy_images_look_over_their_images_once(monkeypatch):
    looked = []
    monkeypatch.setattr(tasks, "_range", lambda images: looked.append(len(images)) or (0.0, 1.0))
    source = LazyImages(lambda: digits(), threshold=0.5)
    for _ in range(3):
        source(6, seeded())
    assert looked == [len(digits().images)]


def test_lazy_images_remain_plain_values():
    source = LazyImages(digits, threshold=0.5)
    before = repr(source)
    drawn = source(6, seeded())
    assert repr(source) == before and source == LazyImages(digits, threshold=0.5)
    assert len(pickle.dumps(source)) < 1000
    for other in (copy.deepcopy(source), pickle.loads(pickle.dumps(source)), dataclasses.replace(source)):
        assert other == source and torch.equal(other(6, seeded()), drawn)
    grey = dataclasses.replace(source, threshold=None)
    assert grey != source and not torch.equal(grey(6, seeded()), drawn)


def test_lazy_images_vary_what_was_drawn_by_the_same_generator():
    varied = LazyImages(digits, variations=mirrored)(40, seeded())
    plain = LazyImages(digits)(40, seeded())
    kept = (varied == plain).flatten(1).all(1)
    assert 10 < kept.sum() < 30
    assert torch.equal(varied[~kept], plain[~kept].flip(-1))


@pytest.mark.parametrize("shape", [(5, 5), (3, 5, 5)])
def test_turned_and_shifted_gives_all_orientations_and_places_alike(shape):
    image = torch.zeros(shape)
    image[..., 2, 2], image[..., 2, 3], image[..., 1, 2] = 1.0, 0.5, 0.25  # told apart in all eight orientations
    varied = turned_and_shifted(image.expand(4000, *shape), seeded(), most=1)
    assert varied.shape == (4000, *shape)
    torch.testing.assert_close(varied.flatten(1).sum(1), image.sum().expand(4000))
    kinds, counts = torch.unique(varied.flatten(1), dim=0, return_counts=True)
    assert len(kinds) == 8 * 9 and counts.min() > 25
    assert torch.equal(turned_and_shifted(image[None], seeded(), most=0).flatten().sort()[0], image.flatten().sort()[0])


# What is refused


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Task(RandomBits(4), FlipBits(0.1), 0), "number must be at least 1, got 0"),
        (lambda: Task(RandomBits(4), FlipBits(0.1), 2, metric="bits"), "'wrong bits' or 'squared error', got 'bits'"),
        (lambda: Task(RandomBits(4), FlipBits(0.1), 2).sample(0, seeded()), "memories must be at least 1, got 0"),
        (lambda: CorrelatedBits(8, factors=0), r"factors must lie in \[1, 8\] .* got 0 and 0.0"),
        (lambda: CorrelatedBits(8, factors=9), r"factors must lie in \[1, 8\] .* got 9 and 0.0"),
        (lambda: CorrelatedBits(8, 2, noise=0.6), r"noise in \[0, 0.5\], got 2 and 0.6"),
        (
            lambda: ImagePatterns(torch.full((2, 3, 3), 1.5)),
            r"floats in \[0, 1\] or bytes .* got torch.float32 from 1.5 to 1.5: map signs with \(x \+ 1\) / 2",
        ),
        (lambda: ImagePatterns(torch.full((2, 3, 3), -0.5)), r"floats in \[0, 1\] .* got torch.float32 from -0.5"),
        (lambda: ImagePatterns(torch.full((2, 3, 3), math.nan)), r"floats in \[0, 1\] .* got torch.float32 from nan"),
        (lambda: ImagePatterns(np.arange(17.0).reshape(1, 17)), r"floats in .* from 0 to 16: .* divide other numbers"),
        (lambda: ImagePatterns(torch.rand(8)), r"images must have shape \(M, \*S\), got \(8,\)"),
        (
            lambda: ImagePatterns(np.zeros((9, 8, 8, 3))),
            r"colour images must .* got \(9, 8, 8, 3\): transpose",
        ),
        (lambda: ImagePatterns(torch.rand(8, 0)), r"images must have shape \(M, \*S\), got \(8, 0\)"),
        (lambda: ImagePatterns([torch.rand(8), torch.rand(9)]), "images must be a tensor or an array, got a list"),
        (lambda: ImagePatterns([[0, 1], [0]]), "images must be a tensor or an array, got a list"),
        (lambda: ImagePatterns(IMAGES)(31, seeded()), "31 different images .* got a set of 30"),
        (lambda: RedrawBits(5)(torch.zeros(2, 4), seeded()), r"count must lie in \[0, 4\], got 5"),
        (lambda: RedrawBits(-1)(torch.zeros(2, 4), seeded()), r"count must lie in \[0, 4\], got -1"),
        (lambda: FlipBits(1.5), r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: FlipBits(-0.1), r"probability must lie in \[0, 1\], got -0.1"),
        (lambda: NoiseBlock(5)(torch.zeros(2, 4, 7), seeded()), r"size must lie in \[1, 4\], got 5"),
        (lambda: NoiseBlock(0)(torch.zeros(2, 4, 7), seeded()), r"size must lie in \[1, 4\], got 0"),
        (lambda: NoiseBlock(2)(torch.zeros(5, 6), seeded()), r"needs images \(N, ..., height, width\), got \(5, 6\)"),
        (lambda: MaskPart(1.5), r"fraction must lie in \[0, 1\], got 1.5"),
        (lambda: MaskPart(0.5, value=-1), r"value must lie in \[0, 1\], got -1"),
        (lambda: GaussianNoise(-0.1), "std must be at least 0, got -0.1"),
        (lambda: GaussianNoise(math.nan), "std must be at least 0, got nan"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_given(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_corruption_may_fill_the_same_tensors_again_and_again():
    queries, intact = torch.empty(2, 8), torch.empty(2, 8, dtype=torch.bool)

    def refilled(patterns, generator):
        made = FLIP(patterns, generator)
        return queries.copy_(made[0]), intact.copy_(made[1])

    found, expected = (Task(RandomBits(8), make, 2).sample(3, seeded()) for make in (refilled, FLIP))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
