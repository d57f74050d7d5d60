"""The frozen networks and the vocoder of a run: found, shipped or trained (A28).

The F0 and the content network are trained in `speech.py` and kept by `keeping.py`; the vocoder is
trained and kept in `vocoder.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from xfavot import __version__
from xfavot.audio.mel import MEL, Standardiser
from xfavot.audio.vocoder import GriffinLim, Vocoder
from xfavot.config import VOCODER, ModelConfig, RunConfig, key_of
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import DataError, WeightsError
from xfavot.models import device_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training import speech
from xfavot.training.keeping import Trained, keep, load_network, shipped_network
from xfavot.training.speech import Log, content_shape, train_content, train_f0
from xfavot.training.vocoder import KeptVocoder, ensure_vocoder

# The two networks that stay frozen in the GAN, F0 and content: found, shipped or trained (A28)


SCHEMA = 2
RECIPE = 2  # raise when training changes, so that kept weights are not taken for new ones
FALLBACK_CORPUS = "mini"
MIN_TRANSCRIBED = 100  # training clips; with fewer, the fallback stores join in


def ensure_network(
    name: str,
    cfg: RunConfig,
    stores: Sequence[Store],
    standardiser: Standardiser,
    on_log: Log | None = None,
    *,
    fallback_stores: Sequence[Store] | None = None,
) -> Trained:
    """Load one of the two networks, or train it and keep it in `<run_root>/auxiliary/`.

    Args:
        name: "f0" or "content".
        cfg: run_root, seed, model widths, `pretrain` and `train.device` are read.
        stores: prepared stores of the run.
        standardiser: mel statistics of the run.
        on_log: receives records of progress: network, step, steps and terms, or a message.
        fallback_stores: stores with transcripts that join in when the run's own have few; None
            looks for the prepared corpus `mini` under `cfg.data_root`, and makes it when the run's
            own stores have no transcript at all and the network has to be trained.

    Returns:
        The network on the CPU, frozen.

    Raises:
        DataError: no speech to train the F0 network on.
        WeightsError: no transcripts for the content network, the kept files are damaged, or
            `pretrain.source` is "shipped" and no network of these widths comes with the package.
        TrainingError: the loss is not finite, or the network cannot be written.
    """

    def say(message: str) -> None:
        if on_log is not None:
            on_log({"message": message})

    source, sizes = cfg.pretrain.source, _sizes(name, cfg.model)
    ready = None if source == "train" else shipped_network(name, sizes, standardiser)
    if source == "shipped" and ready is None:
        raise WeightsError(
            f"pretrain.source is 'shipped', but no {name} network of {sizes} comes with the "
            "package; expected the widths of preset mini; set pretrain.source to auto"
        )
    stores = [store for store in stores if any(item.frame_count for item in store.items)]
    if name == "content":
        stores += _fallback(cfg, stores, fallback_stores, say if ready is None else None)
    recipe = _recipe(name, cfg, stores, standardiser)
    key = key_of(recipe)
    folder = Path(cfg.run_root) / "auxiliary" / f"{name}_{key}"
    kept = folder.is_dir()
    if ready is not None and (source == "shipped" or not kept):
        say(f"{name} network that comes with the package: {ready.headline()}")
        return ready
    if not kept:
        _train_and_keep(folder, stores, standardiser, cfg, recipe, on_log)
    trained = load_network(folder)
    say(f"{name} network {'found' if kept else 'kept'} in {folder}: {trained.headline()}")
    return trained


def _train_and_keep(
    folder: Path,
    stores: Sequence[Store],
    standardiser: Standardiser,
    cfg: RunConfig,
    recipe: Mapping[str, Any],
    on_log: Log | None,
) -> None:
    """Train the network of a recipe and write it with a record of its training."""
    name = recipe["network"]
    train: Callable[..., tuple[F0Network | ContentNetwork, dict[str, float]]]
    train = train_f0 if name == "f0" else train_content
    network, measures = train(
        stores,
        model=cfg.model,
        standardiser=standardiser.to("cpu"),
        device=device_of(cfg.train.device),
        on_log=on_log,
        **recipe["schedule"],
    )
    clips = speech.clips_of(stores, "train", needs="f0" if name == "f0" else "transcript")
    used = [store for store in stores if any(clip.store is store for clip in clips)]
    training = {
        "software": f"xfavot {__version__}",
        "data": {store.corpus: speech.data_of(store, clips) for store in used},
    }
    keep(folder, network, {**recipe, "training": training, "measures": measures})


def _sizes(name: str, model: ModelConfig) -> dict[str, int]:
    """What the network's constructor takes."""
    if name == "f0":
        return {"mel_bins": model.mel_bins, "f0_width": model.f0_width}
    widths = {"content_width": model.content_width, "content_channels": model.content_channels}
    return {"mel_bins": model.mel_bins, **widths, "depth": content_shape(model)[0]}


