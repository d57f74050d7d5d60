"""The cost of a step is measured on a full step."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tests.unit.training_factory import small_run
from xfavot.evaluation.speed import measure_step


def test_a_full_step_is_timed_with_every_term(tmp_path: Path) -> None:
    cfg = small_run(tmp_path, overrides={"train.sources": "all", "model.speakers": 4})
    cfg = dataclasses.replace(cfg, train=dataclasses.replace(cfg.train, update_rule="alternate"))
    cost = measure_step(cfg, steps=2)
    assert len(cost.seconds) == 2
    assert min(cost.seconds) > 0
    assert cost.peak_bytes > 10**7
    assert cost.parameters[-1] == ("total", sum(n for _, n in cost.parameters[:-1]))
    passes = {k.split("/")[1] for k in cost.terms if k.count("/") == 2 and k.startswith("g/")}
    assert passes == {"z2i", "i2i", "a2i", "z2a", "i2a", "a2a"}
    assert np.isfinite(list(cost.terms.values())).all()
