"""Training of the compared systems, and their checkpoints: the method's loop with other networks.

A run looks like those of the method: batches by (seed, step), ``config.json``, ``metrics.jsonl``,
checkpoints that are written whole, exact resume, signals. Its ``state.json`` names the system and
its settings, by which :func:`load_model` tells it from a checkpoint of the method.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xfavot import config, presets
from xfavot.audio.mel import differences
from xfavot.audio.vocoder import DEFAULT
from xfavot.baselines import adain_vc, fragment_vc, sgsim
from xfavot.baselines.adain_cvc import AdaINCVC
from xfavot.baselines.adain_vc import AdaINVC
from xfavot.baselines.fragment_vc import FragmentVC
from xfavot.baselines.sgsim import SGSIM
from xfavot.baselines.system import BaselineConverter, System, Trained
from xfavot.baselines.vclip import Vclip
from xfavot.config import RunConfig, config_id, from_dict
from xfavot.convert.converter import Converter
from xfavot.data.batches import Batch, Batches
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, refusing
from xfavot.files import write_whole
from xfavot.parameters import Baseline
from xfavot.strict import build, require
from xfavot.training import checkpoint, loop
from xfavot.training.checkpoint import LoadedModel
from xfavot.training.loop import Run
from xfavot.training.pretrain import Log

SYSTEMS: dict[str, type[System]] = {
    "adain_vc": AdaINVC,
    "adain_cvc": AdaINCVC,
    "fragment_vc": FragmentVC,
    "vclip": Vclip,
    "sgsim": SGSIM,
}
PUBLISHED: dict[str, Callable[[RunConfig, Path], System]] = {
    "adain_vc": adain_vc.published,
    "fragment_vc": fragment_vc.published,
    "sgsim": sgsim.published,
}
Model = LoadedModel | Trained
MODEL = "model"  # file of the networks, and name of the optimiser
CONVERSION = "conversion"  # folder in a run: the checkpoint that speaks
NOT_OF_TRAINING = ("system", "resume", "weights", "conversion")  # parameters


class Plan(NamedTuple):
    """A run of a compared system: `run.configuration` names it, `settings` are its own.

    `conversion`: where the model of the method lies that speaks, of a system that needs one.
    """

    run: RunConfig
    settings: Any
    conversion: str = ""

    def system(self) -> System:
        """Make the networks."""
        return SYSTEMS[self.run.configuration](self.settings, self.run)


def plan_of(asked: Baseline) -> Plan:
    """Put a run together: the preset of the system, parameters, overrides.

    Args:
        asked: the parameters; `overrides` may also name settings of the system, such as
            ``{"system.width": 64}``.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    given = {k: v for k, v in asdict(asked).items() if k not in NOT_OF_TRAINING}
    preset = given["preset"] = asked.preset or config.usual_preset(asked.dataset)
    layers = presets.load("baselines", f"{asked.system}_{preset}")
    layers = config.with_chosen(layers, configuration=asked.system, **given)
    settings = build(SYSTEMS[asked.system].settings_of, layers.pop("system", {}), "system")
    plan = Plan(build(RunConfig, layers), settings, asked.conversion)
    fits = SYSTEMS[asked.system].speaks == bool(asked.conversion)
    says = "a run of XFaVoT, or shipped, with system vclip alone"
    require(fits, "conversion", asked.conversion, says, "give -p conversion runs/<run>")
    same = replace(plan.run, train=replace(plan.run.train, steps=1))  # to go on with more
    about: dict[str, Any] = {"run": config_id(same), "system": asdict(plan.settings)}
    if plan.conversion:  # run and step, wherever they lie
        about["conversion"] = Path(plan.conversion).parts[-3:]
    key = config.key_of(about)[:8]
    named = f"{asked.dataset}_{asked.system}_{preset}_s{plan.run.seed}_{key}"
    return plan._replace(run=replace(plan.run, name=plan.run.name or named))


