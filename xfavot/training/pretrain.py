"""What `notebooks/pretrain.ipynb` calls, and the one place to import pretraining from (A28).

The F0 and the content network are trained in `supervised.py`, found by `auxiliary.py`, kept by
`keeping.py`, measured in `measures.py`; their clips and labels come from `labels.py`. The vocoder
is trained in `vocoding.py`, kept and found by `vocoder_keeping.py`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import Standardiser
from xfavot.audio.vocoder import GriffinLim, Vocoder
from xfavot.config import VOCODER, Pretraining
from xfavot.data.manifest import Store, mel_statistics
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training import labels, measures
from xfavot.training.auxiliary import Auxiliary, ensure_auxiliary, ensure_network
from xfavot.training.keeping import Trained, load_network
from xfavot.training.supervised import Log, train_content, train_f0
from xfavot.training.vocoder_keeping import KeptVocoder, ensure_vocoder

__all__ = [
    "Auxiliary",
    "KeptVocoder",
    "Pretrained",
    "Trained",
    "ensure_auxiliary",
    "ensure_network",
    "ensure_vocoder",
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
    vocoder: KeptVocoder | None = None

    def summary(self) -> str:
        """Say each network's held-out measures in one line."""
        found: dict[str, Trained | KeptVocoder] = dict(self.networks)
        found |= {VOCODER: self.vocoder} if self.vocoder else {}
        return "\n".join(f"{name}: {network.summary()}" for name, network in found.items())

    def tracks(self) -> dict[str, NDArray[np.float32]]:
        """Return F0 of one clip, held out if there is one: WORLD's, and the networks' own."""
        clip = self._clips("f0")[0]
        network = self.networks["f0"].network if "f0" in self.networks else None
        tracks = measures.example_tracks(clip, cast(F0Network | None, network), self.standardiser)
        if self.vocoder:
            tracks["vocoder"] = self.vocoder.vocoder.find_f0(clip.log_mel()).numpy()
        return tracks

    def vocoders(self) -> tuple[Vocoder, ...]:
        """Return the vocoder that was trained or found, and Griffin-Lim; none if none was asked."""
        return (self.vocoder.vocoder, GriffinLim()) if self.vocoder else ()

    def losses(self) -> list[dict[str, float]]:
        """Return the records of the vocoder's training; empty if none was asked for."""
        return self.vocoder.losses() if self.vocoder else []

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
        CheckpointError: the state of a stopped training of the vocoder is damaged.
    """
    from xfavot.training.stores import open_stores

    cfg = dataclasses.replace(
        task.run, pretrain=dataclasses.replace(task.run.pretrain, source="train")
    )
    stores = open_stores(cfg, lambda text: on_log({"message": text}) if on_log else None)
    standardiser = mel_statistics(stores, split="train")
    frozen = [name for name in task.networks if name != VOCODER]
    networks = {n: ensure_network(n, cfg, stores, standardiser, on_log) for n in frozen}
    asked = VOCODER in task.networks
    vocoder = ensure_vocoder(cfg, stores, standardiser, on_log) if asked else None
    return Pretrained(networks, tuple(stores), standardiser, vocoder)
