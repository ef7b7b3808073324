"""The recipes for clusters: sound in syntax, and their command is one that this package knows."""

import os
import shlex
import subprocess

import pytest
import yaml
from conftest import ROOT

from ebmm.__main__ import parser
from ebmm.experiments import EXPERIMENTS

SLURM, KUBERNETES = (ROOT / "tools" / "cluster" / name for name in ("train.slurm", "pytorchjob.yaml"))
RUN = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4", "SLURM_JOB_ID": "7", "OUT": "/o"}


def slurm_command(tmp_path, *arguments):
    """What the job would start on each machine, with stand-ins for SLURM's own programs."""
    for name, does in (("srun", 'printf "%s\\n" "$@"'), ("scontrol", "printf 'a1\\na2\\n'")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    places = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", str(SLURM), *arguments], env=RUN | {"PATH": places}, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def job():
    return yaml.safe_load(KUBERNETES.read_text())


def kubernetes_command(role):
    (container,) = job()["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"]
    return container["command"]


def check(command, processes):
    """``torchrun … -m ebmm train …``: known options, and memories that so many processes can share."""
    assert command[0] == "torchrun"
    given = parser().parse_args(command[command.index("ebmm") + 1 :])
    assert given.command == "train" and given.model in EXPERIMENTS[given.name].contestants
    assert given.memories % processes == 0 and given.device == "cuda"
    return given


def test_bash_accepts_the_slurm_job_and_its_directives_come_first():
    assert subprocess.run(["bash", "-n", str(SLURM)], check=False).returncode == 0
    lines = SLURM.read_text().splitlines()
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH ")]
    first_command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert len(directives) >= 5 and max(directives) < first_command, "SLURM stops looking at the first command"
    assert all("=" in shlex.split(lines[n])[1] for n in directives)


def test_slurm_starts_one_job_on_all_machines(tmp_path):
    status, command, said = slurm_command(tmp_path, "imagenet64-conv", "ebmm-paper")
    assert status == 0, said
    given = check(command, processes=8)
    assert given.memories == 16 and str(given.out) == "/o/imagenet64-conv-ebmm-paper.safetensors"
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=a1:29500", "--rdzv-id=7"} <= set(command)


def test_slurm_without_a_model_stops(tmp_path):
    assert slurm_command(tmp_path, "imagenet64-conv")[0] != 0


@pytest.mark.parametrize("role", ["Master", "Worker"])
def test_kubernetes_starts_the_same_on_all_pods(role):
    machines = sum(replica["replicas"] for replica in job()["spec"]["pytorchReplicaSpecs"].values())
    check(kubernetes_command(role), processes=machines * int(job()["spec"]["nprocPerNode"]))
    assert kubernetes_command(role) == kubernetes_command("Master")


def test_the_kubernetes_job_is_whole():
    assert job()["apiVersion"] == "kubeflow.org/v1" and job()["kind"] == "PyTorchJob"
    for replica in job()["spec"]["pytorchReplicaSpecs"].values():
        pod = replica["template"]["spec"]
        (container,) = pod["containers"]
        assert container["name"] == "pytorch", "the operator looks for this name"
        gpus = container["resources"]["limits"]["nvidia.com/gpu"]
        assert str(gpus) == job()["spec"]["nprocPerNode"]
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}