class Session(loop.Session):
    """A run of a compared system being trained; see :class:`xfavot.training.loop.Session`.

    Args:
        plan: of :func:`plan_of`.
        stack: what is opened is closed with it.
        resume, on_log: as for :func:`xfavot.training.loop.fit`.
    """

    def __init__(self, plan: Plan, stack: ExitStack, **how: Any) -> None:
        """Open the data, the run's folder and the networks."""
        self.plan, self.settings = plan, {"system": asdict(plan.settings)}
        super().__init__(plan.run, stack, **how)

    def _stores(self, cfg: RunConfig) -> list[Store]:
        count = self.processes.count
        require(count == 1, "processes", count, "1 for a compared system", "start it alone")
        return SYSTEMS[cfg.configuration].usable(super()._stores(cfg))

    def _open(self, stores: list[Store], start: Path | None, initial: Path | None) -> int:
        torch.manual_seed(self.cfg.seed)
        self.system = self.plan.system().to(self.device).train()
        self.optimizer = self.system.optimizer(self.cfg.train)
        if start is None and self.system.speaks:
            _take(self.plan.conversion, self.path / CONVERSION)
        self.system.begin(self.batches, _speaking(self.path), new=start is None)
        self.system.to(self.device)
        if start is None:
            return 0
        state = checkpoint.read_state(start)
        differing = differences(asdict(self.plan.settings), state.get("system", {}))
        expected, step = "the settings of the run that goes on", "give its parameters"
        require(not differing, "resume", f"{start}: {differing}", expected, step)
        checkpoint.load_modules(start, {MODEL: self.system})
        checkpoint.restore_optimizers(start, {MODEL: self.optimizer})
        return int(state["step"])

    def _losses(self, batches: Batches, batch: Batch) -> dict[str, Tensor]:
        """The terms of the step after the present one."""
        return self.system.losses(batch, self.step + 1, batches.waveform)

    def _move(self, batch: Batch, number: int) -> dict[str, Tensor]:
        terms = self._losses(self.batches, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(terms["loss"])
        nn.utils.clip_grad_norm_(self.system.parameters(), self.system.gradient_norm)
        self.system.schedule(self.optimizer, number)
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def validate(self) -> None:
        """Write the mean terms on fixed validation batches, if there is such a split."""
        if (known := self.validation) is None:
            return
        drawn = (known.batch(number).to(self.device) for number in range(loop.VALIDATION_BATCHES))
        self.system.eval()
        found = [self._losses(known, batch) for batch in drawn]
        self.system.train()
        means = {f"val/{k}": float(torch.stack([one[k] for one in found]).mean()) for k in found[0]}
        means["val/total"] = means[f"val/{self.system.judged_by}"]
        self._record({"step": self.step, **means})
        self.best = min(self.best, (means["val/total"], self.step))
        self._tell({"step": self.step, **means})

    def sample(self) -> list[Path]:
        """Make nothing; a run is listened to at its end."""
        return []

    def _write(self) -> Path:
        self.system.settle(self.batches)
        state = {**checkpoint.told(self.cfg, self.step, self.batches), **self.settings}
        return checkpoint.write(self.path, state, {MODEL: self.system}, {MODEL: self.optimizer})


def _take(model: str, folder: Path) -> None:
    """Copy a checkpoint of the method, but its optimisers: a run holds all that it needs."""
    path = checkpoint.load_model(model).path
    state = checkpoint.read_state(path)
    sizes = {name: n for name, n in state["bytes"].items() if name != checkpoint.OPTIMIZER}
    advice = "free some space, and start again"
    with refusing(OSError, CheckpointError, f"{folder} could not be written", advice):
        folder.mkdir(parents=True, exist_ok=True)
        for name in sizes:
            shutil.copyfile(path / name, folder / name)
        write_whole(folder / checkpoint.STATE, json.dumps(state | {"bytes": sizes}, indent=1))


def _speaking(run: Path) -> Converter | None:
    """The model of the method that speaks in a run, if it has one."""
    folder = run / CONVERSION
    return Converter(checkpoint.load_model(folder)) if folder.is_dir() else None


def fit(plan: Plan, *, resume: str = "", on_log: Log | None = None) -> Run:
    """Train a compared system; see :func:`xfavot.training.loop.fit` for arguments and errors."""
    with ExitStack() as stack:
        return loop.train(Session(plan, stack, resume=resume, on_log=on_log))


def import_published(plan: Plan, weights: Path) -> Run:
    """Make a run, at step 0, of the checkpoint that the authors of a system published.

    Args:
        plan: of one of :data:`PUBLISHED`, preset `paper`.
        weights: see its function.

    Raises:
        ConfigError: another system or other sizes.
        WeightsError: the files cannot be used.
        CheckpointError: the run cannot be written.
    """
    system, own = plan.run.configuration, SYSTEMS[plan.run.configuration]
    fits, known = plan.settings == own.settings_of(), " or ".join(PUBLISHED)
    step = f"give -p system {known} with -p preset paper"
    expected = f"a checkpoint of {known}, at its own sizes"
    require(fits and system in PUBLISHED, "weights", str(weights), expected, step)
    cfg = replace(plan.run, name=f"published_{system}")
    run, opened = Path(cfg.run_root, cfg.name), PUBLISHED[system](cfg, weights)
    settings = {"system": asdict(plan.settings)}
    checkpoint.write_config(run, cfg, **settings)
    state = checkpoint.told(cfg, 0) | settings
    return Run(run, cfg, 0, checkpoint.write(run, state, {MODEL: opened}, {}))


def load_model(path: Path | str) -> Model:
    """Open a checkpoint of the method or of a compared system for conversion, on the CPU.

    Args:
        path: as :func:`xfavot.training.checkpoint.locate` takes it.

    Raises:
        CheckpointError: it is missing, damaged, or of a system that this version does not know.
    """
    path = checkpoint.locate(path)
    state = checkpoint.read_state(path)
    if "system" not in state:
        return checkpoint.load_model(path)
    cfg = from_dict(state["config"])
    if (name := cfg.configuration) not in SYSTEMS:
        raise CheckpointError(f"{path}: system {name!r}; expected one of {', '.join(SYSTEMS)}")
    system = Plan(cfg, build(SYSTEMS[name].settings_of, state["system"], "system")).system()
    checkpoint.load_modules(path, {MODEL: system})
    statistics = checkpoint.statistics_of(state)
    folder = path.parents[1] / CONVERSION
    speaks = checkpoint.load_model(folder) if system.speaks else None
    known = statistics, cfg, int(state["step"]), path, speaks
    return Trained(system.requires_grad_(False), *known)


def converter_of(model: Model, **how: Any) -> Converter:
    """Put a checkpoint behind the interface of a converter.

    Args:
        model: of :func:`load_model`.
        how: `name`, `device`, `vocoder`, as for :class:`Converter`.
    """
    how = {"name": model.title, "device": "cpu", "vocoder": DEFAULT, **how}
    if isinstance(model, Trained):
        kind: type[BaselineConverter] = getattr(model.nets, "converter", BaselineConverter)
        return kind(model, **how)
    return Converter(model, **how)
