"""Training from a configuration to a run directory.

A run directory holds ``config.json``, ``metrics.jsonl`` (every term by step; no clock in it, so
that a resumed run writes the same bytes), ``events/`` (TensorBoard), ``samples/`` and
``checkpoints/``. An interrupt or SIGTERM is obeyed between two steps: save, then
stop. :func:`fit` is the loop; `notebooks/train.ipynb` writes it out with the same session.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from torch import Tensor

from xfavot.audio import vocoder as vocoders
from xfavot.audio.io import save_waveform
from xfavot.config import NETWORKS, RunConfig, config_id, key_of
from xfavot.data.batches import Batch, Batches, open_validation, with_speakers
from xfavot.data.prepare import open_or_make_mini
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, DataError, TrainingError, refusing
from xfavot.files import write_whole
from xfavot.image.io import save_image, to_bytes
from xfavot.models import device_of
from xfavot.models.xfavot import XFaVoT
from xfavot.parameters import Train
from xfavot.strict import require
from xfavot.training import checkpoint, draws, passes, pretrain, step
from xfavot.training.passes import Networks
from xfavot.training.pretrain import Log
from xfavot.training.processes import FreeCores, Processes, joined
from xfavot.training.step import Updater

SECONDS_BETWEEN_LINES = 10.0
VALIDATION_BATCHES = 4
WAITS_TO_STOP = "86400"  # seconds in which torchrun lets a step and its checkpoint end; usually 30
ROWS, COLUMNS, VOICES = 3, 6, 2  # of the samples: styles a source of styles, sources, voices
METRICS = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class Run:
    """A run on disk: where it is, what defined it, and how far it came."""

    path: Path
    config: RunConfig
    step: int
    checkpoint: Path


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
        return train(session)


def train(session: Session, *, enough: Callable[[int], bool] = lambda number: False) -> Run:
    """Go through the steps of a session, as :func:`fit` does, until one is more than `enough`."""
    for number in session:
        if enough(number):
            break
        terms = session.update(session.batch(number), number)
        if session.due("log"):
            session.log(terms)
        if session.due("sample"):
            session.validate()
            session.sample()
        if session.due("checkpoint"):
            session.save()
    return session.finish()


def launch(parameters: Train, on_log: Log) -> str:
    """Train in `parameters.processes` processes of this machine, as `torchrun` starts them.

    Args:
        parameters: of the run.
        on_log: receives what they write, line by line.

    Returns:
        The parameter `resume` by which the run is found.

    Raises:
        ConfigError: this is one of several processes already.
        TrainingError: the training failed, or was stopped by a signal.
    """
    count, alone = parameters.processes, int(os.environ.get("WORLD_SIZE", "1")) == 1
    require(alone, "processes", count, "1 under a launcher, which has started some", "leave it out")
    given: dict[str, Any] = {**dataclasses.asdict(parameters), "processes": 1}
    given |= {name: Path(given[name]).resolve() for name in ("data_root", "run_root")}
    given["overrides"] = yaml.safe_dump(given["overrides"], default_flow_style=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={count}", "-m", "xfavot.cli", "train"]
    command += [text for name, value in given.items() for text in ("-p", name, str(value))]
    usual = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // count, 1))}
    usual |= {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": WAITS_TO_STOP}
    pipe: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=usual | os.environ, **pipe)
    with _listening(process.terminate) as signals:  # they stop after the step, and save
        try:
            for line in process.stdout or ():
                on_log({"message": line.rstrip()})
        except BaseException:
            process.terminate()
            process.communicate()  # what they still have to say must not hold them up
            raise
        if process.wait():
            how = "was stopped by a signal" if signals else "failed"
            raise TrainingError(
                f"the training in {count} processes {how} (status {process.returncode}); the lines "
                "above say more; go on from the last checkpoint with -p resume auto"
            )
    named = parameters.resume not in ("", "auto")
    return str(checkpoint.locate(parameters.resume).parents[1]) if named else "auto"


@contextmanager
def open_session(
    cfg: RunConfig, *, resume: str = "", on_log: Log | None = None
) -> Iterator[Session]:
    """Open everything a run needs, and close it at the end; see :func:`fit` for the arguments."""
    what = f"the run's folder below {cfg.run_root} cannot be written or read"
    advice = "free some space, or give a run_root that you may write; checkpoints are as they were"
    with ExitStack() as stack:
        with refusing(OSError, CheckpointError, what, advice):
            session = Session(cfg, stack, resume=resume, on_log=on_log)
        yield session


class Session:
    """A run being trained: yields the numbers of the steps to come, has what is done in each.

    Args:
        cfg, resume, on_log: as in :func:`fit`.
        stack: what is opened is closed with it.
    """

    settings: Mapping[str, Any] = {}  # settings that are no part of the configuration
    cores: FreeCores | None = None  # of a CPU

    def __init__(
        self, cfg: RunConfig, stack: ExitStack, *, resume: str, on_log: Log | None
    ) -> None:
        """Open the data, the run's folder and the networks, at the step to go on from."""
        self.processes = stack.enter_context(joined(cfg.train.device))
        main = self.processes.main
        self.on_log: Log = (main and on_log) or (lambda record: None)
        if not main:
            self.processes.every(0)  # the main one makes what is missing, the others find it
        start = None if resume in ("", "auto") else checkpoint.locate(resume)
        named, own = cfg.name.removesuffix(config_id(cfg)), Path(cfg.run_root) / cfg.name
        if main and resume == "" and (own / METRICS).exists():
            raise CheckpointError(
                f"the run {own} exists already and would be overwritten; go on with it by "
                "-p resume auto, or give another seed or run_root, or delete the folder"
            )
        self.device = device_of(cfg.train.device)
        where = str(self.device)
        if self.device.type == "cpu":
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            self.cores = FreeCores()
            where += f", threads: {self.cores.threads}"
        stores = self._stores(cfg)
        initial = checkpoint.locate(cfg.train.initial) if cfg.train.initial else None
        known = checkpoint.known_to(initial, stores) if initial else {}
        self.batches = Batches(cfg, stores, **known)
        warmed = ["warmup_batch_size"] * (cfg.train.warmup > 0)
        for name in ("batch_size", "pairs", "twins", *warmed):
            size, count = getattr(cfg.train, name), self.processes.count
            expected = f"a multiple of {count}, the number of processes"
            require(size % count == 0, f"train.{name}", size, expected, "change one of the two")
        cfg = with_speakers(cfg, self.batches)
        if resume == "auto":
            start = checkpoint.to_resume(cfg, named="" if named == cfg.name else named)
        self.path = run = start.resolve().parents[1] if start is not None else own
        run.mkdir(parents=True, exist_ok=True)
        try:  # a killed run's lock is gone with its process
            if main:
                stack.enter_context(FileLock(run / ".lock", timeout=0))
        except Timeout as error:
            raise CheckpointError(
                f"the run {run} is being trained by another process; wait for it to end, or give "
                "another seed, run_root or overrides"
            ) from error
        self.signals = stack.enter_context(_listening())
        if resume == "auto" and checkpoint.checkpoints_of(run):
            start = checkpoint.locate(run)
        if start is not None:
            cfg = checkpoint.going_on(start, cfg, self.batches.fingerprint)
        self.cfg = cfg
        self.step = self._open(stores, start, initial)
        self.warmup_batches = copy.copy(self.batches)
        self.warmup_batches.batch_size = cfg.train.warmup_batch_size
        self.stopped = False  # by a signal
        self.started, self.last_line = (0.0, self.step), 0.0  # clock, step; clock
        if main:
            from torch.utils.tensorboard import SummaryWriter

            checkpoint.write_config(run, cfg, **self.settings)
            kept = [json.dumps(r) + "\n" for r in self.metrics() if r["step"] <= self.step]
            if (run / METRICS).exists():  # the rest is written again
                write_whole(run / METRICS, "".join(kept))
            purge = self.step + 1 if self.step else None
            self.events = SummaryWriter(str(run / "events"), purge_step=purge)
            stack.callback(self._close)
            scored = [(r["val/total"], int(r["step"])) for r in self.metrics() if "val/total" in r]
            self.best = min(scored, default=(math.inf, 0))  # lowest on validation batches, its step
            self.validation = open_validation(cfg, stores, self.batches, self._say)
            self.processes.every(0)
        key = key_of({"run": [config_id(cfg), self.batches.fingerprint, self.step]})
        alike = len(set(self.processes.every(int(key[:15], 16)))) == 1
        advice = "give the same parameters, and folders data_root and run_root that are shared"
        require(alike, "the run and its data", key, "the same on every process", advice)
        if others := self.batches.without_code:
            least = f"model.speakers is {cfg.model.speakers}"
            self._say(f"{least}: M, D_A and C_A know {others} more people by gender alone (A91)")
        self._say(f"run {run}: from step {self.step} to {cfg.train.steps} on {where}")

    def _stores(self, cfg: RunConfig) -> list[Store]:
        """The prepared stores that the run learns from."""
        return open_or_make_mini(cfg.data_root, cfg.data.corpora, self._say)

    def _open(self, stores: list[Store], start: Path | None, initial: Path | None) -> int:
        """Make networks and optimisers, as they are at the step to go on from, and return that."""
        cfg, outputs = self.cfg, _outputs(self.cfg, self.batches)
        origin = start or initial
        n = open_networks(cfg, stores, self.batches, outputs, self.on_log, origin)
        n = n._replace(processes=self.processes)
        self.updater = Updater(n, cfg, guidances=("z", *outputs), outputs=outputs)
        if start is None and initial is not None:
            checkpoint.adopt(initial, self.updater)
        began, state = time.process_time(), {"cpu_s": 0.0, "step": 0}
        if start is not None:
            state = checkpoint.restore(start, self.updater)
        # CPU time of this process that is no training
        self.free_s = began - state["cpu_s"] if "cpu_s" in state else None
        return int(state["step"])

    def __iter__(self) -> Iterator[int]:
        """Yield the number of every step until the last one or a signal."""
        self.started = time.monotonic(), self.step
        while self.step < self.cfg.train.steps and not self.stopped:
            self.stopped = any(self.processes.every(len(self.signals)))
            if self.cores and self.cores.look():
                self._say(f"threads: {self.cores.threads}, as other programs leave cores")
            if not self.stopped:
                yield self.step + 1

    def due(self, what: str) -> bool:
        """Whether it is time to "log", to "sample" or for a "checkpoint" after a step."""
        every: int = getattr(self.cfg.train, f"{what}_every")
        return self.step % every == 0 or self.step == self.cfg.train.steps

    def batch(self, number: int) -> Batch:
        """The batch of a step on the device: a larger one in the warm-up (A20); its own part."""
        batches = self.warmup_batches if number <= self.cfg.train.warmup else self.batches
        p = self.processes
        return batches.batch(number, part=p.rank, parts=p.count).to(self.device)

    def update(self, batch: Batch, number: int) -> dict[str, float]:
        """Do a step; see :class:`xfavot.training.step.Updater`.

        Returns:
            Every term of every pass by log key, such as "g/a2i/sty".

        Raises:
            TrainingError: a term is not finite; the samples of the batch are named.
        """
        terms = self._move(batch, number)
        means = torch.stack([v.float() for v in terms.values()])
        self.processes.average([means])
        values = means.tolist()
        bad = [k for k, v in zip(terms, values, strict=True) if not math.isfinite(v)]
        if bad:
            rows = {
                role: [self.batches.items[i].id for i in self.processes.together(samples.row)]
                for role, samples in batch.roles().items()
            }
            raise TrainingError(
                f"step {number}: {', '.join(bad)} not finite; expected numbers; the batch held "
                f"{json.dumps(rows)}; lower train.lr or use -p precision float32, then resume from "
                "the last checkpoint with -p resume auto"
            )
        self.step = number
        return dict(zip(terms, values, strict=True))

    def _move(self, batch: Batch, number: int) -> dict[str, Tensor]:
        """Move everything that is trained; the terms."""
        return self.updater(batch, number)

    def log(self, terms: Mapping[str, float]) -> None:
        """Write the terms of the step; show them when the last line is long enough ago."""
        if not self.processes.main:
            return
        now, steps = time.monotonic(), self.cfg.train.steps
        rate = (now - self.started[0]) / max(self.step - self.started[1], 1)
        record = {"step": self.step, **terms}
        self._record(record)
        if now - self.last_line >= SECONDS_BETWEEN_LINES or self.step == steps:
            self.last_line = now
            self._tell({**record, "s_per_step": rate, "eta_s": (steps - self.step) * rate})

    @torch.no_grad()
    def validate(self) -> None:
        """Write the mean generator terms on fixed validation batches, if there is such a split.

        The averages of G, E and M are measured; ``val/total`` adds style, cycle and xm.
        """
        if not self.processes.main or self.validation is None:
            return
        u = self.updater
        n = u.n._replace(nets=averaged(u), processes=Processes())  # the others are not here
        sums: dict[str, list[Tensor]] = {}
        for number in range(VALIDATION_BATCHES):
            batch = self.validation.batch(number).to(self.device)
            d = draws.draw(self.cfg, number, batch.paired.shape[0], u.guidances)
            voices = passes.analyse_voices(n, batch) if "a" in u.outputs else None
            for guidance in u.guidances:
                t = passes.make_target(n.nets, batch, guidance, d)
                for o in u.outputs:
                    terms, _ = passes.generator_terms(n, batch, t, o, voices, d.by_speaker)
                    for k, v in terms.items():
                        sums.setdefault(f"val/{guidance}2{o}/{k}", []).append(v)
            if batch.ref_image is not None and batch.ref_audio is not None:
                heard = passes.hear_references(n, batch)
                terms = passes.pair_terms(n, batch, d, self.cfg.loss, heard, rec=False)
                for k, v in terms.items():
                    sums.setdefault(f"val/{k}", []).append(v)
        means = {k: float(torch.stack(v).mean()) for k, v in sums.items()}
        means["val/total"] = sum(
            v for k, v in means.items() if k.rsplit("/", 1)[-1] in ("sty", "cyc", "xm")
        )
        self._record({"step": self.step, **means})
        self.best = min(self.best, (means["val/total"], self.step))
        self._tell({"step": self.step, **means})

    @torch.no_grad()
    def sample(self) -> list[Path]:
        """Write ``samples/step_*.png`` and a few WAVs of the present averages.

        Returns:
            The files; the sheet of faces first.
        """
        if not self.processes.main:
            return []
        batch = (self.validation or self.batches).batch(0).to(self.device)
        u, nets = self.updater, averaged(self.updater)
        d = draws.draw(self.cfg, 0, batch.paired.shape[0], u.guidances)
        targets = [passes.make_target(nets, batch, g, d) for g in u.guidances]
        stem = str(self.path / "samples" / f"step_{self.step:08d}")
        made: list[Path] = []
        if "i" in u.outputs:
            x = passes.sources(batch, "i").x[:COLUMNS]
            blank = torch.ones_like(x[:1])
            sheet = [torch.cat([blank, x])]
            for t in targets:
                faces = None if t.guidance == "z" else batch.ref_image
                for row, style in enumerate(t.s1[:ROWS]):
                    face = blank if faces is None else faces.x[row : row + 1]
                    sheet.append(torch.cat([face, nets.G_I(x, style.expand(len(x), -1))]))
            pixels = to_bytes(torch.stack(sheet)).permute(0, 3, 1, 4, 2)  # (R, H, C, W, 3)
            try:
                save_image(f"{stem}.png", pixels.flatten(2, 3).flatten(0, 1).cpu().numpy())
                made.append(Path(f"{stem}.png"))
            except DataError as error:  # a bare machine without Pillow trains all the same
                self._say(f"no sample sheet: {error}")
        if "a" in u.outputs:
            x = passes.sources(batch, "a").x[:1]
            heard, to_wave = nets.G_A.hear(u.n.f0, x), vocoders.vocoder(vocoders.DEFAULT)
            voices = {"source": x}
            for t in targets:
                for row, style in enumerate(t.s1[:VOICES]):
                    voices[f"{t.guidance}2a_{row}"] = nets.G_A(x, style[None], *heard)
            for name, voice in voices.items():
                log_mel = u.n.standardiser.restore(voice.float())[0, 0].cpu()
                save_waveform(f"{stem}_{name}.wav", to_wave(log_mel))
                made.append(Path(f"{stem}_{name}.wav"))
        return made

    def metrics(self) -> list[dict[str, float]]:
        """What :meth:`log` and :meth:`validate` wrote so far."""
        return read(self.path / METRICS)

    def save(self) -> Path:
        """Write a checkpoint and delete those that are too old."""
        if not self.processes.main:
            return checkpoint.folder_of(self.path, self.step)
        saved = self._write()
        checkpoint.prune(self.path, keep=self.cfg.train.keep_checkpoints, best=self.best[1])
        return saved

    def _write(self) -> Path:
        spent = None if self.free_s is None else time.process_time() - self.free_s
        return checkpoint.save(self.path, self.updater, self.batches, step=self.step, cpu_s=spent)

    def finish(self) -> Run:
        """Save what was trained so far and say where it is."""
        if self.stopped:
            self._say(f"stopped by a signal after step {self.step}; go on with -p resume auto")
        saved = self.save()
        self.processes.every(0)  # the others wait until it is on the disk
        return Run(path=self.path, config=self.cfg, step=self.step, checkpoint=saved)

    def _record(self, record: Mapping[str, float]) -> None:
        """Append a record with its ``step`` to the metrics and to TensorBoard's event files.

        Raises:
            TrainingError: the disk is full or the folder is gone.
        """
        try:
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(record) + "\n")
            for name, value in record.items():
                if name != "step":
                    self.events.add_scalar(name, value, record["step"])
        except OSError as error:
            raise TrainingError(
                f"{self.path / METRICS} could not be written ({error}); free some space and go on "
                "with -p resume auto"
            ) from error

    def _close(self) -> None:
        """Close the event files; on a full disk what was said first counts."""
        with suppress(OSError):
            self.events.close()

    def _say(self, message: str) -> None:
        self._tell({"message": message})

    def _tell(self, record: Mapping[str, Any]) -> None:
        self.on_log({"steps": self.cfg.train.steps, **record} if "step" in record else record)


