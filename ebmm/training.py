"""Meta-training: one loop for every memory that writes and reads with gradients."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from ebmm.evaluation import compare
from ebmm.given import kind, real, warned_of_global_draws, whole
from ebmm.gradients import check_before_training, reconstruction_loss
from ebmm.history import Checkpoint, History
from ebmm.machine import PRECISIONS, _tf32, dtype_for, over_processes, pick_device, rank_and_processes, shared
from ebmm.memory import TrainableMemory
from ebmm.metrics import errors
from ebmm.muon import Muon
from ebmm.slopes import compiled
from ebmm.steady import Steady
from ebmm.tasks import Batch, Task, check_task

OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": lambda model, **options: torch.optim.AdamW(model.parameters(), **options),
    "muon": Muon,
}

Drawn = tuple[Batch, int, Tensor]  # a batch, of which lesson it is, and where the generator stands after it


class TrainingError(RuntimeError):
    """Training stopped because it can no longer succeed."""


def fit(
    model: TrainableMemory,
    task: Task | Sequence[Task],
    steps: int,
    *,
    memories: int = 16,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-6,
    clip: float = 1.0,
    warmup: int = 50,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike[str] | None = None,
    save_every: int = 500,
    max_skipped: int = 20,
    averaging: float = 0.99,
    late: bool = False,
    joining: float = 0.0,
    optimiser: str = "adamw",
    compile: bool | str = False,
    precision: str = "float32",
    progress: bool = True,
    check_gradients: bool | None = None,
    compare_every: int = 0,
    callback: Callable[[dict[str, float]], object] | None = None,
) -> History:
    """Meta-train a memory in place: sample, write, read, and descend the reconstruction loss.

    AdamW or Muon, with a linear warm-up and a cosine decay to 1 % of the learning rate; the global gradient norm is
    clipped. :class:`ebmm.steady.Steady` skips and counts updates with outlying gradients, and brings back good weights
    when training collapses.

    In several processes (:func:`ebmm.machine.process_group`) each draws the whole batch and takes its share of the
    memories. The result is that of one process up to rounding, for a memory that draws no random numbers itself.

    Args:
        model: an :class:`ebmm.EBMM` or any module with ``write``, and ``read`` that gives all iterates on demand. It is
            moved to ``device``, trained in the mode of training, dropout included, and left in that of evaluation.
        task: or several of one pattern shape, as lessons: each step draws one of them. One may be listed twice.
        steps: updates in all. They shape the schedule, so they are the same in all sittings.
        memories: B, memories a step, over all processes.
        learning_rate, weight_decay, clip, warmup: the rate at its peak; decay; the largest norm; steps.
        seed: of the task's generator.
        checkpoint: a file to save to, every ``save_every`` steps and at the end. If it is there, the same call, with a
            model built from the same seed or the one that was being trained, goes on from it to the same numbers as
            without the interruption; any other call is refused. The parameters in it:
            ``model.load_state_dict(torch.load(checkpoint)["model"])``.
        max_skipped, progress: stop after so many skipped steps in a row; show a bar with loss and error.
        averaging: the model is left with a moving average of its weights, of which each step keeps this share; 0: none.
        late: weigh the k-th read iterate by k in the loss: :func:`ebmm.gradients.reconstruction_loss`.
        joining: the share of the steps over which lessons join one after the other, evenly; 0: all are there at once.
        optimiser: ``"adamw"``, or ``"muon"``: :class:`ebmm.muon.Muon` for the static matrices.
        compile: the gradients that writing and reading take. One to three minutes on one core, once for each energy on
            a machine, and on the CPU a compiler of C++ (PyTorch 2.6 fails on some); then, where an energy is many small
            operations, a step takes a third to a half of the time, with the same numbers up to rounding. ``"whole"``:
            all steps of writing and of reading in a graph each. Patterns that are written one after another take a
            seventh then; longer to compile, and not with ``recompute``. Energies with attention, or that branch on
            values, run uncompiled; your own autograd functions need ``setup_context``.
        precision: of products and convolutions: ``"float32"``, ``"tf32"`` (CUDA rounds inputs to 11 bits) or
            ``"bfloat16"`` (inputs and results have 8 bits). Smooth energies keep the meta-gradient's direction (cosine
            above 0.999 and 0.998) and its norm within 1 %. Not where writing chooses one slot
            (:class:`ebmm.energies.SlotEnergy`), nor bfloat16 where equations are solved
            (:class:`ebmm.baselines.kanerva.KanervaMachine`, cosine below 0.5).
        check_gradients: ask :func:`ebmm.check_gradients` before the first step; ``None`` asks where an energy has
            layers of your own; of above 200 000 parameters only for PyTorch's functions known to be wrong.
        compare_every: steps between comparisons of the own memory with another's and an empty one, by
            :func:`ebmm.evaluation.compare` on this process's share of the batch, for ``history.compared``; 0: none.
        callback: called after each step, in the first process, with the row that ``history.rows`` got.

    Raises:
        TrainingError: too many non-finite steps in a row. GradientError: PyTorch's meta-gradient is wrong.
        ValueError: a checkpoint of another run, a folder, or not the same in all processes.
        OSError: the checkpoint cannot be written, or, a ``TimeoutError``, another process trains with it.

    Example:
        >>> from ebmm import EBMM, energies, tasks
        >>> task = Task(tasks.RandomBits(16), tasks.FlipBits(0.1), number=2)
        >>> model = EBMM(energies.PredictiveEnergy(16))
        >>> len(fit(model, task, steps=3, memories=2, progress=False).rows)
        3
    """
    lessons = [task] if isinstance(task, Task) or not isinstance(task, Sequence) else list(task)
    _check_lessons(lessons)
    if not isinstance(model, nn.Module):
        raise TypeError(f"fit trains a torch.nn.Module with write and read, got {kind(model)}")
    _check_parameters(model)
    # Plain numbers, which a checkpoint gives back, of whatever a user's loop or table holds.
    steps, memories, seed = whole(steps, "steps"), whole(memories, "memories"), whole(seed, "seed", -math.inf)
    learning_rate, weight_decay = real(learning_rate, "learning_rate", 0), real(weight_decay, "weight_decay", 0)
    clip, warmup = real(clip, "clip", 0), whole(warmup, "warmup", 0)
    averaging = real(averaging, "averaging", 0)
    if averaging >= 1:
        raise ValueError(f"averaging must be from 0 to below 1, got {averaging}")
    joining = real(joining, "joining", 0)
    if joining > 1:
        raise ValueError(f"joining must be from 0 to 1, got {joining}")
    save_every, max_skipped = whole(save_every, "save_every"), whole(max_skipped, "max_skipped")
    compare_every = whole(compare_every, "compare_every", 0)
    if optimiser not in tuple(OPTIMISERS):
        raise ValueError(f"optimiser must be one of {tuple(OPTIMISERS)}, got {optimiser!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, got {precision!r}")
    rank, processes = rank_and_processes()
    if memories % processes:
        raise ValueError(
            f"memories must be a multiple of the number of processes, got {memories} memories and {processes} processes"
        )
    where = pick_device(device)
    model.to(where)
    stepper = OPTIMISERS[optimiser](model, lr=learning_rate, weight_decay=weight_decay, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    settings = {
        "steps": steps, "memories": memories, "learning_rate": learning_rate, "weight_decay": weight_decay,
        "clip": clip, "warmup": warmup, "seed": seed, "averaging": averaging, "late": bool(late),
        "joining": joining, "optimiser": optimiser, "compile": compile, "precision": precision,
    }  # fmt: skip
    if compile not in (False, True, "whole") or (compile == "whole" and getattr(model, "recompute", False)):
        raise ValueError(f"compile must be False, True, or 'whole' without recompute, got {compile!r}")
    if compile and not hasattr(model, "slopes"):
        raise ValueError(f"only a memory that is written and read by gradients is compiled, not {kind(model)}")
    steady = Steady(model, stepper, averaging)
    saved = Checkpoint(checkpoint, settings, task, model, stepper, steady, generator)

    def joined(step: int) -> int:
        """How many lessons are there at a step."""
        last = joining * steps
        return len(lessons) if step >= last else max(1, math.ceil(len(lessons) * step / last))

    def draw(step: int) -> Drawn:
        """This process's share of the batch of a step."""
        number = joined(step)
        chosen = int(torch.randint(number, (1,), generator=generator)) if number > 1 else 0
        batch = lessons[chosen].sample(memories, generator)
        return Batch(*(tensor.chunk(processes)[rank] for tensor in batch)), chosen, generator.get_state()

    from tqdm import tqdm

    quick = compiled(model, compile == "whole") if compile else nullcontext()
    with saved.sitting(rank == 0), _in_training(model), _tf32(where, precision == "tf32"), quick:
        history = saved.load() or History(metric=lessons[0].metric)
        begun, earlier, start = len(history.rows), history.seconds, time.monotonic()
        loss_of = shared(_Loss(model, where, precision, late), begun, processes, checkpoint)
        if begun == steps:
            return history
        with nullcontext() if checkpoint is None else warned_of_global_draws():
            first = draw(begun)
        if begun == 0:
            check_before_training(model, first[0], check_gradients)
        batches = _drawn_ahead(draw, first, range(begun, steps))
        bar = tqdm(total=steps, initial=begun, disable=not progress or rank > 0, mininterval=1.0)
        with closing(batches), bar:
            for step, (batch, lesson, drawn) in enumerate(batches, begun):
                if step and joined(step) > joined(step - 1):
                    steady.new_lesson()
                rate = learning_rate * steady.factor * _schedule(step, steps, warmup)
                for group in stepper.param_groups:
                    group["lr"] = rate
                batch = batch.to(where, dtype_for(model))
                if compare_every and step % compare_every == 0:
                    with torch.random.fork_rng([where] if where.type == "cuda" else []):
                        history.compared.append({"step": step, **compare(model, batch, history.metric)})
                loss, recalled = loss_of(batch)
                stepper.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(model.parameters(), clip).item()
                error = errors(recalled, batch.patterns, history.metric).mean()
                mean_loss, mean_error = over_processes(torch.stack([loss.detach(), error]), processes)
                if steady.accepts(mean_loss, norm, lesson):
                    stepper.step()
                steady.after(mean_loss)
                history.skipped, history.returns = steady.skipped, steady.returns
                history.rows.append(
                    {"step": step, "loss": mean_loss, "error": mean_error, "gradient norm": norm, "learning rate": rate}
                )
                if callback is not None and rank == 0:
                    callback(dict(history.rows[-1]))
                history.seconds = earlier + time.monotonic() - start
                shown = {"loss": f"{mean_loss:.3g}", history.metric: f"{mean_error:.3g}", "skipped": history.skipped}
                for last in history.compared[-1:]:
                    shown |= {name: f"{last[name]:.3g}" for name in ("another's", "empty") if name in last}
                bar.set_postfix(shown, refresh=False)
                bar.update()
                if steady.skipped_in_a_row == max_skipped:
                    raise TrainingError(
                        f"{max_skipped} steps in a row had a non-finite or outlying loss or gradient, the last at step "
                        f"{step}: lower the learning rate ({learning_rate:g}) or the model's write and read rates"
                    )
                if step + 1 == steps:
                    steady.finish()
                if rank == 0 and ((step + 1) % save_every == 0 or step + 1 == steps):
                    saved.save(drawn, history)
    return history


