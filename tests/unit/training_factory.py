"""Small runs for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.store_factory import make_store
from xfavot import config
from xfavot.config import RunConfig


def small_run(root: Path, **changes: Any) -> RunConfig:
    """A run of preset `smoke` on a synthetic audio-visual store in GRID's place."""
    if not (root / "data" / "grid").exists():
        make_store(root / "data", corpus="grid", clips=4, splits=("train", "train", "train", "val"))
    given = {"dataset": "grid", "preset": "smoke", "device": "cpu"} | changes
    return config.resolve(data_root=str(root / "data"), run_root=str(root / "runs"), **given)
