"""What `notebooks/figures.ipynb` is asked to draw: one checkpoint, others to compare, a study."""

from __future__ import annotations

import dataclasses
from typing import Any

from xfavot import config, parameters
from xfavot.parameters import EXPLORE_PARAMETERS, Parameter
from xfavot.settings import ExploreConfig
from xfavot.strict import require
from xfavot.study_config import StudyConfig

FIGURES_PARAMETERS: tuple[Parameter, ...] = (
    *EXPLORE_PARAMETERS,
    Parameter("others", str, "", "runs or checkpoints to compare with, with commas"),
    Parameter("study", str, "", "folder of a correspondence study; empty means an automatic one"),
    Parameter("answers", str, "", "folder of answers to that study; empty means none"),
    Parameter("triplets", int, 30, "of the automatic study, a model and task"),
    Parameter("out", str, "runs/figures", "folder of the figures and voices"),
)
FOLDERS = ("study", "answers")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FiguresConfig(ExploreConfig):
    """What the figures show.

    Args:
        others: run folders or checkpoints that Fig. 3 and 5 compare with.
        study: folder of a study whose result Fig. 5 is; "" for the automatic one.
        answers: folder of answers to it; "" for none.
        triplets: of the automatic study, a model and task.
        out: folder that is written to.
    """

    others: tuple[str, ...]
    study: str
    answers: str
    triplets: int
    out: str

    @property
    def asked(self) -> StudyConfig:
        """The study behind Fig. 5, of all checkpoints; the first one is that of the figures."""
        shared = {
            name: getattr(self, name)
            for name in ("dataset", "corpora", "data_root", "seed", "device", "vocoder", "answers")
        }
        checkpoints = (self.checkpoint or self.run_root, *self.others)
        return StudyConfig(
            checkpoints=checkpoints, form="faces", triplets=self.triplets, evaluators=1,
            out=self.study, **shared,
        )  # fmt: skip


def resolve(**given: Any) -> FiguresConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `FIGURES_PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(FIGURES_PARAMETERS)
    values = parameters.check(FIGURES_PARAMETERS, given)
    own = {name: values.pop(name) for name in ("others", "study", "answers", "triplets", "out")}
    require(own["triplets"] >= 1, "triplets", own["triplets"], "1 or more", "leave it out")
    alone = bool(own["answers"]) and not own["study"]
    require(not alone, "study", own["study"], "the study that was answered", "name its folder")
    own["others"] = parameters.listed(own["others"])
    for name in ("out", *(folder for folder in FOLDERS if own[folder])):
        own[name] = parameters.place(name, own[name])
    shared = config.resolve_explore(**values)
    return FiguresConfig(**dataclasses.asdict(shared), **own)
