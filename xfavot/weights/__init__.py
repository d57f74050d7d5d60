"""Weights that this project trained and ships, one safetensors file and one model card a network.

Trained only on `mini` and on speech under CC BY 4.0 (VCTK, LibriSpeech). The header of a file holds
a JSON record: network, mel contract, arguments, training, measures.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MODEL = FOLDER / "model"  # a checkpoint of XFaVoT, see `xfavot.training.checkpoint.export`


def shipped(name: str) -> Path:
    """The weights of a network that come with the package: "f0", "content", "source_filter" ..."""
    return FOLDER / f"{name}.safetensors"
