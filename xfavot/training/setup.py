"""What a run needs before its first step: data, networks, a folder of its own, signals."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

import torch

from xfavot.config import RunConfig, config_id, to_dict
from xfavot.data.batches import Batches
from xfavot.data.manifest import Store
from xfavot.errors import CheckpointError, DataError
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training import checkpoint, journal, pretrain, resuming
from xfavot.training import stores as run_data
from xfavot.training.step import Networks
from xfavot.training.updates import Updater

Log = Callable[[Mapping[str, Any]], None]
SECONDS_BETWEEN_LINES = 10.0


class Stop:
    """Notes SIGINT and SIGTERM, so that a run can end between two steps."""

    def __init__(self) -> None:
        """Nothing requested yet."""
        self.requested = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # the second one does not wait
        self.requested = True

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle the signals inside the block; does nothing outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {n: signal.signal(n, self._note) for n in numbers}
        try:
            yield self
        finally:
            for n, handler in before.items():
                signal.signal(n, handler)


@dataclass(slots=True, kw_only=True)
class Session:
    """A run being trained."""

    cfg: RunConfig
    path: Path
    device: torch.device
    stores: list[Store]
    batches: Batches
    warmup_batches: Batches
    validation: Batches | None
    updater: Updater
    journal: journal.Journal
    stop: Stop
    on_log: Log | None
    step: int = 0
    best: tuple[float, int] = (float("inf"), 0)
    last_line: float = field(default=0.0)

    def batches_of(self, step: int) -> Batches:
        """The batches that a step draws from: larger ones in the warm-up (A20)."""
        return self.warmup_batches if step <= self.cfg.train.warmup else self.batches

    def say(self, message: str) -> None:
        """Tell people something."""
        if self.on_log is not None:
            self.on_log({"message": message})

    def log(self, record: dict[str, float], *, seconds_per_step: float, steps: int) -> None:
        """Write a record; show it to people when the last line is long enough ago."""
        self.journal.write(record)
        now, step = time.monotonic(), int(record["step"])
        self.journal.write_timing({"step": step, "s_per_step": round(seconds_per_step, 4)})
        due = now - self.last_line >= SECONDS_BETWEEN_LINES or step == steps
        if self.on_log is not None and due:
            self.last_line = now
            left = (steps - step) * seconds_per_step
            extra = {"steps": steps, "s_per_step": seconds_per_step, "eta_s": left}
            self.on_log({**record, **extra})

    def log_validation(self, step: int, values: dict[str, float]) -> None:
        """Write the validation terms of a step; remember the best."""
        if not values:
            return
        self.journal.write({"step": step, **values})
        self.best = min(self.best, (values["val/total"], step))
        if self.on_log is not None:
            self.on_log({"step": step, "steps": self.cfg.train.steps, **values})

    def save(self) -> Path:
        """Write a checkpoint and delete those that are too old."""
        saved = checkpoint.save(
            self.path, self.updater, step=self.step,
            speakers=self.batches.speakers, fingerprint=self.batches.fingerprint,
        )  # fmt: skip
        checkpoint.prune(self.path, keep=self.cfg.train.keep_checkpoints, best=self.best[1])
        return saved


@contextmanager
def open_session(cfg: RunConfig, *, resume: str, on_log: Log | None) -> Iterator[Session]:
    """Open everything a run needs, and close it at the end; see :func:`xfavot.training.fit`."""

    def say(message: str) -> None:
        if on_log is not None:
            on_log({"message": message})

    start = None if resume in ("", "auto") else checkpoint.locate(resume)
    run = start.resolve().parents[1] if start is not None else Path(cfg.run_root) / cfg.name
    _refuse_existing(run, resume)
    device = run_data.pick_device(cfg.train.device)
    stores = run_data.open_stores(cfg, say)
    cfg, batches = run_data.open_batches(cfg, stores, "train", cfg.train.batch_size)
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run), Stop().listening() as stop:
        if resume == "auto" and checkpoint.checkpoints_of(run):
            start = checkpoint.newest(run)
        if start is not None:
            resuming.require_same_run(start, checkpoint.read_state(start), cfg, batches.fingerprint)
        outputs = _outputs(cfg, batches)
        n = checkpoint.place(_networks(cfg, stores, batches, outputs, on_log), device)
        updater = Updater(n, cfg, guidances=("z", *outputs), outputs=outputs)
        step = resuming.restore(start, updater) if start is not None else 0
        _write_config(run, cfg)
        session = Session(
            cfg=cfg,
            path=run,
            device=device,
            stores=stores,
            batches=batches,
            warmup_batches=run_data.open_batches(cfg, stores, "train", cfg.train.warmup_batch_size)[
                1
            ],
            validation=run_data.open_validation(cfg, stores, batches, say),
            updater=updater,
            journal=journal.Journal(run, step=step),
            stop=stop,
            on_log=on_log,
            step=step,
            best=_best_so_far(run),
        )
        say(f"run {run}: from step {step} to {cfg.train.steps} on {device}")
        try:
            yield session
        finally:
            session.journal.close()


def _outputs(cfg: RunConfig, batches: Batches) -> str:
    """The modalities generated, of "i" and "a": those trained that the data have.

    Raises:
        DataError: the data have none of them.
    """
    has = {
        "image": any(i.face_count for i in batches.items),
        "audio": any(i.frame_count for i in batches.items),
    }
    outputs = "".join(o for m, o in (("image", "i"), ("audio", "a")) if has[m] and m in
                      cfg.train.modalities)  # fmt: skip
    if not outputs:
        raise DataError(
            f"configuration {cfg.configuration} trains {', '.join(cfg.train.modalities)}, but the "
            f"prepared data of {cfg.data.dataset} have none; choose another dataset"
        )
    return outputs


def _networks(
    cfg: RunConfig, stores: list[Store], batches: Batches, outputs: str, on_log: Log | None
) -> Networks:
    """The eight modules, initialised by the seed, and the frozen two (unused without voices)."""
    if "a" in outputs:
        auxiliary = pretrain.ensure_auxiliary(cfg, stores, batches.standardiser, on_log)
        f0, content = auxiliary.f0, auxiliary.content
    else:
        f0 = F0Network.from_config(cfg.model)
        content = ContentNetwork.from_config(cfg.model, depth=1)
    torch.manual_seed(cfg.seed)
    return Networks(XFaVoT.from_config(cfg.model), f0, content, batches.standardiser)


def _refuse_existing(run: Path, resume: str) -> None:
    if resume == "" and (run / "metrics.jsonl").exists():
        raise CheckpointError(
            f"the run {run} exists already and would be overwritten; go on with it by "
            "-p resume auto, or give another seed or run_root, or delete the folder"
        )


@contextmanager
def _locked(run: Path) -> Iterator[IO[str]]:
    """Keep a second run out of the folder; a killed run's lock is gone with its process."""
    with (run / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CheckpointError(
                f"the run {run} is being trained by another process; wait for it to end, or give "
                "another seed, run_root or overrides"
            ) from error
        yield file


def _write_config(run: Path, cfg: RunConfig) -> None:
    draft = run / ".config.json"
    draft.write_text(json.dumps({"config_id": config_id(cfg), **to_dict(cfg)}, indent=1))
    os.replace(draft, run / "config.json")


def _best_so_far(run: Path) -> tuple[float, int]:
    path = run / "metrics.jsonl"
    if not path.exists():
        return float("inf"), 0
    scored = [(r["val/total"], int(r["step"])) for r in journal.read(path) if "val/total" in r]
    return min(scored, default=(float("inf"), 0))
