"""Make weights files refer to the coders that they share with another one, instead of repeating them.

    python tools/share_coders.py [FOLDER]

FOLDER is data/checkpoints if none is named. `python -m ebmm train` writes files that way by itself; this is for files
that repeat coders all the same. One whose coders differ from those it started from stays as it is, and so does one
that refers to them already. Run data/make_registry.py afterwards.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ebmm.experiments import EXPERIMENTS, load_contestant
from ebmm.experiments.weights import save_weights


def share(folder: Path) -> dict[str, int]:
    """Shorten the weights files of a folder, and tell by how many bytes each."""
    saved = {}
    for name, experiment in EXPERIMENTS.items():
        for contestant, chosen in experiment.contestants.items():
            path, coders = (folder / f"{name}-{one}.safetensors" for one in (contestant, chosen.start))
            if chosen.start is None or not path.exists():
                continue
            before = path.stat().st_size
            model, training = load_contestant(name, contestant, path)
            save_weights(model, path, training, coders)
            saved[path.name] = before - path.stat().st_size
    return {name: amount for name, amount in saved.items() if amount}


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "data/checkpoints")
    saved = share(folder)
    for name, amount in saved.items():
        print(f"{name:<48} {amount / 1e6:6.2f} MB less")
    left = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"{sum(saved.values()) / 1e6:.1f} MB less, {left / 1e6:.1f} MB left in {folder}")
