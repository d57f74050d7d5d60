"""Training from a configuration to a run directory.

A run directory holds ``config.json``, ``metrics.jsonl`` (every term by step; no clock in it, so
that a resumed run writes the same bytes), ``timing.jsonl``, ``events/`` (TensorBoard),
``samples/`` and ``checkpoints/``. An interrupt or SIGTERM is obeyed between two steps: save, then
stop.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xfavot.config import RunConfig
from xfavot.data.batches import Batch, Batches
from xfavot.errors import TrainingError
from xfavot.training import journal, sampling, setup
from xfavot.training.setup import Session

Log = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk: where it is, what defined it, and how far it came."""

    path: Path
    config: RunConfig
    step: int
    checkpoint: Path

    def metrics(self) -> list[dict[str, float]]:
        """The records of ``metrics.jsonl``."""
        return journal.read(self.path / "metrics.jsonl")


def fit(cfg: RunConfig, *, resume: str = "", on_log: Log | None = None) -> Run:
    """Train a configuration; data and frozen networks that are missing are made first.

    Args:
        cfg: the run.
        resume: "" starts a new run, "auto" goes on from the newest checkpoint of this run (or
            starts it), a path goes on from that checkpoint, or that run's newest one.
        on_log: receives records with ``step`` and terms, or ``message``, for people to read.

    Returns:
        The run; its last checkpoint is on disk.

    Raises:
        ConfigError, DataError, WeightsError: something given is wrong or missing.
        CheckpointError: the run exists, is in use, or cannot be resumed or saved.
        TrainingError: a term is not finite.
    """
    with setup.open_session(cfg, resume=resume, on_log=on_log) as session:
        return _train(session)


def _train(s: Session) -> Run:
    """Steps, logs, samples and checkpoints until the last step or a signal."""
    cfg = s.cfg.train
    started, spent = time.monotonic(), 0
    while s.step < cfg.steps and not s.stop.requested:
        step = s.step + 1
        batch = s.batches_of(step).batch(step).to(s.device)
        terms = s.updater(batch, step)
        values = _finite(terms, step, batch, s.batches_of(step))
        s.step, spent = step, spent + 1
        if step % cfg.log_every == 0 or step == cfg.steps:
            rate = (time.monotonic() - started) / spent
            s.log({"step": step, **values}, seconds_per_step=rate, steps=cfg.steps)
        if step % cfg.sample_every == 0 or step == cfg.steps:
            s.log_validation(step, sampling.validate(s))
            sampling.write(s, step)
        if step % cfg.checkpoint_every == 0:
            s.save()
    if s.stop.requested:
        s.say(f"stopped by a signal after step {s.step}; go on with -p resume auto")
    return Run(path=s.path, config=s.cfg, step=s.step, checkpoint=s.save())


def _finite(
    terms: Mapping[str, Tensor], step: int, batch: Batch, batches: Batches
) -> dict[str, float]:
    """Values of the terms; refuse one that is not finite, naming the samples of the batch."""
    values = torch.stack([v.float() for v in terms.values()]).tolist()
    bad = [k for k, v in zip(terms, values, strict=True) if not math.isfinite(v)]
    if bad:
        rows = {
            role: [batches.items[i].id for i in samples.row.tolist()]
            for role, samples in batch.roles().items()
        }
        raise TrainingError(
            f"step {step}: {', '.join(bad)} not finite; expected numbers; the batch held "
            f"{json.dumps(rows)}; lower train.lr or use -p precision float32, then resume from "
            "the last checkpoint with -p resume auto"
        )
    return dict(zip(terms, values, strict=True))
