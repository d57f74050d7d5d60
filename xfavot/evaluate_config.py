"""What `notebooks/evaluate.ipynb` is asked to do: measure a checkpoint, or foreign outputs."""

from __future__ import annotations

import dataclasses
from typing import Any

from xfavot import config, parameters
from xfavot.parameters import EXPLORE_PARAMETERS, FROM_PRESET, Parameter
from xfavot.settings import ExploreConfig, require_choice
from xfavot.strict import require

RECOGNISERS = ("espnet_librispeech", "pocketsphinx_grid")
METRICS = (
    *("fid", "lpips", "preservation"),  # of faces; the others are of voices
    *("nisqa", "speaker_similarity", "word_error", "f0", "content", "verification"),
)
ALL = "all"
SUBSTITUTES = ("", "judge")
MINI_CONVERSIONS = 24  # voices a task, faces a direction; minutes, not hours
PARAMETERS: tuple[Parameter, ...] = (
    *EXPLORE_PARAMETERS,
    Parameter("manifest", str, "", "CSV file of foreign outputs; empty means the checkpoint"),
    Parameter("recogniser", str, "espnet_librispeech", "or pocketsphinx_grid, of GRID's sentences"),
    Parameter("out", str, "runs/foreign", "folder of the scores of a manifest"),
    Parameter("metrics", str, ALL, "or some, with commas: fid, lpips, nisqa, word_error, ..."),
    Parameter("conversions", int, FROM_PRESET, "of each task; 0: the paper's; -1: few on mini"),
    Parameter("substitute", str, "", "judge: also the judge of faces, under its own name"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(ExploreConfig):
    """What `evaluate` measures.

    Args:
        manifest: CSV file of outputs that another system made; "" to measure the checkpoint, which
            is otherwise the verifier, if given.
        recogniser: of the words in foreign voices.
        out: folder of the scores of a manifest.
        metrics: of the paper's protocol, some of :data:`METRICS`.
        conversions: voices a task and source faces a direction; 0 for the paper's counts.
        substitute: of the networks of FID and LPIPS, "" or "judge".
    """

    manifest: str
    recogniser: str
    out: str
    metrics: tuple[str, ...]
    conversions: int
    substitute: str


def resolve(**given: Any) -> EvaluateConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(PARAMETERS)
    values = parameters.check(PARAMETERS, given)
    fields = {field.name for field in dataclasses.fields(ExploreConfig)}
    own = {name: values.pop(name) for name in list(values) if name not in fields}
    require_choice("recogniser", own["recogniser"], RECOGNISERS)
    require_choice("substitute", own["substitute"], SUBSTITUTES)
    own["metrics"] = _metrics(own["metrics"])
    count = own["conversions"]
    require(count >= FROM_PRESET, "conversions", count, "-1 or more", "use 0 for the paper's")
    if count == FROM_PRESET:
        own["conversions"] = MINI_CONVERSIONS if values["dataset"] == "mini" else 0
    for name in ("out", *(["manifest"] if own["manifest"] else [])):
        own[name] = parameters.place(name, own[name])
    shared = config.resolve_explore(**values)
    return EvaluateConfig(**dataclasses.asdict(shared), **own)


def _metrics(text: str) -> tuple[str, ...]:
    """Read a list of metrics."""
    names = parameters.listed(text)
    require(bool(names), "metrics", text, "names with commas", f"use {ALL}")
    for name in names:
        require_choice("metrics", name, (ALL, *METRICS))
    return METRICS if ALL in names else tuple(name for name in METRICS if name in names)
