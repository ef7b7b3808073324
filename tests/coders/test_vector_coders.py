"""The coders before and behind a memory: what they compute, how they start, and what they refuse."""

import pytest
import torch
from torch import nn

from ebmm.coders import Decoder, Encoder, SignDecoder, SignEncoder, Sine, packing_coders, sign_coders
from ebmm.coders.base import apply


def random_bits(*shape, seed=0):
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).float()


def test_an_encoder_is_a_line_plus_a_perceptron_of_signs():
    encoder, x = Encoder(6, width=4, hidden=5).double(), torch.rand(3, 6, dtype=torch.float64)
    first, _, last = encoder.network
    for row, code in zip(x, encoder(x), strict=True):
        signs = 2 * row - 1
        hidden = first.weight @ signs + first.bias
        expected = encoder.linear.weight @ signs + encoder.linear.bias + last.weight @ (hidden * hidden.sigmoid())
        assert torch.allclose(code, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", [nn.Tanh, Sine])
def test_a_decoder_is_the_sigmoid_of_a_line_plus_a_perceptron(activation):
    decoder, codes = Decoder(4, features=6, hidden=5, activation=activation).double(), torch.randn(3, 4).double()
    first, _, last = decoder.network
    function = {nn.Tanh: torch.tanh, Sine: torch.sin}[activation]
    for code, x in zip(codes, decoder(codes), strict=True):
        hidden = function(first.weight @ code + first.bias)
        expected = torch.sigmoid(decoder.linear.weight @ code + decoder.linear.bias + last.weight @ hidden)
        assert torch.allclose(x, expected, rtol=0, atol=1e-12)


def test_codes_of_any_size_decode_into_the_box():
    x = Decoder(4, features=6)(1000 * torch.randn(50, 4))
    assert x.min() >= 0 and x.max() <= 1


def test_packing_starts_as_a_positional_notation():
    encoder, decoder = packing_coders(8, width=3)
    weight = torch.tensor([[1, 0, 0, 0.5, 0, 0, 0.25, 0], [0, 1, 0, 0, 0.5, 0, 0, 0.25], [0, 0, 1, 0, 0, 0.5, 0, 0]])
    assert torch.equal(encoder.linear.weight, weight)
    assert torch.equal(decoder.linear.weight, 2 * weight.T)
    assert not encoder.linear.bias.any() and not decoder.linear.bias.any()


@pytest.mark.parametrize("width", [32, 40])
def test_codes_with_room_for_each_bit_need_no_training(width):
    torch.manual_seed(0)
    encoder, decoder = packing_coders(32, width)
    x = random_bits(500, 32)
    assert torch.equal((decoder(encoder(x)) > 0.5).float(), x)


def test_packing_learns_to_put_two_bits_into_one_number():
    torch.manual_seed(0)
    encoder, decoder = packing_coders(16, width=8)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)
    fresh = random_bits(1000, 16, seed=1)
    before = ((decoder(encoder(fresh)) > 0.5) != fresh.bool()).float().mean()
    for step in range(200):
        x = random_bits(128, 16, seed=2 + step)
        loss = (decoder(encoder(x)) - x).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    wrong = ((decoder(encoder(fresh)) > 0.5) != fresh.bool()).float().mean()
    assert before > 0.1 and wrong < 0.005, f"{before:.1%} wrong bits before training, {wrong:.1%} after"


def test_apply_codes_every_pattern_of_every_memory():
    encoder, x = Encoder(6, width=4), torch.rand(2, 3, 6)
    codes = apply(encoder, x, (4,))
    assert codes.shape == (2, 3, 4)
    for b in range(2):
        for n in range(3):
            assert torch.allclose(codes[b, n], encoder(x[b, n][None])[0], atol=1e-6)


def test_apply_serves_coders_of_any_shape():
    fold = nn.Unflatten(1, (2, 3))
    assert apply(fold, torch.rand(4, 5, 6), (2, 3)).shape == (4, 5, 2, 3)
    assert apply(nn.Flatten(), torch.rand(4, 5, 2, 3), (6,)).shape == (4, 5, 6)


def test_apply_says_which_coder_gives_which_wrong_shape():
    with pytest.raises(ValueError, match=r"Encoder must map \(6, 8\) to \(6, 5\), it gave \(6, 4\)"):
        apply(Encoder(8, width=4), torch.rand(2, 3, 8), (5,))
    with pytest.raises(ValueError, match=r"Flatten must map \(6, 8\) to \(6, 8\), it gave \(48,\)"):
        apply(nn.Flatten(0), torch.rand(2, 3, 8), (8,))


def test_sign_decoder_is_its_formula():
    torch.manual_seed(0)
    decoder = SignDecoder(torch.randn(3, 5), steps=4).double()
    code = torch.randn(2, 3, dtype=torch.double)
    A = decoder.matrix
    for c, answer in zip(code, decoder(code), strict=True):
        y, pulled = torch.zeros(5).double(), torch.zeros(5).double()
        for slope, rate, inertia in zip(decoder.slope, decoder.rate, decoder.inertia, strict=True):
            missing = c - torch.stack([sum(A[k, i] * y[i] for i in range(5)) for k in range(3)])
            back = torch.stack([sum(A[k, i] * missing[k] for k in range(3)) for i in range(5)])
            pulled = slope * (y + rate * back) + inertia * pulled
            y = torch.tanh(pulled)
        torch.testing.assert_close(answer, (y + 1) / 2)


def test_sign_encoder_is_linear_in_the_signs():
    matrix = torch.randn(3, 5)
    x = torch.rand(4, 5)
    torch.testing.assert_close(SignEncoder(matrix)(x), torch.stack([matrix @ (2 * v - 1) for v in x]))


@pytest.mark.parametrize(("width", "most"), [(64, 0.0), (48, 0.005), (43, 0.01)])
def test_descent_undoes_a_random_linear_code(width, most):
    torch.manual_seed(0)
    encoder, decoder = sign_coders(64, width)
    x = torch.randint(0, 2, (500, 64)).float()
    answer = decoder(encoder(x))
    assert answer.min() >= 0 and answer.max() <= 1
    assert ((answer > 0.5) != (x > 0.5)).float().mean() <= most


def test_a_linear_code_longer_than_its_pattern_is_refused():
    with pytest.raises(ValueError, match="saves nothing: width 7, features 6"):
        sign_coders(6, width=7)
