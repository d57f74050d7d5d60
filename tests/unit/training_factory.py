"""Small runs, stores that the tests of a module share, and classifiers that learn briefly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Patch
from tests.unit.store_factory import make_store
from xfavot import config
from xfavot.config import RunConfig
from xfavot.data.store import Store
from xfavot.evaluation import classifiers, learning


def small_run(root: Path, **changes: Any) -> RunConfig:
    """A run of preset `smoke`, sampled at its end, on a synthetic store in GRID's place."""
    if not (root / "data" / "grid").exists():
        make_store(root / "data", corpus="grid", clips=4, splits=("train", "train", "train", "val"))
    given: dict[str, Any] = {"dataset": "grid", "preset": "smoke", "device": "cpu"} | changes
    given["overrides"] = {"train.sample_every": 1000} | given.get("overrides", {})
    return config.resolve(data_root=str(root / "data"), run_root=str(root / "runs"), **given)


def shared_store(**settings: Any) -> Any:
    """A fixture: a store that is made once for a module."""

    @pytest.fixture(scope="module")
    def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
        return make_store(tmp_path_factory.mktemp("data"), **settings)

    return store


def few_steps(patch: Patch) -> None:
    """Let the evaluation's classifiers learn for two steps and read few conversions."""
    patch.setattr(classifiers, "STEPS", {"face": 2, "voice": 2})
    patch.setattr(classifiers, "BATCH_SIZE", 4)
    for name, value in {"SOURCES": 4, "REFERENCES": 8, "MOST_CLIPS": 2}.items():
        patch.setattr(learning, name, value)
