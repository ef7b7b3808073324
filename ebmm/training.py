"""Meta-training: one loop for every memory that writes and reads with gradients."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, distributed, nn

from ebmm.history import History, _describe, _load, _save
from ebmm.machine import PRECISIONS, _tf32, pick_device, rank_and_processes
from ebmm.metrics import errors
from ebmm.tasks import Batch, Task


class TrainingError(RuntimeError):
    """Training stopped because it can no longer succeed."""


def reconstruction_loss(model, batch: Batch) -> tuple[Tensor, Tensor]:
    """Distortion after writing and reading, averaged over all read iterates (equations 2 and 5; chapter 4).

    The paper sums over the K iterates; the mean differs by the factor K only.

    Args:
        model: any memory with ``write`` and ``read(..., trajectory=True)``.
        batch: patterns and queries, (B, N, *S).

    Returns:
        The loss, a scalar, and what was read, (B, N, *S).
    """
    memory = model.write(batch.patterns)
    recalled, trajectory = model.read(batch.queries, memory, trajectory=True)
    squared = (trajectory[1:] - batch.patterns).flatten(3).square().sum(-1)
    return squared.mean(), recalled


def fit(
    model: nn.Module,
    task: Task,
    steps: int,
    *,
    memories: int = 16,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-6,
    clip: float = 1.0,
    warmup: int = 50,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike | None = None,
    save_every: int = 500,
    max_skipped: int = 20,
    precision: str = "float32",
    progress: bool = True,
) -> History:
    """Meta-train a memory in place: sample, write, read, and descend the reconstruction loss.

    AdamW with a linear warm-up and a cosine decay to 1 % of the learning rate; the global gradient
    norm is clipped. A step with a non-finite loss or gradient is skipped and counted. While a step is
    computed, a second thread draws the next batch.

    In several processes (:func:`process_group`) each draws the whole batch and takes its share of the
    memories; gradients, losses and errors are averaged. The result is that of one process up to rounding,
    for a memory that draws no random numbers itself. Only the first process saves and shows progress.

    Args:
        model: an :class:`ebmm.EBMM` or any module with the same ``write`` and ``read``.
        task: what to store and how queries are corrupted.
        steps: updates in all, at least 1. It shapes the schedule, so it is the same in all sittings.
        memories: B, memories a step, over all processes.
        learning_rate, weight_decay, clip, warmup: of the optimiser; ``clip`` is the largest global
            gradient norm, ``warmup`` a number of steps.
        seed: of the task's generator.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or any torch device; the model is moved there.
        checkpoint: a file to save to, every ``save_every`` steps and at the end. If it exists,
            training goes on from it, to the same numbers as without the interruption. The trained
            parameters in it: ``model.load_state_dict(torch.load(checkpoint)["model"])``.
        save_every: steps between two saves; an interruption loses at most so many.
        max_skipped: stop after so many skipped steps in a row.
        precision: of products and convolutions; parameters, memories and their updates stay float32.
            ``"float32"`` rounds nothing further, nor lets CUDA do so; ``"tf32"`` has CUDA round inputs to
            11 bits, and is float32 elsewhere; ``"bfloat16"`` rounds inputs and results to 8 bits. With
            smooth energies the meta-gradient keeps its direction (cosine with float64 above 0.999 for tf32,
            0.998 for bfloat16) and its norm within 1 %. Stay with float32 where writing chooses one slot
            (:class:`ebmm.energies.CompressedDenseEnergy`, lost near ties); bfloat16 is also
            wrong where equations are solved (:class:`ebmm.baselines.kanerva.KanervaMachine`, cosine below 0.5).
        progress: show a progress bar with loss and error.

    Returns:
        The history of all steps.

    Raises:
        TrainingError: too many non-finite steps in a row.
        ValueError: steps or memories below 1, memories that cannot be shared equally among the
            processes, an unknown precision, a checkpoint of another run or not the same in all processes.

    Example:
        >>> from ebmm import EBMM, tasks
        >>> from ebmm.energies import PredictiveEnergy
        >>> task = Task(tasks.RandomBits(16), tasks.FlipBits(0.1), number=2)
        >>> history = fit(EBMM(PredictiveEnergy(16)), task, steps=3, memories=2, progress=False)
        >>> len(history.rows)
        3
    """
    if min(steps, memories, save_every, max_skipped) < 1:
        raise ValueError(
            f"steps, memories, save_every and max_skipped must be at least 1, "
            f"got {steps}, {memories}, {save_every} and {max_skipped}"
        )
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    rank, processes = rank_and_processes()
    if memories % processes:
        raise ValueError(
            f"memories must be a multiple of the number of processes, got {memories} memories and {processes} processes"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameters: there is nothing to train")
    where = pick_device(device)
    model.to(where).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    history = History(metric=task.metric)
    settings: dict[str, object] = {
        "steps": steps,
        "memories": memories,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "clip": clip,
        "warmup": warmup,
        "seed": seed,
        "precision": precision,
        "task": _describe(task),
        "model": _describe(model),
    }
    settings |= {f"shape of {name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if checkpoint is not None and os.path.exists(checkpoint):
        history = _load(checkpoint, settings, model, optimiser, generator)

    loss_of: nn.Module = _Loss(model, where, precision)
    if processes > 1:
        # All wait here for each other, so that none saves before each has looked for a checkpoint.
        starts = [0] * processes
        distributed.all_gather_object(starts, len(history.rows))
        if len(set(starts)) > 1:
            raise ValueError(f"{checkpoint} must be the same file for all processes, but they start at steps {starts}")
        # Gradients taken inside the loss do not disturb it: it averages what arrives at parameters, and only that.
        loss_of = nn.parallel.DistributedDataParallel(loss_of, static_graph=True)

    def draw() -> tuple[Batch, Tensor]:
        """This process's share of the next batch, and where the generator stands after that batch."""
        batch = task.sample(memories, generator)
        return Batch(*(tensor.chunk(processes)[rank] for tensor in batch)), generator.get_state()

    from tqdm import tqdm

    skipped_in_a_row, earlier, start = 0, history.seconds, time.monotonic()
    with (
        tqdm(total=steps, initial=len(history.rows), disable=not progress or rank > 0, mininterval=1.0) as bar,
        _tf32(where, precision == "tf32"),
        ThreadPoolExecutor(1) as background,
    ):
        upcoming = background.submit(draw)
        for step in range(len(history.rows), steps):
            rate = learning_rate * _schedule(step, steps, warmup)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch, drawn = upcoming.result()
            if step + 1 < steps:
                upcoming = background.submit(draw)
            batch = batch.to(where)
            loss, recalled = loss_of(batch)
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            means = torch.stack([loss.detach(), errors(recalled, batch.patterns, task.metric).mean()])
            if processes > 1:
                distributed.all_reduce(means)
            mean_loss, error = (means / processes).tolist()
            if math.isfinite(mean_loss) and bool(torch.isfinite(norm)):
                optimiser.step()
                skipped_in_a_row = 0
            else:
                history.skipped += 1
                skipped_in_a_row += 1
            history.rows.append(
                {"step": step, "loss": mean_loss, "error": error, "gradient norm": norm.item(), "learning rate": rate}
            )
            history.seconds = earlier + time.monotonic() - start
            bar.update()
            bar.set_postfix(
                {"loss": f"{mean_loss:.3g}", task.metric: f"{error:.3g}", "skipped": history.skipped}, refresh=False
            )
            if skipped_in_a_row >= max_skipped:
                raise TrainingError(
                    f"{skipped_in_a_row} steps in a row had a non-finite loss or gradient, the last at step {step}: "
                    f"lower the learning rate ({learning_rate:g}) or the model's write and read rates"
                )
            if checkpoint is not None and rank == 0 and ((step + 1) % save_every == 0 or step + 1 == steps):
                _save(checkpoint, settings, model, optimiser, drawn, history)
    model.eval()
    return history


class _Loss(nn.Module):
    """The loss as the forward pass of a module, the form in which processes can share it."""

    def __init__(self, model: nn.Module, where: torch.device, precision: str):
        super().__init__()
        self.model, self.device_type, self.precision = model, where.type, precision

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss, recalled = reconstruction_loss(self.model, batch)
        return loss, recalled.detach()


def _schedule(step: int, steps: int, warmup: int) -> float:
    """The learning rate of a step, as a share of its peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(1, warmup)) * (0.01 + 0.99 * cosine)
