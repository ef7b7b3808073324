"""Meta-training: one loop for every memory that writes and reads with gradients."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from ebmm.evaluation import errors, pick_device
from ebmm.tasks import Batch, Task

PRECISIONS = ("float32", "tf32", "bfloat16")


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


@dataclass(repr=False)
class History:
    """What happened at each training step.

    Attributes:
        rows: one dict a step: step, loss, error (the task's metric on the training batch), gradient
            norm before clipping, learning rate.
        skipped: steps whose loss or gradient was not finite and that were not applied.
        seconds: time spent, over all sittings.
        metric: what the error counts.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0
    metric: str = "wrong bits"

    def __repr__(self) -> str:
        last = f", last {self.metric}: {self.rows[-1]['error']:.3g}" if self.rows else ""
        return f"History({len(self.rows)} steps, {self.skipped} skipped, {self.seconds:.0f} seconds{last})"

    def column(self, name: str) -> list[float]:
        """All values of one column, such as ``"loss"``."""
        return [row[name] for row in self.rows]

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self)))

    def plot(self, axes=None, window: int = 25):
        """Plot loss and error against the step, each with its running median over ``window`` steps.

        Args:
            axes: two matplotlib axes; ``None`` makes a figure.
            window: steps of the running median, at least 1.

        Returns:
            The two axes.
        """
        import matplotlib.pyplot as plt
        import pandas

        axes = plt.subplots(1, 2, figsize=(8, 3))[1] if axes is None else axes
        table = pandas.DataFrame(self.rows)
        for ax, name, label in zip(axes, ("loss", "error"), ("loss", self.metric), strict=True):
            (line,) = ax.plot(table["step"], table[name], alpha=0.25, linewidth=0.8)
            smooth = table[name].rolling(window, min_periods=1).median()
            ax.plot(table["step"], smooth, color=line.get_color())
            ax.set(xlabel="meta-training step", ylabel=label, ylim=(0, None))
        return axes


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


@contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Joins the processes that ``torchrun`` started, so that :func:`ebmm.fit` inside shares the work among them.

    Outside ``torchrun``, or with one process, nothing happens. PyTorch can join once in a process's life.

    Args:
        device: as for :func:`ebmm.fit`. On CUDA each process takes the GPU of its own number.

    Example:
        >>> with process_group("cpu"):
        ...     rank_and_processes()
        (0, 1)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = pick_device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_processes() -> tuple[int, int]:
    """This process's number among those that train together, and how many they are: (0, 1) for one alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class _Loss(nn.Module):
    """The loss as the forward pass of a module, the form in which processes can share it."""

    def __init__(self, model: nn.Module, where: torch.device, precision: str):
        super().__init__()
        self.model, self.device_type, self.precision = model, where.type, precision

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss, recalled = reconstruction_loss(self.model, batch)
        return loss, recalled.detach()


@contextmanager
def _tf32(where: torch.device, allowed: bool) -> Iterator[None]:
    """Whether CUDA's products and convolutions may round to TF32; left as it was found."""
    if where.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def _schedule(step: int, steps: int, warmup: int) -> float:
    """The learning rate of a step, as a share of its peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(1, warmup)) * (0.01 + 0.99 * cosine)


def _describe(thing) -> str:
    """What a task or a model is, told alike in every process, with a checksum in place of each tensor."""
    if isinstance(thing, Tensor):
        return f"{tuple(thing.shape)} sha256 {hashlib.sha256(thing.cpu().numpy().tobytes()).hexdigest()[:16]}"
    if is_dataclass(thing):
        parts = [f"{part.name}={_describe(getattr(thing, part.name))}" for part in fields(thing)]
        return f"{type(thing).__name__}({', '.join(parts)})"
    if inspect.isfunction(thing):
        return thing.__qualname__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _save(path, settings, model, optimiser, drawn, history) -> None:
    """Save all that the next step depends on; the file is replaced in one stroke."""
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": drawn,
        "torch": torch.get_rng_state(),
        "history": asdict(history),
    }
    partial = f"{path}.partial"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, partial)
    os.replace(partial, path)


def _load(path, settings, model, optimiser, generator) -> History:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        there = {"precision": "float32"} | state["settings"]  # older checkpoints do not say
    except Exception as error:  # torch.load raises whatever the damage makes it stumble over
        raise ValueError(f"{path} is no whole checkpoint of ebmm.fit ({error}): delete it to start anew") from error
    differing = {name: (there.get(name), here) for name, here in settings.items() if there.get(name) != here}
    if differing:
        raise ValueError(
            f"{path} is a checkpoint of another run; (there, here) differ in {differing}: "
            f"delete it to start anew, or give another path"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return History(**state["history"])
