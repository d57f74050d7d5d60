"""Configuration: what defines a run, and `resolve`, the first package call of a notebook.

Layers, later over earlier: the defaults (`xfavot/settings.py`), the preset, the configuration
(`xfavot/presets/`), the notebook's parameters, `overrides`. Nothing is converted silently: a wrong
name, type or value is refused with a message (papermill itself only warns).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xfavot import parameters, presets
from xfavot.errors import ConfigError
from xfavot.identity import config_id, describe, from_dict, to_dict
from xfavot.parameters import (
    BENCHMARK_PARAMETERS,
    EXPLORE_PARAMETERS,
    FROM_PRESET,
    PREPARE_PARAMETERS,
    PRETRAIN_PARAMETERS,
    STUDY_PARAMETERS,
    TRAIN_PARAMETERS,
)
from xfavot.settings import (
    NETWORKS,
    TERMS_WITHOUT_WEIGHT,
    VOCODER,
    Benchmark,
    DataConfig,
    ExploreConfig,
    LossConfig,
    ModelConfig,
    PrepareConfig,
    PretrainConfig,
    Pretraining,
    RunConfig,
    TrainConfig,
    require_choice,
    require_device,
)
from xfavot.strict import build, merge, require, typed
from xfavot.study_config import FORMS, NO_MODEL, StudyConfig

__all__ = [
    "BENCHMARK_PARAMETERS",
    "EXPLORE_PARAMETERS",
    "NETWORKS",
    "PREPARE_PARAMETERS",
    "PRETRAIN_PARAMETERS",
    "STUDY_PARAMETERS",
    "TERMS_WITHOUT_WEIGHT",
    "TRAIN_PARAMETERS",
    "VOCODER",
    "Benchmark",
    "DataConfig",
    "ExploreConfig",
    "LossConfig",
    "ModelConfig",
    "PrepareConfig",
    "PretrainConfig",
    "Pretraining",
    "RunConfig",
    "StudyConfig",
    "TrainConfig",
    "config_id",
    "default_preset",
    "describe",
    "from_dict",
    "resolve",
    "resolve_benchmark",
    "resolve_explore",
    "resolve_prepare",
    "resolve_pretrain",
    "resolve_study",
    "to_dict",
]


def resolve(**given: Any) -> RunConfig:
    """Turn the parameters of `notebooks/train.ipynb` into a checked run.

    Args:
        **given: any of `TRAIN_PARAMETERS`; those left out take the default.

    Returns:
        The run; its name is set unless `overrides` holds `name`.

    Raises:
        ConfigError: an unknown name (also one that only papermill saw), a wrong type or value.
    """
    parameters.refuse_undeclared(TRAIN_PARAMETERS)
    return _run(parameters.check(TRAIN_PARAMETERS, given))


def resolve_prepare(**given: Any) -> PrepareConfig:
    """Turn the parameters of `notebooks/prepare_data.ipynb` into a checked task.

    Args:
        **given: any of `PREPARE_PARAMETERS`.

    Returns:
        The task; `workers` 0 has become the number of cores.

    Raises:
        ConfigError: an unknown name, a wrong type or value, no source for real data.
    """
    parameters.refuse_undeclared(PREPARE_PARAMETERS)
    values = parameters.check(PREPARE_PARAMETERS, given)
    dataset = values["dataset"]
    corpora = corpora_of(dataset)
    require(values["speakers"] >= 2, "speakers", values["speakers"], "2 or more", "use 16")
    made = "mini" in corpora or values["speakers"] == 16
    require(made, "speakers", values["speakers"], f"16 for {dataset}", "it sizes mini alone")
    for name in ("workers", "seed"):
        require(values[name] >= 0, name, values[name], "0 or more", "use 0")
    values["data_root"] = parameters.place("data_root", values["data_root"])
    needs = [corpus for corpus in corpora if corpus != "mini"]
    if needs and not values["source"]:
        if not values["download"]:
            raise ConfigError(
                f"source is empty; expected the folder of originals of {', '.join(needs)}; give it "
                "with -p source <folder>, or -p download True to fetch what may be fetched"
            )
        values["source"] = str(Path(values["data_root"]) / "originals")
    workers = values.pop("workers") or os.cpu_count() or 1
    return PrepareConfig(corpora=corpora, workers=workers, **values)


def resolve_pretrain(**given: Any) -> Pretraining:
    """Turn the parameters of `notebooks/pretrain.ipynb` into a checked task.

    Args:
        **given: any of `PRETRAIN_PARAMETERS`; `steps` counts for each network trained.

    Returns:
        The networks to train and the run that holds their sizes and lengths; "all" are the two
        that training needs, since a vocoder comes with the package.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(PRETRAIN_PARAMETERS)
    values = parameters.check(PRETRAIN_PARAMETERS, given)
    network, steps = values.pop("network"), values.pop("steps")
    require_choice("network", network, (*NETWORKS, VOCODER, "all"))
    networks = NETWORKS if network == "all" else (network,)
    _require_count("steps", steps)
    run = _run({**_DEFAULTS, **values})
    if steps != FROM_PRESET:
        lengths = {f"{name}_steps": steps for name in networks}
        run = dataclasses.replace(run, pretrain=dataclasses.replace(run.pretrain, **lengths))
    return Pretraining(networks=networks, run=run)


