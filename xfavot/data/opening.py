"""The prepared stores and the batches of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from xfavot.config import RunConfig
from xfavot.data.batches import Batches
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError


def open_stores(cfg: RunConfig, say: Callable[[str], None]) -> list[Store]:
    """Open the prepared stores of the run's corpora; ``mini`` is made where it is missing.

    Raises:
        DataError: a store is missing or damaged.
    """
    root = Path(cfg.data_root)
    if cfg.data.dataset == "mini" and not (root / "mini" / "store.json").exists():
        from xfavot.data.prepare import prepare_dataset

        say(f"the corpus mini is not in {root} yet: drawing and speaking it")
        return prepare_dataset("mini", "", root, os.cpu_count() or 1, 0, say)
    present = [c for c in cfg.data.corpora if (root / c / "store.json").exists()]
    missing = [c for c in cfg.data.corpora if c not in present]
    if not present:
        raise DataError(
            f"data_root '{root}' holds no prepared store of {', '.join(missing)} (dataset "
            f"{cfg.data.dataset}); prepare it with: papermill notebooks/prepare_data.ipynb "
            f"runs/prepare.ipynb -p dataset {cfg.data.dataset} -p source <folder of the originals>"
        )
    if missing:
        say(f"WARNING: {', '.join(missing)} of dataset {cfg.data.dataset} not in {root}; going on")
    return [Store.open(root / c, corpus=c) for c in present]


def open_batches(
    cfg: RunConfig, stores: list[Store], split: str, batch_size: int
) -> tuple[RunConfig, Batches]:
    """Batches of a split, and the configuration with the number of speakers filled in."""
    batches = Batches(
        stores, split=split, image_size=cfg.model.image_size, mel_frames=cfg.model.mel_frames,
        batch_size=batch_size, seed=cfg.seed, augment=cfg.data.augment,
    )
    found = len(batches.speakers)
    if cfg.model.speakers == 0:
        model = dataclasses.replace(cfg.model, speakers=max(found, 1))
        cfg = dataclasses.replace(cfg, model=model)
    elif found > cfg.model.speakers:
        raise ConfigError(
            f"model.speakers is {cfg.model.speakers}, but the training data has {found} speakers "
            "with audio; set it to that number or to 0 in overrides"
        )
    return cfg, batches


def open_validation(
    cfg: RunConfig, stores: list[Store], train: Batches, say: Callable[[str], None]
) -> Batches | None:
    """Batches of the validation split; None, with a word about it, where it is empty."""
    try:
        return Batches(
            stores, split="val", image_size=cfg.model.image_size,
            mel_frames=cfg.model.mel_frames, batch_size=cfg.train.batch_size, seed=cfg.seed,
            speakers=train.speakers, standardiser=train.standardiser,
        )
    except DataError as error:
        say(f"WARNING: no validation: {error}")
        return None
