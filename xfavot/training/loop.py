"""Training from a configuration to a run directory.

A run directory holds ``config.json``, ``metrics.jsonl`` (every term by step; no clock in it, so
that a resumed run writes the same bytes), ``timing.jsonl``, ``events/`` (TensorBoard),
``samples/`` and ``checkpoints/``. An interrupt or SIGTERM is obeyed between two steps: save, then
stop.
"""

from __future__ import annotations

import copy
import fcntl
import json
import math
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
from torch import Tensor

from xfavot.audio import vocoder as vocoders
from xfavot.config import RunConfig, config_id, to_dict
from xfavot.data.batches import Batch, Batches, open_batches, open_validation, with_speakers
from xfavot.data.prepare import open_or_make_mini
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, DataError, TrainingError
from xfavot.models import device_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT
from xfavot.training import checkpoint, pretrain
from xfavot.training import step as step_training
from xfavot.training import step as steps
from xfavot.training.step import Networks, Updater

# The records of a run: ``metrics.jsonl``, its cut on resume, and TensorBoard events


def read(path: Path) -> list[dict[str, float]]:
    """All records of a file of JSON lines; an unfinished last line is left out.

    Raises:
        CheckpointError: the file is missing, or a line before the last is damaged.
    """
    if not path.exists():
        raise CheckpointError(f"{path} is missing; expected the records of a run; name its folder")
    lines = path.read_text().split("\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise CheckpointError(f"{path}, line {number} is damaged ({error})") from error
    return records


def cut(path: Path, last_step: int) -> None:
    """Drop the records after a step, as the resumed run will write them again."""
    if not path.exists():
        return
    kept = [r for r in read(path) if r["step"] <= last_step]
    draft = path.with_suffix(".draft")
    draft.write_text("".join(json.dumps(r) + "\n" for r in kept))
    os.replace(draft, path)


class Journal:
    """Appends records to JSON lines and to TensorBoard's event files.

    Args:
        run: the run's folder.
        step: finished steps; later records and events are dropped.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        """Cut both files back and open the events."""
        from torch.utils.tensorboard import SummaryWriter

        self.path, self.timing = run / "metrics.jsonl", run / "timing.jsonl"
        cut(self.path, step)
        cut(self.timing, step)
        self.events = SummaryWriter(str(run / "events"), purge_step=step + 1 if step else None)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a record with its ``step``.

        Raises:
            TrainingError: the disk is full or the folder is gone.
        """
        self._append(self.path, record)
        for name, value in record.items():
            if name != "step":
                self.events.add_scalar(name, value, record["step"])

    def write_timing(self, record: Mapping[str, Any]) -> None:
        """Append a record to ``timing.jsonl``."""
        self._append(self.timing, record)

    def close(self) -> None:
        """Close the event file."""
        self.events.close()

    def _append(self, path: Path, record: Mapping[str, Any]) -> None:
        try:
            with path.open("a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise TrainingError(
                f"{path} could not be written ({error}); free some space and go on with "
                "-p resume auto"
            ) from error


# What a run needs before its first step: data, networks, a folder of its own, signals


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
    journal: Journal
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
            self.path,
            self.updater,
            step=self.step,
            speakers=self.batches.speakers,
            fingerprint=self.batches.fingerprint,
        )
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
    device = device_of(cfg.train.device)
    stores = open_or_make_mini(cfg.data_root, cfg.data.corpora, say)
    batches = open_batches(cfg, stores)
    cfg = with_speakers(cfg, batches)
    run.mkdir(parents=True, exist_ok=True)
    with _locked(run), Stop().listening() as stop:
        if resume == "auto" and checkpoint.checkpoints_of(run):
            start = checkpoint.newest(run)
        if start is not None:
            checkpoint.require_same_run(
                start, checkpoint.read_state(start), cfg, batches.fingerprint
            )
        outputs = _outputs(cfg, batches)
        n = checkpoint.place(_networks(cfg, stores, batches, outputs, on_log), device)
        updater = Updater(n, cfg, guidances=("z", *outputs), outputs=outputs)
        step = checkpoint.restore(start, updater) if start is not None else 0
        _write_config(run, cfg)
        session = Session(
            cfg=cfg,
            path=run,
            device=device,
            stores=stores,
            batches=batches,
            warmup_batches=open_batches(cfg, stores, batch_size=cfg.train.warmup_batch_size),
            validation=open_validation(cfg, stores, batches, say),
            updater=updater,
            journal=Journal(run, step=step),
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
    outputs = "".join(
        o for m, o in (("image", "i"), ("audio", "a")) if has[m] and m in cfg.train.modalities
    )
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
    scored = [(r["val/total"], int(r["step"])) for r in read(path) if "val/total" in r]
    return min(scored, default=(float("inf"), 0))


# Looks into a run at intervals: validation terms, a sheet of faces, converted voices


VALIDATION_BATCHES = 4
ROWS, COLUMNS, VOICES = 3, 6, 2


def averaged(updater: Updater) -> XFaVoT:
    """The eight modules with G, E and M replaced by their averages; nothing is copied."""
    nets = copy.copy(updater.n.nets)
    nets._modules = {**updater.n.nets._modules, **dict(updater.ema.modules.items())}
    return nets


@torch.no_grad()
def validate(s: Session) -> dict[str, float]:
    """Mean generator terms on fixed validation batches; ``val/total`` adds style, cycle and xm.

    Returns:
        Values by log key; empty where there is no validation split.
    """
    if s.validation is None:
        return {}
    u = s.updater
    n = Networks(averaged(u), u.n.f0, u.n.content, u.n.standardiser)
    sums: dict[str, list[Tensor]] = {}
    for number in range(VALIDATION_BATCHES):
        batch = s.validation.batch(number).to(s.device)
        d = step_training.draw(s.cfg, number, batch.paired.shape[0], u.guidances)
        voices = steps.analyse_voices(n, batch.source_audio) if batch.source_audio else None
        for guidance in u.guidances:
            t = step_training.make_target(n.nets, batch, guidance, d)
            if "i" in u.outputs:
                terms = steps.generator_image_terms(n, batch, t)[0]
                for k, v in terms.items():
                    sums.setdefault(f"val/{guidance}2i/{k}", []).append(v)
            if "a" in u.outputs and voices is not None:
                terms = steps.generator_audio_terms(n, batch, t, voices, d.speaker_family)[0]
                for k, v in terms.items():
                    sums.setdefault(f"val/{guidance}2a/{k}", []).append(v)
        if batch.ref_image is not None and batch.ref_audio is not None:
            xm = steps.pair_terms(n, batch, d, s.cfg, rec=False)["xm"]
            sums.setdefault("val/xm", []).append(xm)
    means = {k: float(torch.stack(v).mean()) for k, v in sums.items()}
    means["val/total"] = sum(
        v for k, v in means.items() if k.rsplit("/", 1)[-1] in ("sty", "cyc", "xm")
    )
    return means


@torch.no_grad()
def write(s: Session, step: int, *, vocoder: str = vocoders.DEFAULT) -> None:
    """Write ``samples/step_*.png`` and a few WAVs of the present averages.

    Args:
        s: the running training.
        step: for the names of the files.
        vocoder: a name for :func:`xfavot.audio.vocoder.vocoder`.
    """
    batches = s.validation or s.batches
    batch = batches.batch(0).to(s.device)
    u = s.updater
    nets, folder = averaged(u), s.path / "samples"
    folder.mkdir(exist_ok=True)
    d = step_training.draw(s.cfg, 0, batch.paired.shape[0], u.guidances)
    aims = [step_training.make_target(nets, batch, g, d) for g in u.guidances]
    if batch.source_image is not None and "i" in u.outputs:
        x = batch.source_image.x[:COLUMNS]
        blank = torch.ones_like(x[:1])
        sheet = [torch.cat([blank, x])]
        for t in aims:
            for row in range(min(ROWS, t.s1.shape[0])):
                face = blank
                if t.guidance != "z" and batch.ref_image is not None:
                    face = batch.ref_image.x[row : row + 1]
                fakes = nets.G_I(x, t.s1[row : row + 1].expand(len(x), -1))
                sheet.append(torch.cat([face, fakes]))
        _save_sheet(s, torch.stack(sheet), step)
    if batch.source_audio is not None and "a" in u.outputs:
        x = batch.source_audio.x[:1]
        features, made = u.n.f0.features(x), vocoders.vocoder(vocoder)
        _save_voice(s, x, made, f"step_{step:08d}_source.wav")
        for t in aims:
            for row in range(min(VOICES, t.s1.shape[0])):
                fake = nets.G_A(x, t.s1[row : row + 1], features)
                _save_voice(s, fake, made, f"step_{step:08d}_{t.guidance}2a_{row}.wav")


def _save_sheet(s: Session, rows: Tensor, step: int) -> None:
    """(R, C, 3, H, W) in [-1, 1] as one PNG."""
    from xfavot.image.io import save_image, to_bytes

    r, c, _, h, w = rows.shape
    pixels = to_bytes(rows)
    sheet = pixels.permute(0, 3, 1, 4, 2).reshape(r * h, c * w, 3)  # (R H, C W, 3)
    try:
        save_image(s.path / "samples" / f"step_{step:08d}.png", sheet.cpu().numpy())
    except DataError as error:  # a bare machine without Pillow trains all the same
        s.say(f"no sample sheet: {error}")


def _save_voice(s: Session, x: Tensor, vocoder: vocoders.Vocoder, name: str) -> None:
    """(1, 1, 80, T) standardised as a WAV through a vocoder."""
    from xfavot.audio.io import save_waveform

    log_mel = s.updater.n.standardiser.restore(x.float())[0, 0].cpu()
    save_waveform(s.path / "samples" / name, vocoder(log_mel))


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk: where it is, what defined it, and how far it came."""

    path: Path
    config: RunConfig
    step: int
    checkpoint: Path

    def metrics(self) -> list[dict[str, float]]:
        """The records of ``metrics.jsonl``."""
        return read(self.path / "metrics.jsonl")


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
    with open_session(cfg, resume=resume, on_log=on_log) as session:
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
            s.log_validation(step, validate(s))
            write(s, step)
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
