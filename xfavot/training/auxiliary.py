"""The two networks that stay frozen in the GAN, F0 and content: found, shipped or trained (A28).

In this order: the network that was kept in `<run_root>/auxiliary/<network>_<key>/` for exactly this
recipe, the one that comes with the package if it has the run's widths, one trained now on the run's
own prepared stores under its mel contract and standardiser, and kept. The key hashes everything
that the weights follow from. `pretrain.source` narrows the choice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from xfavot import __version__
from xfavot.audio.mel import MEL, Standardiser
from xfavot.config import DataConfig, ModelConfig, RunConfig
from xfavot.data.manifest import Store
from xfavot.errors import DataError, WeightsError
from xfavot.identity import key_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training import labels
from xfavot.training.keeping import Trained, keep, load_network, shipped_network
from xfavot.training.supervised import Log, content_shape, train_content, train_f0

SCHEMA = 2
RECIPE = 2  # raise when training changes, so that kept weights are not taken for new ones
FALLBACK_CORPUS = "mini"
MIN_TRANSCRIBED = 100  # training clips; with fewer, the fallback stores join in


@dataclass(frozen=True, slots=True)
class Auxiliary:
    """The two frozen networks, and the held-out measures of each by name."""

    f0: F0Network
    content: ContentNetwork
    metrics: dict[str, dict[str, float]]


def ensure_auxiliary(
    cfg: RunConfig,
    stores: Sequence[Store],
    standardiser: Standardiser,
    on_log: Log | None = None,
    *,
    fallback_stores: Sequence[Store] | None = None,
) -> Auxiliary:
    """Load both frozen networks of a run, training those that are not kept yet.

    Args:
        cfg, stores, standardiser, on_log, fallback_stores: as in :func:`ensure_network`.

    Returns:
        Both networks on the CPU, frozen, and their held-out measures.

    Raises:
        DataError, WeightsError, TrainingError: as in :func:`ensure_network`.
    """
    f0 = ensure_network("f0", cfg, stores, standardiser, on_log)
    content = ensure_network(
        "content", cfg, stores, standardiser, on_log, fallback_stores=fallback_stores
    )
    metrics = {"f0": f0.metrics, "content": content.metrics}
    return Auxiliary(
        f0=cast(F0Network, f0.network),
        content=cast(ContentNetwork, content.network),
        metrics=metrics,
    )


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
    from xfavot.training.stores import pick_device

    name = recipe["network"]
    train: Callable[..., tuple[F0Network | ContentNetwork, dict[str, float]]]
    train = train_f0 if name == "f0" else train_content
    network, measures = train(
        stores,
        model=cfg.model,
        standardiser=standardiser.to("cpu"),
        device=pick_device(cfg.train.device),
        on_log=on_log,
        **recipe["schedule"],
    )
    clips = labels.clips_of(stores, "train", needs="f0" if name == "f0" else "transcript")
    used = [store for store in stores if any(clip.store is store for clip in clips)]
    training = {
        "software": f"xfavot {__version__}",
        "data": {store.corpus: labels.data_of(store, clips) for store in used},
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
        "standardiser": {
            "mean": standardiser.mean.tolist(),
            "std": standardiser.std.tolist(),
        },
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
    own = len(labels.clips_of(stores, "train", needs="transcript"))
    if own >= MIN_TRANSCRIBED or any(store.corpus == FALLBACK_CORPUS for store in stores):
        return []
    if given is None:
        there = Path(cfg.data_root, FALLBACK_CORPUS, "store.json").is_file()
        if not there and (own > 0 or say is None):
            return []
        from xfavot.training.stores import open_stores

        data = DataConfig(dataset=FALLBACK_CORPUS, corpora=(FALLBACK_CORPUS,))
        try:
            given = open_stores(dataclasses.replace(cfg, data=data), say or (lambda _: None))
        except DataError as error:
            raise WeightsError(
                f"the content network has no transcript to learn from, and the corpus "
                f"{FALLBACK_CORPUS} cannot stand in: {error}"
            ) from error
    names = ", ".join(store.corpus for store in given) or "no other store"
    if say is not None:
        say(f"content network: {own} training clips have a transcript; {names} joins in")
    return list(given)
