"""The command line: ``ebmm list | train NAME | evaluate NAME | course OUT | grade SUBMISSIONS``.

``python -m ebmm`` does the same.

``torchrun --nproc-per-node=N -m ebmm train NAME`` trains in N processes, one for each GPU where there are some.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from pathlib import Path
from typing import NoReturn

from ebmm import experiments
from ebmm.machine import PRECISIONS, process_group, rank_and_processes
from ebmm.results import check_results, save_results
from ebmm.training import TrainingError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    given = parser().parse_args(arguments)
    try:
        commands = {"list": _list, "train": _train, "evaluate": _evaluate, "course": _course, "grade": _grade}
        commands[given.command](given)
    except (ValueError, OSError, ImportError, TrainingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {_kept(given)}", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    called = "ebmm" if Path(sys.argv[0]).stem == "ebmm" else "python -m ebmm"
    whole = argparse.ArgumentParser(prog=called, description="Train and evaluate the book's experiments.")
    commands = whole.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list experiments and their models")

    train = commands.add_parser("train", help="train a model; the same command resumes an interrupted run")
    train.add_argument("name")
    train.add_argument("--model", help="default: the experiment's first")
    train.add_argument("--out", type=Path, help="default: checkpoints/NAME-MODEL.safetensors")
    train.add_argument("--steps", type=int, help="instead of the experiment's own number")
    train.add_argument(
        "--memories", type=int, help="a step, over all processes, instead of the experiment's own number"
    )
    train.add_argument("--precision", choices=PRECISIONS, help="of products; default: the experiment's own or float32")
    train.add_argument(
        "--compile",
        nargs="?",
        const=True,
        choices=["whole"],
        help="compile its gradients, or with 'whole' all of writing and reading: minutes once, then less time a step",
    )
    train.add_argument("--device", default="auto")
    train.add_argument("--seed", type=int, default=0)

    evaluate = commands.add_parser("evaluate", help="evaluate models from the shipped weights or your own")
    evaluate.add_argument("name")
    evaluate.add_argument("--model", help="default: every model that can be evaluated")
    evaluate.add_argument("--memories", type=int, default=1000)
    evaluate.add_argument("--weights", type=Path, help="a file that train wrote, in the place of the shipped one")
    evaluate.add_argument("--device", default="auto")
    evaluate.add_argument("--seed", type=int, default=1)
    evaluate.add_argument("--out", type=Path, help="add the rows to this JSON file")
    evaluate.add_argument("--show", type=int, metavar="N", help="save a picture of N patterns, NAME-MODEL.png")

    course = commands.add_parser("course", help="write the chapters for a course, or their figures for slides")
    course.add_argument("out", type=Path, help="the folder to write into")
    course.add_argument(
        "--format", default="plain", choices=["plain", "gradescope", "nbgrader", "otter"], help="default: plain"
    )
    course.add_argument("--without-solutions", action="store_true", help="an empty answer instead of each solution")
    course.add_argument("--chapters", type=int, nargs="+", default=[], metavar="N", help="these alone")
    course.add_argument("--points", type=Path, help='a JSON file such as {"3.2": 2}; an exercise is worth 1 without')
    course.add_argument("--seed", type=int, default=0, help="draw other numbers for the exercises; 0: the book's")
    course.add_argument("--wheelhouse", action="store_true", help="download the wheels that a grader installs, too")
    course.add_argument("--without-torch", action="store_true", help="with --wheelhouse: leave PyTorch out")
    course.add_argument("--figures", action="store_true", help="run the chapters and write their figures instead")
    course.add_argument("--fast", action="store_true", help="with --figures: compute less")

    grade = commands.add_parser("grade", help="grade notebooks that were handed in")
    grade.add_argument("submissions", type=Path, help="a notebook, a folder, or a ZIP file from Canvas or Moodle")
    grade.add_argument("--csv", type=Path, help="write a table of marks, a row for each student")
    grade.add_argument("--gradescope", type=Path, help="write results.json for one student instead")
    grade.add_argument("--chapters", nargs="+", default=[], help="such as 3; default: those that notebooks hold")
    grade.add_argument("--points", type=Path, help='a JSON file such as {"3.2": 2}; all others are worth 1')
    grade.add_argument("--roster", type=Path, help="a CSV file of all students, from Canvas or Moodle")
    grade.add_argument("--seed", type=int, default=0, help="of the variant that the course was exported with")
    grade.add_argument("--seconds", type=float, default=600, help="for one notebook; default: 600")
    grade.add_argument("--gigabytes", type=float, default=4, help="of memory for one notebook; default: 4")
    return whole


def _kept(given: argparse.Namespace) -> str:
    """What an interrupted command leaves, and how to go on."""
    if given.command == "train":
        checkpoint = experiments.checkpoint_of(_weights_to_write(given))
        if checkpoint.exists():
            return f"{checkpoint} keeps the steps up to the last save, and the same command goes on from there"
        return "no step has been saved yet, and the same command starts anew"
    if given.command == "grade" and given.csv:
        return "marks that were found are kept in the file of marks, and the same command starts anew"
    if given.command == "evaluate":
        where = f"are kept in {given.out}" if given.out else "are kept only with --out"
        return f"rows that were shown {where}; --model evaluates one of the others"
    return "what has been written so far stays, and the same command starts anew"


def _weights_to_write(given: argparse.Namespace) -> Path:
    return given.out or Path("checkpoints") / f"{given.name}-{given.model}.safetensors"


def _list(given: argparse.Namespace) -> None:
    for experiment in experiments.EXPERIMENTS.values():
        print(f"{experiment.name:<16} {experiment.about}")
        print(f"{'':<16} models: {', '.join(experiment.contestants)}")


def _train(given: argparse.Namespace) -> None:
    given.model = given.model or experiments.find(given.name)[1][0]
    out = _weights_to_write(given)
    with process_group(given.device):
        history = experiments.train(
            given.name, given.model, out, device=given.device, seed=given.seed, steps=given.steps,
            memories=given.memories, precision=given.precision, compile=given.compile or None,
        )  # fmt: skip
        if rank_and_processes()[0] == 0:
            print(
                f"{len(history.rows)} steps in {history.seconds / 60:.1f} minutes, {history.skipped} skipped, "
                f"{history.returns} returns: {out}"
            )


def _evaluate(given: argparse.Namespace) -> None:
    experiment, contestants = experiments.find(given.name, given.model)
    if given.out is not None:
        check_results(given.out)
    own = given.model
    if given.model is None:
        own = experiments.owner_of(given.weights, given.name) if given.weights else None
        missing = [one for one in contestants if one != own and not experiments.is_ready(given.name, one)]
        contestants = [one for one in contestants if one not in missing]
        if missing:
            print(f"without weights, to be trained for {experiment.weights or given.name} first: {', '.join(missing)}")
        if not contestants:
            raise ValueError(f"nothing of {given.name} can be evaluated yet")
    print(f"{'model':<24} {'floats':>7} {'mean':>8} {'5 %':>8} {'95 %':>8}")
    for contestant in contestants:
        weights = given.weights if contestant == own else None
        ready = experiments.ready(given.name, contestant, weights=weights, device=given.device)
        picture = (given.out.parent if given.out else Path()) / f"{given.name}-{contestant}.png"
        if given.show is not None:
            from ebmm.book.plotting import show_contestant

            show_contestant(ready, given.show, picture, seed=given.seed)
        row = ready.evaluate(given.memories, given.seed)
        if given.out is not None:
            save_results([row], given.out)
        print(f"{contestant:<24} {row['memory_floats']:>7} {row['mean']:>8.3f} {row['p5']:>8.3f} {row['p95']:>8.3f}")
        if given.show is not None:
            print(f"{'':<24} shown in {picture}")


def _course(given: argparse.Namespace) -> None:
    from ebmm.book import course
    from ebmm.book.exercises.variant import whole_seed

    if given.figures and given.without_solutions:
        raise ValueError("figures come from the chapters with their solutions: --figures or --without-solutions")
    if given.figures and (given.format != "plain" or given.points or given.seed or given.wheelhouse):
        raise ValueError("figures are the book's: --format, --points, --seed and --wheelhouse do not go with --figures")
    if given.fast and not given.figures:
        raise ValueError("--fast goes with --figures")
    if given.without_torch and not given.wheelhouse:
        raise ValueError("--without-torch goes with --wheelhouse")
    chapters, seed = course.chapters(given.chapters), whole_seed(given.seed)
    if given.figures:
        written = course.figures(given.out, [path.stem for path in chapters], fast=given.fast)
    else:
        points = course.read_points(given.points) if given.points else None
        written = course.export(
            given.out, not given.without_solutions, given.format, given.chapters, points, seed,
            course.wheelhouse(given.out / "wheelhouse", not given.without_torch) if given.wheelhouse else (),
        )  # fmt: skip
    print(f"{len(written)} files written into {given.out}")


def _grade(given: argparse.Namespace) -> None:
    from ebmm.book.exercises.variant import whole_seed
    from ebmm.book.grading import command, fence
    from ebmm.book.grading.limits import Limits

    if (given.csv is None) == (given.gradescope is None):
        raise ValueError("say where the marks go: --csv marks.csv for all students, --gradescope results.json for one")
    if given.gradescope and given.roster:
        raise ValueError("--roster goes with --csv")
    asked = {
        "chapters": given.chapters, "points": given.points, "seed": whole_seed(given.seed),
        "limits": Limits(given.seconds, int(given.gigabytes * 2**30)),
    }  # fmt: skip
    print(fence.protections())
    if given.gradescope:
        mark = command.grade_for_gradescope(given.submissions, given.gradescope, **asked)
        print(f"{mark.total:g} points: {given.gradescope}")
        return
    for mark in command.grade(given.submissions, given.csv, roster=given.roster, **asked):
        print(f"{mark.student:<24} {mark.total:>6g}  {mark.trouble}", flush=True)
    print(f"written into {given.csv}")


def run() -> NoReturn:
    """The command of a shell: one command, and the end of the process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a student's name may have letters that a terminal has not
    status = main()
    if status == 130:  # an ordinary end may abort, where it meets threads of PyTorch that were interrupted at work
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