def averaged(updater: Updater) -> XFaVoT:
    """The modules with G, E and M replaced by their averages; nothing is copied."""
    nets = copy.copy(updater.n.nets)
    nets._modules = {**updater.n.nets._modules, **dict(updater.ema.items())}
    return nets


def _outputs(cfg: RunConfig, batches: Batches) -> str:
    """The modalities generated, of "i" and "a": those trained that the data have.

    Raises:
        DataError: the data have none of them.
    """
    parts = {"image": "face_count", "audio": "frame_count"}
    trained = {m: parts[m] for m in parts if m in cfg.train.modalities}
    outputs = "".join(m[0] for m, n in trained.items() if any(getattr(i, n) for i in batches.items))
    if not outputs:
        raise DataError(
            f"configuration {cfg.configuration} trains {', '.join(cfg.train.modalities)}, but the "
            f"prepared data of {cfg.data.dataset} have none; choose another dataset"
        )
    return outputs


def open_networks(
    cfg: RunConfig,
    stores: list[Store],
    batches: Batches,
    outputs: str,
    on_log: Log,
    start: Path | None = None,
) -> Networks:
    """What a run trains, initialised by the seed, and the frozen two, on the run's device.

    Args:
        cfg: the run.
        stores: prepared stores, from which frozen networks that are missing are trained.
        batches: the training batches; their mel statistics are shared.
        outputs: modalities generated, of "i" and "a"; without voices the frozen two are not used.
        on_log: as in :func:`fit`.
        start: checkpoint that the weights will be restored from, the frozen ones too.
    """
    if "a" in outputs and start is None:
        known = batches.standardiser
        f0, content = (
            pretrain.ensure_network(n, cfg, stores, known, on_log).network for n in NETWORKS
        )
    else:
        depth = checkpoint.read_state(start)["content_depth"] if start is not None else 1
        f0, content = step.listeners(cfg, depth=depth)
    torch.manual_seed(cfg.seed)
    n = Networks(XFaVoT.of_run(cfg), f0, content, batches.standardiser)
    return step.place(n, device_of(cfg.train.device))


@contextmanager
def _listening(then: Callable[[], None] = lambda: None) -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM, so that a run can end between two steps; do something at each.

    A second interrupt raises KeyboardInterrupt. Outside the main thread no signals arrive.
    """
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if signals and number == signal.SIGINT:
            raise KeyboardInterrupt
        signals.append(number)
        then()

    here = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM) if here}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read(path: Path) -> list[dict[str, float]]:
    """All records of a file of JSON lines, if there is one; an unfinished last line is left out.

    Raises:
        CheckpointError: a line before the last is damaged.
    """
    records = []
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            records.append({"step": record["step"], **record})
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path}, line {number} is damaged ({error!r}); expected a record with its step; "
                "take the line out"
            ) from error
    return records
