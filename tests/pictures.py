"""Pictures for tests of memories of pictures, and how well one reads its own, an empty and another's memory."""

import torch
import torch.nn.functional as F

from ebmm.tasks import NoiseBlock


def smooth_pictures(number, shape, seed=0):
    """Pictures with the low frequencies that few codes keep."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 1 if len(shape) == 2 else 3, 5, 5, generator=generator)
    return F.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1).reshape(number, *shape)


def share_of_the_next_best(model, shape):
    """Squared error of reading the own memory, over the least from an empty one, another's and of the query itself."""
    patterns, others = smooth_pictures(12, shape).unflatten(0, (2, 1, 6)).unbind(0)
    queries = NoiseBlock(8)(patterns[0], torch.Generator().manual_seed(1))[0][None]
    with torch.no_grad():
        memories = model.write(patterns), model.initial_memory(), model.write(others)
        own, empty, foreign = ((model.read(queries, held) - patterns).square().sum().item() for held in memories)
    return own / min(empty, foreign, (queries - patterns).square().sum().item())