def resolve_explore(**given: Any) -> ExploreConfig:
    """Turn the parameters of `notebooks/explore.ipynb` into a checked task.

    Args:
        **given: any of `EXPLORE_PARAMETERS`.

    Returns:
        The task.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(EXPLORE_PARAMETERS)
    values = parameters.check(EXPLORE_PARAMETERS, given)
    require_device("device", values["device"])
    require(values["seed"] >= 0, "seed", values["seed"], "0 or more", "use 0")
    named = values["vocoder"]
    require(bool(named.strip()), "vocoder", named, "a name or weights", "use source_filter")
    values["data_root"] = parameters.place("data_root", values["data_root"])
    values["run_root"] = parameters.place("run_root", values["run_root"])
    return ExploreConfig(corpora=corpora_of(values["dataset"]), **values)


def resolve_benchmark(**given: Any) -> Benchmark:
    """Turn the parameters of `notebooks/benchmark.ipynb` into a checked task.

    Args:
        **given: any of `BENCHMARK_PARAMETERS`.

    Returns:
        The task; its run has the sizes of preset `paper`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(BENCHMARK_PARAMETERS)
    values = parameters.check(BENCHMARK_PARAMETERS, given)
    rounds, out = values.pop("rounds"), parameters.place("out", values.pop("out"))
    require(rounds >= 1, "rounds", rounds, "1 or more", "use 5")
    run = _run({**_DEFAULTS, **values, "preset": "paper"})
    return Benchmark(rounds=rounds, out=out, run=run)


def resolve_study(**given: Any) -> StudyConfig:
    """Turn the parameters of `notebooks/cpr_study.ipynb` into a checked task.

    Args:
        **given: any of `STUDY_PARAMETERS`.

    Returns:
        The task; `checkpoint` has become a list, empty for the ground truth alone.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(STUDY_PARAMETERS)
    values = parameters.check(STUDY_PARAMETERS, given)
    require_device("device", values["device"])
    require_choice("form", values["form"], FORMS)
    require(values["seed"] >= 0, "seed", values["seed"], "0 or more", "use 0")
    for name in ("triplets", "evaluators"):
        require(values[name] >= 1, name, values[name], "1 or more", "leave it out")
    for name in ("data_root", "run_root", "out", *(["answers"] if values["answers"] else [])):
        values[name] = parameters.place(name, values[name])
    named, runs = values.pop("checkpoint"), values.pop("run_root")
    listed = parameters.listed(named) or (runs,)
    checkpoints = () if named == NO_MODEL else listed
    return StudyConfig(checkpoints=checkpoints, corpora=corpora_of(values["dataset"]), **values)


_DEFAULTS = {parameter.name: parameter.default for parameter in TRAIN_PARAMETERS}


def default_preset(dataset: str) -> str:
    """Return the preset that an empty `preset` means: `mini` for `mini`, else `paper`."""
    return "mini" if dataset == "mini" else "paper"


def corpora_of(dataset: str) -> tuple[str, ...]:
    """Return the corpora that a dataset mixes.

    Raises:
        ConfigError: no such dataset.
    """
    described = presets.load("datasets", dataset)
    corpora: tuple[str, ...] = typed(
        described.get("corpora"), tuple[str, ...], f"datasets/{dataset}.yaml: corpora"
    )
    return corpora


def _run(values: dict[str, Any]) -> RunConfig:
    """Lay defaults, preset, configuration, parameters and overrides over each other."""
    dataset, configuration = values["dataset"], values["configuration"]
    preset = values["preset"] or default_preset(dataset)
    _require_count("steps", values["steps"])
    _require_count("batch_size", values["batch_size"])
    values["data_root"] = parameters.place("data_root", values["data_root"])
    values["run_root"] = parameters.place("run_root", values["run_root"])
    require_device("device", values["device"])
    if values["precision"]:
        require_choice("precision", values["precision"], ("float32", "bf16"))
    chosen: dict[str, Any] = {
        **{name: values[name] for name in ("configuration", "seed", "data_root", "run_root")},
        "preset": preset,
        "data": {"dataset": dataset, "corpora": corpora_of(dataset)},
        "train": {
            name: values[name]
            for name in ("steps", "batch_size", "device", "precision")
            if values[name] not in (FROM_PRESET, "")
        },
    }
    overrides = parameters.nest(values["overrides"])
    _refuse_twice(values["overrides"])
    layers: dict[str, Any] = presets.load("sizes", preset)
    for layer in (presets.load("configurations", configuration), chosen, overrides):
        layers = merge(layers, layer)
    run = build(RunConfig, layers)
    named = f"{dataset}_{configuration}_{preset}_s{run.seed}_{config_id(run)}"
    return run if run.name else dataclasses.replace(run, name=named)


def _refuse_twice(overrides: Mapping[str, Any]) -> None:
    """Refuse in `overrides` what is a parameter of the notebook, so that it stands in one place."""
    own = {"data.dataset": "dataset", "data.corpora": "dataset"}
    for name in _DEFAULTS:
        own[name] = own[f"train.{name}"] = name
    for key in overrides:
        if key in own:
            raise ConfigError(
                f"overrides holds {key!r}; expected settings that are no parameter of the "
                f"notebook; give it with -p {own[key]}"
            )


def _require_count(name: str, value: int) -> None:
    """Refuse 0 and negative numbers other than the neutral one."""
    fits = value == FROM_PRESET or value >= 1
    require(fits, name, value, f"1 or more, or {FROM_PRESET} for the preset's", "correct it")
