"""Training in two processes that torchrun started. Run as a script, this file is what each of the two does."""

import json
import math
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

import ebmm
from ebmm import EBMM, History, Memory, Task, fit, training
from ebmm.__main__ import main
from ebmm.energies import GatedRNNEnergy
from ebmm.experiments import runs
from ebmm.machine import process_group, rank_and_processes
from ebmm.tasks import FlipBits, RandomBits

QUIET = {"progress": False, "device": "cpu"}
RUN = {"steps": 20, "memories": 4, "save_every": 5, "learning_rate": 1e-2, "warmup": 0} | QUIET


class Dies:
    """A corruption that kills its process by the time the batch of the given step is drawn; None: never."""

    def __init__(self, step=None):
        self.step, self.calls = step, 0

    def __call__(self, patterns, generator):
        self.calls += 1
        if self.step is not None and self.calls > self.step * RUN["memories"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return FlipBits(0.1)(patterns, generator)

    def __getstate__(self):  # when it kills is no part of the run
        return {}


class LostInOne(nn.Module):
    """A memory whose loss is not finite in the second of two processes at step 2, though its gradient is."""

    def __init__(self):
        super().__init__()
        self.gain, self.step = nn.Parameter(torch.tensor(0.5)), -1

    def write(self, patterns):
        self.step += 1
        assert len(patterns) == RUN["memories"] / 2
        return Memory({"patterns": patterns})

    def read(self, query, memory, trajectory=False):
        x = query * self.gain
        if self.step == 2 and rank_and_processes()[0] == 1:
            x = x + math.nan * torch.ones(())
        return (x, torch.stack([query, x])) if trajectory else x


def gated_model(**options):
    """Its gradients go through all that writing and reading can do; the bias of its head gets none."""
    torch.manual_seed(0)
    return EBMM(GatedRNNEnergy(8, memory_features=4, hidden=8, hops=2), write_steps=2, read_steps=3, **options)


def task(corruption=None):
    return Task(RandomBits(8), corruption or FlipBits(0.1), number=3)


def outcome(model, history):
    return {"model": model.state_dict(), "rows": history.rows, "skipped": history.skipped}


def in_each_process(folder, step):
    """All that the tests below look at, of both processes; the last run dies in the first at ``step``."""
    with process_group("cpu"):
        rank, processes = rank_and_processes()
        assert processes == 2
        ends = {}
        models = {"gated": gated_model(), "recomputed": gated_model(recompute=True), "lost": LostInOne()}
        for name, model in models.items():
            own = folder / f"{name}-{rank}.training"
            ends[name] = outcome(model, fit(model, task(), checkpoint=own, **RUN))
            if rank == 0:
                assert own.exists()
                own.unlink()
        model = gated_model()
        corruption = Dies(step if rank == 0 else None)
        history = fit(model, task(corruption), checkpoint=folder / "deadly.training", **RUN)
        torch.save(ends | {"deadly": outcome(model, history)}, folder / f"end-{rank}.pt")


def torchrun(*arguments, processes=2):
    """Run in several processes; the exit status, what was printed and what was logged."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}", *map(str, arguments)]
    places = os.pathsep.join([str(Path(ebmm.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": places}, **pipes) as process:
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.terminate()  # ends the two as well, which SIGKILL would leave alone
            raise
    return process.returncode, out, err


def assert_alike(first, second, exactly=False):
    """Two outcomes agree up to rounding, or bit for bit."""
    close = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(first["model"], second["model"], **close)
    torch.testing.assert_close(first["rows"], second["rows"], **close)
    assert first["skipped"] == second["skipped"]


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """The folder of two processes that were killed once and started again, and what each came to."""
    folder = tmp_path_factory.mktemp("two processes")
    status, _, said = torchrun(__file__, folder, 12)
    assert status != 0 and "SIGKILL" in said, said[-3000:]
    assert not list(folder.glob("end-*"))
    saved = torch.load(folder / "deadly.training", weights_only=True)
    assert len(saved["history"]["rows"]) == 10
    status, _, said = torchrun(__file__, folder, 99)
    assert status == 0, said[-3000:]
    return folder, [torch.load(folder / f"end-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["gated", "recomputed"])
def test_two_processes_train_what_one_trains(ends, name):
    model = gated_model()
    alone = outcome(model, fit(model, task(), **RUN))
    assert_alike(ends[1][0][name], alone)
    assert not torch.allclose(alone["model"]["raw_read_rate"], gated_model().raw_read_rate, atol=1e-3)


@pytest.mark.parametrize("name", ["gated", "recomputed", "lost", "deadly"])
def test_both_processes_come_to_the_same_and_only_the_first_saves(ends, name):
    folder, (first, second) = ends
    torch.testing.assert_close(first[name], second[name], rtol=0, atol=0, equal_nan=True)
    assert len(first[name]["rows"]) == 20
    assert [path.name for path in folder.glob("*.training")] == ["deadly.training"]


def test_killed_and_resumed_is_the_unbroken_run_bit_for_bit(ends):
    first, _ = ends[1]
    assert_alike(first["deadly"], first["gated"], exactly=True)


def test_a_step_that_is_not_finite_in_one_process_is_skipped_by_both(ends):
    for end in ends[1]:
        losses = [row["loss"] for row in end["lost"]["rows"]]
        assert end["lost"]["skipped"] == 1 and [math.isfinite(loss) for loss in losses].index(False) == 2
        assert sum(map(math.isfinite, losses)) == 19


@pytest.mark.parametrize("processes", [2, 4])
def test_the_command_trains_in_several_processes_with_one_log(processes, tmp_path, capsys):
    arguments = ["train", "flipped-64-16", "--steps", "4", "--device", "cpu", "--seed", "3", "--out"]
    status, out, log = torchrun("-m", "ebmm", *arguments, tmp_path / "many.safetensors", processes=processes)
    assert status == 0, log[-3000:]
    assert out.count("4 steps in") == 1 and log.count("0/4 [") == 1 and "Warning" not in log
    assert main([*arguments, str(tmp_path / "one.safetensors")]) == 0
    one, many = (torch.load(tmp_path / f"{name}.safetensors.training", weights_only=True) for name in ("one", "many"))
    one, many = ({"model": run["model"], **run["history"]} for run in (one, many))
    assert_alike(one, many)
    assert len(many["rows"]) == 4
    with safe_open(tmp_path / "many.safetensors", framework="pt") as file:
        metadata = json.loads(file.metadata()["training"])
        for name in file.keys():  # noqa: SIM118
            torch.testing.assert_close(file.get_tensor(name).float(), one["model"][name], rtol=1e-2, atol=1e-3)
    assert metadata["processes"] == processes
    assert shlex.split(metadata["command"])[:5] == ["torchrun", f"--nproc-per-node={processes}", "-m", "ebmm", "train"]


def test_memories_that_cannot_be_shared_equally_are_refused(monkeypatch):
    monkeypatch.setattr(training, "rank_and_processes", lambda: (0, 3))
    with pytest.raises(ValueError, match="multiple of the number of processes, got 4 memories and 3 processes"):
        fit(gated_model(), task(), **RUN)


def test_processes_that_start_at_different_steps_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "rank_and_processes", lambda: (0, 2))
    monkeypatch.setattr(torch.distributed, "all_gather_object", lambda all_, own: all_.__setitem__(1, own + 20))
    with pytest.raises(ValueError, match=r"run.training must be the same file .* start at steps \[0, 20\]"):
        fit(gated_model(), task(), checkpoint=tmp_path / "run.training", **RUN)


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_writes_weights(rank, monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "rank_and_processes", lambda: (rank, 2))
    monkeypatch.setattr(runs, "fit", lambda *_, **__: History())
    runs.train("flipped-64-16", "ebmm-predictive", tmp_path / "weights.safetensors", device="cpu")
    assert (tmp_path / "weights.safetensors").exists() is (rank == 0)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_each_process_takes_its_own_gpu_and_leaves_the_group_in_the_end(device, monkeypatch):
    did = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: did.append(number))
    monkeypatch.setattr(torch.distributed, "init_process_group", did.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: did.append("left"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    for size in ("2", "1"):
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(KeyboardInterrupt), process_group(device):
            raise KeyboardInterrupt
    assert did == ([1, "nccl", "left"] if device == "cuda" else ["gloo", "left"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    in_each_process(Path(sys.argv[1]), int(sys.argv[2]))