def _recipe(
    name: str, cfg: RunConfig, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, Any]:
    """Everything that the weights follow from, as it is hashed into the key and written beside."""
    p = cfg.pretrain
    steps, lr = (p.f0_steps, p.f0_lr) if name == "f0" else (p.content_steps, p.content_lr)
    return {
        "schema": SCHEMA,
        "recipe": RECIPE,
        "network": name,
        "contract": MEL.as_dict(),
        "arguments": _sizes(name, cfg.model),
        "crop_frames": cfg.model.mel_frames if name == "f0" else 0,
        "schedule": {"steps": steps, "lr": lr, "batch_size": p.batch_size, "seed": cfg.seed},
        "manifests": {store.corpus: store.manifest_hash for store in stores},
        "standardiser": {"mean": standardiser.mean.tolist(), "std": standardiser.std.tolist()},
    }


def _fallback(
    cfg: RunConfig,
    stores: Sequence[Store],
    given: Sequence[Store] | None,
    say: Callable[[str], None] | None,
) -> list[Store]:
    """Stores that join in because the run's own have few transcripts; see ensure_network.

    Without `say` nothing is made: another network is ready.
    """
    own = len(speech.clips_of(stores, "train", needs="transcript"))
    if own >= MIN_TRANSCRIBED or any(store.corpus == FALLBACK_CORPUS for store in stores):
        return []
    if given is None:
        there = Path(cfg.data_root, FALLBACK_CORPUS, "store.json").is_file()
        if not there and (own > 0 or say is None):
            return []
        from xfavot.data.prepare import open_or_make_mini

        try:
            given = open_or_make_mini(cfg.data_root, (FALLBACK_CORPUS,), say)
        except DataError as error:
            raise WeightsError(
                f"the content network has no transcript to learn from, and the corpus "
                f"{FALLBACK_CORPUS} cannot stand in: {error}"
            ) from error
    names = ", ".join(store.corpus for store in given) or "no other store"
    if say is not None:
        say(f"content network: {own} training clips have a transcript; {names} joins in")
    return list(given)


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
        tracks = speech.example_tracks(clip, cast(F0Network | None, network), self.standardiser)
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
        return speech.example_transcripts(
            self._clips("transcript")[:count],
            cast(ContentNetwork | None, network),
            self.standardiser,
        )

    def _clips(self, needs: str) -> list[speech.Clip]:
        """Clips of the first of val, unseen and train that has any."""
        splits = (*speech.HELD_OUT, "train")
        found = (speech.held_out(self.stores, split, needs=needs) for split in splits)
        return next((clips for clips in found if clips), [])


def pretrain(run: RunConfig, networks: Sequence[str], *, on_log: Log | None = None) -> Pretrained:
    """Train what `notebooks/pretrain.ipynb` asks for, or load what is kept already.

    Args:
        run: whose sizes, lengths, seed and folders count.
        networks: some of "f0", "content" and "vocoder".
        on_log: as in :func:`ensure_network`.

    Returns:
        The networks, and the stores they were trained for.

    Raises:
        DataError: a prepared store is missing or damaged, or none has speech.
        WeightsError: no transcripts for the content network.
        TrainingError: the loss is not finite, or a network cannot be written.
        CheckpointError: the state of a stopped training of the vocoder is damaged.
    """
    from xfavot.data.prepare import open_or_make_mini

    cfg = dataclasses.replace(run, pretrain=dataclasses.replace(run.pretrain, source="train"))
    stores = open_or_make_mini(
        cfg.data_root, cfg.data.corpora, lambda text: on_log({"message": text}) if on_log else None
    )
    standardiser = mel_statistics(stores, split="train")
    frozen = [name for name in networks if name != VOCODER]
    made = {n: ensure_network(n, cfg, stores, standardiser, on_log) for n in frozen}
    asked = VOCODER in networks
    vocoder = ensure_vocoder(cfg, stores, standardiser, on_log) if asked else None
    return Pretrained(made, tuple(stores), standardiser, vocoder)
