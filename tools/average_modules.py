"""Write a checkpoint whose module has the weighted mean of other checkpoints' parameters.

    python -m tools.average_modules runs/<run> OUT G_A runs/<run>=0.5 runs/<other>=0.5

OUT is the first checkpoint, as `fit_layers` writes one, with the module averaged; with one other
checkpoint of weight 1, that one's module. Trainings that began at the same weights may be averaged
(Wortsman et al. 2022), and so may steps of one training.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from xfavot.config import GENERATOR_SIDE
from xfavot.training.checkpoint import export, load_model, pretrained
from xfavot.training.step import DISCRIMINATOR_SIDE


def averaged(module: str, parts: Mapping[Path, float]) -> dict[str, Tensor]:
    """Weighted means of a module's tensors, by name; of the averages over steps (A19)."""
    found = dict[str, Tensor]()
    for path, weight in parts.items():
        for name, value in load_model(path).nets.get_submodule(module).state_dict().items():
            whole = f"{module}.{name}"
            found[whole] = found.get(whole, 0.0) + weight * value.double()
    return found


def main() -> None:
    """Write the checkpoint with the mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pretrained)
    parser.add_argument("out", type=Path, help="not there yet")
    parser.add_argument("module", choices=(*GENERATOR_SIDE, *DISCRIMINATOR_SIDE))
    parser.add_argument("parts", nargs="+", metavar="CHECKPOINT=WEIGHT")
    given = parser.parse_args()
    split = (part.rpartition("=") for part in given.parts)
    parts = {pretrained(path): float(weight) for path, _, weight in split}
    if not math.isclose(sum(parts.values()), 1.0, abs_tol=1e-6):
        sys.exit(f"weights are {sorted(parts.values())}; expected a sum of 1; change them")
    export(given.checkpoint, given.out, instead=averaged(given.module, parts))


if __name__ == "__main__":
    main()
