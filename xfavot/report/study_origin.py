"""The models of a study and where its questions come from."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from xfavot import config
from xfavot.convert import Converter
from xfavot.data.manifest import Store
from xfavot.evaluation.triplets import split_of
from xfavot.report.provenance import Beginning, Checkpoint, Provenance, collect, machine
from xfavot.study_config import StudyConfig
from xfavot.training.checkpoint import load_model

PAPER_TRIPLETS = 30
DEFAULTS = {"dataset": "mini", "seed": 0, "vocoder": "source_filter", "form": "faces",
            "triplets": 30, "evaluators": 5}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class System:
    """A model of a study, with the hash of its weights."""

    name: str
    converter: Converter
    sha256: str


def systems_of(cfg: StudyConfig) -> list[System]:
    """Load the models.

    Args:
        cfg: the task.

    Returns:
        One a checkpoint, named after its configuration; where several have the same one, after the
        run and, if need be, the step.

    Raises:
        CheckpointError: a checkpoint cannot be used.
    """
    models = [load_model(Path(checkpoint)) for checkpoint in cfg.checkpoints]
    names = [model.config.configuration for model in models]
    for finer in (lambda m: m.config.name, lambda m: f"{m.config.name} at step {m.step}"):
        often = Counter(names)
        names = [finer(m) if often[n] > 1 else n for m, n in zip(models, names, strict=True)]
    return [
        System(
            name=name, sha256=_hash(model.path),
            converter=Converter(model, name=name, device=cfg.device, vocoder=cfg.vocoder),
        )
        for name, model in zip(names, models, strict=True)
    ]  # fmt: skip


def origin_of(
    cfg: StudyConfig, began: Beginning, stores: Sequence[Store], systems: Sequence[System]
) -> Provenance:
    """Gather where the questions come from.

    Args:
        cfg: the task.
        began: when the work began.
        stores: prepared stores read.
        systems: of :func:`systems_of`; the first one stands for the checkpoint, all are named with
            the hash of their weights.
    """
    runs = [system.converter.config for system in systems]
    run = runs[0] if runs else config.resolve(dataset=cfg.dataset, seed=cfg.seed)
    checkpoints = [Checkpoint(step=s.converter.step, sha256=s.sha256) for s in systems]
    words = ["papermill", "notebooks/cpr_study.ipynb", "out.ipynb"]
    for name, value in DEFAULTS.items():
        given = getattr(cfg, name)
        if given != value and "/" not in str(given):  # no folder of the machine
            words += ["-p", name, str(given)]
    origin = collect(
        began, run, tier=tier_of(cfg, [r.preset for r in runs]), stores=stores,
        split=split_of(stores), seeds=(cfg.seed,),
        weights={f"model {system.name}": system.sha256 for system in systems},
        checkpoint=checkpoints[0] if checkpoints else None, notebook="cpr_study",
        command=shlex.join(words),
    )  # fmt: skip
    return dataclasses.replace(origin, dataset=cfg.dataset)  # not what the model was trained on


def tier_of(cfg: StudyConfig, presets: Sequence[str]) -> str:
    """Tier of a study: "paper" if every model is of that size and there are 30 triplets each."""
    if "smoke" in presets:
        return "smoke"
    full = bool(presets) and set(presets) == {"paper"} and cfg.triplets >= PAPER_TRIPLETS
    return "paper" if full else "reduced"


def answered(origin: Provenance, began: Beginning) -> Provenance:
    """Return the provenance of a study's tables, written now."""
    return dataclasses.replace(
        origin, started_at=began.at, wall_s=round(time.monotonic() - began.clock, 3),
        device=machine("cpu"),
    )  # fmt: skip


def _hash(checkpoint: Path) -> str:
    found = hashlib.sha256()
    for name in ("model", "ema"):
        with (checkpoint / f"{name}.safetensors").open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                found.update(block)
    return found.hexdigest()