def _check_parameters(model: nn.Module) -> None:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise ValueError(f"{kind(model)} has no parameters: there is nothing to train")
    if any(parameter.is_inference() for parameter in trained):
        raise ValueError(f"{kind(model)} was built under torch.inference_mode and cannot be trained: build it outside")


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """The mode of training and gradients, whatever is set around; afterwards the mode of evaluation."""
    with torch.inference_mode(False), torch.enable_grad():
        model.train()
        try:
            yield
        finally:
            model.eval()


def _drawn_ahead(draw: Callable[[int], Drawn], first: Drawn, steps: range) -> Generator[Drawn]:
    """The batches of these steps, each drawn while the one before it is in use."""
    with ThreadPoolExecutor(1) as background:
        for step in steps:
            upcoming = background.submit(draw, step + 1) if step + 1 in steps else None
            yield first
            if upcoming is not None:
                first = upcoming.result()


def _check_lessons(lessons: list[Task]) -> None:
    for lesson in lessons:
        check_task(lesson)
    if not lessons or len({lesson.metric for lesson in lessons}) > 1:
        raise ValueError(f"lessons are tasks, at least one, all of one metric, got {lessons}")


def _schedule(step: int, steps: int, warmup: int) -> float:
    """The learning rate of a step, as a share of its peak."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / max(1, warmup)) * (0.01 + 0.99 * cosine)


class _Loss(nn.Module):
    """The loss as the forward pass of a module, the form in which processes can share it."""

    def __init__(self, model: TrainableMemory, where: torch.device, precision: str, late: bool = False):
        super().__init__()
        self.model, self.device_type, self.precision, self.late = model, where.type, precision, late

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            loss, recalled = reconstruction_loss(self.model, batch, self.late)
        return loss, recalled.detach()
