"""The two networks that stay frozen in the GAN, F0 and content: trained here once, then kept.

They are trained on the run's own prepared stores, under the run's mel contract and standardiser,
and kept in `<run_root>/auxiliary/<network>_<key>/` as safetensors with a JSON beside it. The key
hashes everything that the weights follow from, so a second run finds them (A28).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from xfavot.audio.mel import MEL, Standardiser, require_contract
from xfavot.config import DataConfig, RunConfig
from xfavot.data.manifest import Store
from xfavot.errors import DataError, TrainingError, WeightsError
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training import labels
from xfavot.training.supervised import Log, content_shape, train_content, train_f0

SCHEMA = 1
RECIPE = 1  # raise when training changes, so that kept weights are not taken for new ones
FALLBACK_CORPUS = "mini"
MIN_TRANSCRIBED = 100  # training clips; with fewer, the fallback stores join in
WEIGHTS, RECORD = "model.safetensors", "network.json"


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network: what it is, how good on held-out clips, and where it is kept."""

    network: F0Network | ContentNetwork
    metrics: dict[str, float]
    path: Path

    def summary(self) -> str:
        """Say the measures in one line."""
        shown = [
            f"{name} {value:.0f}" if name.endswith("clips") else f"{name} {value:.3f}"
            for name, value in self.metrics.items()
        ]
        return ", ".join(shown) or "no clip held out to measure it on"


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
    """Load one of the two networks from `<run_root>/auxiliary/`, or train it and keep it there.

    Args:
        name: "f0" or "content".
        cfg: run_root, seed, model widths, `pretrain` and `train.device` are read.
        stores: prepared stores of the run.
        standardiser: mel statistics of the run.
        on_log: receives records of progress: network, step, steps and terms, or a message.
        fallback_stores: stores with transcripts that join in when the run's own have few; None
            looks for the prepared corpus `mini` under `cfg.data_root`, and makes it when the run's
            own stores have no transcript at all.

    Returns:
        The network on the CPU, frozen.

    Raises:
        DataError: no speech to train the F0 network on.
        WeightsError: no transcripts for the content network, or the kept files are damaged.
        TrainingError: the loss is not finite, or the network cannot be written.
    """

    def say(message: str) -> None:
        if on_log is not None:
            on_log({"message": message})

    stores = [store for store in stores if any(item.frame_count for item in store.items)]
    if name == "content":
        stores += _fallback(cfg, stores, fallback_stores, say)
    recipe = _recipe(name, cfg, stores, standardiser)
    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cfg.run_root) / "auxiliary" / f"{name}_{key}"
    kept = folder.is_dir()
    if not kept:
        from xfavot.training.stores import pick_device

        train: Callable[..., tuple[F0Network | ContentNetwork, dict[str, float]]]
        train = train_f0 if name == "f0" else train_content
        network, metrics = train(
            stores,
            model=cfg.model,
            standardiser=standardiser.to("cpu"),
            device=pick_device(cfg.train.device),
            on_log=on_log,
            **recipe["schedule"],
        )
        _keep(folder, network, {**recipe, "metrics": metrics})
    trained = load_network(folder)
    say(f"{name} network {'found' if kept else 'kept'} in {folder}: {trained.summary()}")
    return trained


def load_network(folder: Path | str) -> Trained:
    """Load a network that :func:`ensure_network` kept.

    Args:
        folder: `<run_root>/auxiliary/<network>_<key>`.

    Returns:
        The network on the CPU, frozen, with the measures written when it was trained.

    Raises:
        WeightsError: a file is missing or damaged, or the mel contract is another.
    """
    folder = Path(folder)
    advice = "delete that folder and run notebooks/pretrain.ipynb again"
    try:
        said = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        require_contract(said["contract"], where=str(folder))
        kind = {"f0": F0Network, "content": ContentNetwork}[said["network"]]
        network = kind(**said["arguments"])
        network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
        metrics = dict(said["metrics"])
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"{folder} cannot be loaded ({type(error).__name__}: {error}); expected "
            f"{WEIGHTS} and {RECORD} of one network; {advice}"
        ) from error
    network.requires_grad_(False).eval()
    return Trained(network=network, metrics=metrics, path=folder)


def _recipe(
    name: str, cfg: RunConfig, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, Any]:
    """Everything that the weights follow from, as it is hashed into the key and written beside."""
    m, p = cfg.model, cfg.pretrain
    sizes: dict[str, int] = {"mel_bins": m.mel_bins}
    if name == "f0":
        sizes |= {"f0_width": m.f0_width}
        steps, lr = p.f0_steps, p.f0_lr
    else:
        sizes |= {"content_width": m.content_width, "content_channels": m.content_channels}
        sizes |= {"depth": content_shape(m)[0]}
        steps, lr = p.content_steps, p.content_lr
    return {
        "schema": SCHEMA,
        "recipe": RECIPE,
        "network": name,
        "contract": MEL.as_dict(),
        "arguments": sizes,
        "crop_frames": m.mel_frames if name == "f0" else 0,
        "schedule": {"steps": steps, "lr": lr, "batch_size": p.batch_size, "seed": cfg.seed},
        "manifests": {store.corpus: store.manifest_hash for store in stores},
        "standardiser": {
            "mean": standardiser.mean.tolist(),
            "std": standardiser.std.tolist(),
        },
    }


def _keep(folder: Path, network: nn.Module, record: Mapping[str, Any]) -> None:
    """Write weights and record into a hidden folder, then give it its name in one move."""
    staging = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        staging.mkdir(parents=True)
        tensors = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
        save_file(tensors, staging / WEIGHTS)
        text = json.dumps(record, indent=1, allow_nan=False)
        (staging / RECORD).write_text(text, encoding="utf-8")
        staging.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staging, ignore_errors=True)
        if not folder.is_dir():  # else another run kept the same network meanwhile
            raise TrainingError(
                f"{folder}: cannot be written ({error}); expected a folder with room for a few "
                "megabytes; free some space or give another run_root"
            ) from error


def _fallback(
    cfg: RunConfig,
    stores: Sequence[Store],
    given: Sequence[Store] | None,
    say: Callable[[str], None],
) -> list[Store]:
    """Stores that join in because the run's own have few transcripts; see ensure_network."""
    own = len(labels.clips_of(stores, "train", needs="transcript"))
    if own >= MIN_TRANSCRIBED or any(store.corpus == FALLBACK_CORPUS for store in stores):
        return []
    if given is None:
        there = Path(cfg.data_root, FALLBACK_CORPUS, "store.json").is_file()
        if not there and own > 0:
            return []
        from xfavot.training.stores import open_stores

        data = DataConfig(dataset=FALLBACK_CORPUS, corpora=(FALLBACK_CORPUS,))
        try:
            given = open_stores(dataclasses.replace(cfg, data=data), say)
        except DataError as error:
            raise WeightsError(
                f"the content network has no transcript to learn from, and the corpus "
                f"{FALLBACK_CORPUS} cannot stand in: {error}"
            ) from error
    names = ", ".join(store.corpus for store in given) or "no other store"
    say(f"content network: {own} training clips have a transcript; {names} joins in")
    return list(given)
