"""Small runs for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.store_factory import make_store
from xfavot import config
from xfavot.config import RunConfig


def small_run(root: Path, **changes: Any) -> RunConfig:
    """A run of preset `smoke`, sampled at its end, on a synthetic store in GRID's place."""
    if not (root / "data" / "grid").exists():
        make_store(root / "data", corpus="grid", clips=4, splits=("train", "train", "train", "val"))
    given: dict[str, Any] = {"dataset": "grid", "preset": "smoke", "device": "cpu"} | changes
    given["overrides"] = {"train.sample_every": 1000} | given.get("overrides", {})
    return config.resolve(data_root=str(root / "data"), run_root=str(root / "runs"), **given)
