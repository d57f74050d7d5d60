"""What `notebooks/tables.ipynb` is asked to do: the tables of which dataset, from which runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from xfavot import config, parameters
from xfavot.parameters import DATA_ROOT, DATASET, RUN_ROOT, SEED, Parameter
from xfavot.settings import RunConfig

TABLES_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    RUN_ROOT,
    DATA_ROOT,
    SEED,
    Parameter("out", str, "runs/tables", "folder of the tables"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TablesConfig:
    """Which tables are made.

    Args:
        out: folder of the tables.
        run: dataset and folders, and the paper's sizes, which Tables 6 to 9 show.
    """

    out: str
    run: RunConfig


def resolve(**given: Any) -> TablesConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `TABLES_PARAMETERS`.

    Returns:
        The task; its run has the sizes of preset `paper`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    parameters.refuse_undeclared(TABLES_PARAMETERS)
    values = parameters.check(TABLES_PARAMETERS, given)
    out = parameters.place("out", values.pop("out"))
    return TablesConfig(out=out, run=config.resolve(**values, preset="paper"))
