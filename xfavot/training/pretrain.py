"""What `notebooks/pretrain.ipynb` calls, and the one place to import pretraining from (A28).

The F0 and the content network are trained in `supervised.py`, kept and found by `auxiliary.py`,
measured in `measures.py`; their clips and labels come from `labels.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import Standardiser
from xfavot.config import Pretraining
from xfavot.data.manifest import Store, mel_statistics
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training import labels, measures
from xfavot.training.auxiliary import (
    Auxiliary,
    Trained,
    ensure_auxiliary,
    ensure_network,
    load_network,
)
from xfavot.training.supervised import Log, train_content, train_f0

__all__ = [
    "Auxiliary",
    "Pretrained",
    "Trained",
    "ensure_auxiliary",
    "ensure_network",
    "load_network",
    "pretrain",
    "train_content",
    "train_f0",
]


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What :func:`pretrain` trained or found, with the data to show it on."""

    networks: dict[str, Trained]
    stores: tuple[Store, ...]
    standardiser: Standardiser

    def summary(self) -> str:
        """Say each network's held-out measures in one line."""
        return "\n".join(f"{name}: {found.summary()}" for name, found in self.networks.items())

    def tracks(self) -> dict[str, NDArray[np.float32]]:
        """Return F0 of one clip, held out if there is one: WORLD's and the F0 network's."""
        clip = self._clips("f0")[0]
        network = self.networks["f0"].network if "f0" in self.networks else None
        return measures.example_tracks(clip, cast(F0Network | None, network), self.standardiser)

    def transcripts(self, count: int = 6) -> str:
        """Return what is said in some clips, held out if there are any, and what is heard."""
        network = self.networks["content"].network if "content" in self.networks else None
        return measures.example_transcripts(
            self._clips("transcript")[:count],
            cast(ContentNetwork | None, network),
            self.standardiser,
        )

    def _clips(self, needs: str) -> list[labels.Clip]:
        """Clips of the first of val, unseen and train that has any."""
        splits = (*measures.HELD_OUT, "train")
        found = (measures.held_out(self.stores, split, needs=needs) for split in splits)
        return next((clips for clips in found if clips), [])


def pretrain(task: Pretraining, *, on_log: Log | None = None) -> Pretrained:
    """Train what `notebooks/pretrain.ipynb` asks for, or load what is kept already.

    Args:
        task: networks and the run they are for, from :func:`xfavot.config.resolve_pretrain`.
        on_log: as in :func:`ensure_network`.

    Returns:
        The networks, and the stores they were trained for.

    Raises:
        DataError: a prepared store is missing or damaged, or none has speech.
        WeightsError: no transcripts for the content network.
        TrainingError: the loss is not finite, or a network cannot be written.
    """
    from xfavot.training.stores import open_stores

    cfg = task.run
    stores = open_stores(cfg, lambda text: on_log({"message": text}) if on_log else None)
    standardiser = mel_statistics(stores, split="train")
    networks = {n: ensure_network(n, cfg, stores, standardiser, on_log) for n in task.networks}
    return Pretrained(networks, tuple(stores), standardiser)
