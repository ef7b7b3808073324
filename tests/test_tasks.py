import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ebmm import Task
from ebmm.datasets import digits
from ebmm.tasks import (
    CorrelatedBits,
    EraseBits,
    FlipBits,
    GaussianNoise,
    ImagePatterns,
    LazyImages,
    MaskPart,
    NoiseBlock,
    RandomBits,
    RedrawBits,
    mirrored,
    turned_and_shifted,
)

quick = settings(deadline=None, max_examples=40, derandomize=True)
IMAGES = torch.rand(30, 6, 5, generator=torch.Generator().manual_seed(7))

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
    for fraction, kept in [(0.0, 8), (1.0, 0)]:
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
    assert source.name == digits().name
    source(6, seeded())
    assert calls == ["read"]


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
            r"floats in \[0, 1\], .* got torch.float32 from 1.5 to 1.5",
        ),
        (lambda: ImagePatterns(torch.full((2, 3, 3), -0.5)), r"floats in \[0, 1\], .* got torch.float32 from -0.5"),
        (lambda: ImagePatterns(torch.full((2, 3, 3), math.nan)), r"floats in \[0, 1\], .* got torch.float32 from nan"),
        (lambda: ImagePatterns(torch.ones(2, 3, 3, dtype=torch.uint8)), "floats in .* got torch.uint8 from 1 to 1"),
        (lambda: ImagePatterns(IMAGES)(31, seeded()), "31 different images .* got a set of 30"),
        (lambda: RedrawBits(5)(torch.zeros(2, 4), seeded()), r"count must lie in \[0, 4\], got 5"),
        (lambda: RedrawBits(-1)(torch.zeros(2, 4), seeded()), r"count must lie in \[0, 4\], got -1"),
        (lambda: FlipBits(1.5), r"probability must lie in \[0, 1\], got 1.5"),
        (lambda: FlipBits(-0.1), r"probability must lie in \[0, 1\], got -0.1"),
        (lambda: NoiseBlock(5)(torch.zeros(2, 4, 7), seeded()), r"size must lie in \[1, 4\], got 5"),
        (lambda: NoiseBlock(0)(torch.zeros(2, 4, 7), seeded()), r"size must lie in \[1, 4\], got 0"),
        (lambda: NoiseBlock(2)(torch.zeros(5, 6), seeded()), r"needs images \(N, ..., height, width\), got \(5, 6\)"),
        (lambda: MaskPart(1.5), r"lie in \[0, 1\], got 1.5 and 0.0"),
        (lambda: MaskPart(0.5, value=-1), r"lie in \[0, 1\], got 0.5 and -1"),
        (lambda: GaussianNoise(-0.1), "std must be at least 0, got -0.1"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_given(make, words):
    with pytest.raises(ValueError, match=words):
        make()
