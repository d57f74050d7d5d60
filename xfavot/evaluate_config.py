"""What `notebooks/evaluate.ipynb` is asked to do: measure a checkpoint, or foreign outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from xfavot import config, parameters
from xfavot.parameters import EVALUATE_PARAMETERS
from xfavot.settings import ExploreConfig, require_choice

RECOGNISERS = ("espnet_librispeech", "pocketsphinx_grid")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(ExploreConfig):
    """What `evaluate` measures.

    Args:
        manifest: CSV file of outputs that another system made; "" to measure the checkpoint, which
            is otherwise the verifier, if given.
        recogniser: of the words in foreign voices.
        out: folder of the scores of a manifest.
    """

    manifest: str
    recogniser: str
    out: str


def resolve(**given: Any) -> EvaluateConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `EVALUATE_PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(EVALUATE_PARAMETERS)
    values = parameters.check(EVALUATE_PARAMETERS, given)
    own = {name: values.pop(name) for name in ("manifest", "recogniser", "out")}
    require_choice("recogniser", own["recogniser"], RECOGNISERS)
    for name in ("out", *(["manifest"] if own["manifest"] else [])):
        own[name] = parameters.place(name, own[name])
    shared = config.resolve_explore(**values)
    return EvaluateConfig(**dataclasses.asdict(shared), **own)
