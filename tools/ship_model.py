"""Make a run the model that comes with the package: `xfavot/weights/model/`.

python -m tools.ship_model runs/<run>    its newest checkpoint, or name one
"""

from __future__ import annotations

import argparse
import shutil

from xfavot import weights
from xfavot.training.checkpoint import export, locate


def main() -> None:
    """Replace the model of the package; the same checkpoint gives the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    wanted = locate(parser.parse_args().checkpoint)  # before anything is deleted
    shutil.rmtree(weights.MODEL, ignore_errors=True)
    export(wanted, weights.MODEL)


if __name__ == "__main__":
    main()
