"""What `notebooks/paper.ipynb` is asked to do: all tables and figures of which dataset and runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from xfavot import config, parameters
from xfavot.evaluate_config import ALL
from xfavot.parameters import DATASET, EXPLORE_PARAMETERS, FROM_PRESET, PRESET, STEPS, Parameter
from xfavot.settings import RunConfig
from xfavot.strict import require

MINI = "mini"
OWN = ("source", "checkpoint", "configurations", "preset", "steps", "study", "out")
EVALUATION = ("recogniser", "metrics", "conversions", "substitute")
STUDY = ("triplets", "answers")
PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    Parameter("source", str, "", "folder of originals; not needed for mini"),
    Parameter("checkpoint", str, "", "runs or checkpoints, with commas; empty means to train"),
    Parameter("configurations", str, "xfavot", "rows of the paper's tables, with commas"),
    PRESET,
    STEPS,
    *EXPLORE_PARAMETERS[2:],
    Parameter("recogniser", str, "", "of words; empty means pocketsphinx_grid on mini, or ESPnet"),
    Parameter("metrics", str, ALL, "as in evaluate"),
    Parameter("conversions", int, FROM_PRESET, "as in evaluate"),
    Parameter("substitute", str, "judge", "as in evaluate; empty means none"),
    Parameter("triplets", int, 30, "of the study, a model and task"),
    Parameter("study", str, "", "folder of a study that was answered; empty makes one"),
    Parameter("answers", str, "", "folder of people's answers to that study; empty means none"),
    Parameter("out", str, "runs/paper", "folder of figures/ and paper_tables/"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PaperConfig:
    """All of the paper's tables and figures.

    Args:
        dataset, data_root, run_root, seed, device, vocoder: as in every notebook.
        source: folder of originals, "" for none.
        checkpoints: run folders or checkpoints; the first one is that of the figures.
        runs: what is trained first, one a configuration; empty with `checkpoints` given.
        evaluation: further parameters of `evaluate`.
        study: further parameters of `cpr_study`.
        answered: folder of the study that people answered, "" to make one.
        out: folder of `figures/` and `paper_tables/`.
    """

    dataset: str
    data_root: str
    run_root: str
    seed: int
    device: str
    vocoder: str
    source: str
    checkpoints: tuple[str, ...]
    runs: tuple[RunConfig, ...]
    evaluation: dict[str, Any]
    study: dict[str, Any]
    answered: str
    out: str


def resolve(**given: Any) -> PaperConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(PARAMETERS)
    values = parameters.check(PARAMETERS, given)
    own, evaluation, study = (
        {name: values.pop(name) for name in names} for names in (OWN, EVALUATION, STUDY)
    )
    evaluation["recogniser"] = evaluation["recogniser"] or (
        "pocketsphinx_grid" if values["dataset"] == MINI else "espnet_librispeech"
    )
    own["out"] = _absolute("out", own["out"])
    for name, values_of in (("source", own), ("study", own), ("answers", study)):
        values_of[name] = _absolute(name, values_of[name]) if values_of[name] else ""
    both = bool(own["study"]) == bool(study["answers"])
    require(both, "study", own["study"], "a study and its answers", "give -p study, -p answers")
    checkpoints = tuple(_absolute("checkpoint", one) for one in _listed(own["checkpoint"]))
    size = {name: own[name] for name in ("preset", "steps")}
    alone = not checkpoints or (own["configurations"], *size.values()) == _UNTRAINED
    require(
        alone, "checkpoint", own["checkpoint"], "no configurations, preset or steps beside it",
        "leave one of the two out",
    )  # fmt: skip
    for name in ("data_root", "run_root"):
        values[name] = _absolute(name, values[name])
    config.resolve_explore(**values)  # refuses what no notebook takes
    shared = {name: values[name] for name in ("dataset", "data_root", "run_root", "seed", "device")}
    names = () if checkpoints else _listed(own["configurations"])
    require(bool(names or checkpoints), "configurations", "", "at least one", "use xfavot")
    runs = tuple(config.resolve(**shared, **size, configuration=name) for name in names)
    return PaperConfig(
        **values, source=own["source"], checkpoints=checkpoints, runs=runs, evaluation=evaluation,
        study=study, answered=own["study"], out=own["out"],
    )  # fmt: skip


_UNTRAINED = tuple(p.default for p in PARAMETERS if p.name in ("configurations", "preset", "steps"))


def _absolute(name: str, value: str) -> str:
    """A folder for notebooks that are started elsewhere."""
    return str(Path(parameters.place(name, value)).resolve())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parameters.listed(text)))
