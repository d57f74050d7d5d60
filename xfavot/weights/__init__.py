"""Weights that this project trained and ships, one safetensors file and one model card a network.

Trained only on `mini` and on speech under CC BY 4.0 (VCTK, LibriSpeech). The header of a file holds
a JSON record: network, mel contract, arguments, training, measures.
"""

from __future__ import annotations

from pathlib import Path

from xfavot.errors import WeightsError
from xfavot.strict import nearest

FOLDER = Path(__file__).resolve().parent


def available() -> tuple[str, ...]:
    """Names of the networks whose weights are here."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def shipped(name: str) -> Path:
    """Return the weights of a network that come with the package.

    Raises:
        WeightsError: there are none of that name.
    """
    path = FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise WeightsError(
            f"no weights of {name!r} come with the package; {nearest(name, available())}"
        )
    return path
