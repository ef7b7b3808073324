"""The inpainter without a memory."""

import pytest
import torch

from ebmm import Task, fit
from ebmm.baselines import Inpainter
from ebmm.memory import Memory
from ebmm.tasks import NoiseBlock


def bars(number, generator):
    """Pictures of one bar, upright or not: what is damaged can be told from the rest."""
    places = torch.randint(0, 16, (number,), generator=generator)
    upright = torch.randint(0, 2, (number, 1, 1), generator=generator).bool()
    pictures = (torch.arange(16) == places[:, None]).float()[:, None].expand(number, 16, 16)
    return torch.where(upright, pictures, pictures.mT)


def test_it_has_no_memory():
    model = Inpainter((16, 16), hidden=8, blocks=2)
    first, second = (model.write(torch.rand(2, 3, 16, 16)) for _ in range(2))
    assert model.memory_floats == sum(tensor.numel() for tensor in first.values()) == 0
    queries = torch.rand(2, 5, 16, 16)
    assert torch.equal(model.read(queries, first), model.read(queries, second))
    with pytest.raises(ValueError, match="reads a Memory with nothing"):
        model.read(queries, Memory({"slots": torch.zeros(2, 3, 4)}))


def test_it_learns_what_can_be_guessed():
    torch.manual_seed(0)
    model, task = Inpainter((16, 16), hidden=16, blocks=3), Task(bars, NoiseBlock(6), 8)
    history = fit(model, task, 400, memories=2, learning_rate=1e-2, optimiser="muon", progress=False, device="cpu")
    batch = task.sample(4, torch.Generator().manual_seed(1))
    with torch.no_grad():
        read = model.read(batch.queries, model.write(batch.patterns))
    before, after = ((x - batch.patterns).square().sum().item() for x in (batch.queries, read))
    assert after < 0.2 * before, (before, after, history.rows[-1])


@pytest.mark.parametrize("shape", [(64, 64), (3, 64, 64)])
def test_every_pixel_sees_all_others(shape):
    torch.manual_seed(0)
    model = Inpainter(shape, hidden=8).double()
    query = torch.rand(1, 1, *shape).double().requires_grad_()
    read = model.read(query, model.write(query.detach()))
    (seen,) = torch.autograd.grad(read[..., 0, 0].sum(), query)
    assert (seen != 0).all() and read.min() >= 0 and read.max() <= 1
