"""What each notebook may be given, declared once, and the check that nothing else was.

Papermill injects a cell of assignments below the notebook's own parameters and only warns of a name
that the notebook does not declare; a value arrives as whatever its text looks like. So the first
package call of a notebook checks names, types and values here. A test compares every notebook's
parameter cell with these lists.

Neutral literals: `""` means none or the preset's, `-1` means the preset's. They are plain literals
of the declared type because papermill shows and sets only such parameters (`int | None` disappears
from `papermill --help-notebook`), and they leave 0 free to be refused.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfavot.errors import ConfigError
from xfavot.presets import parse
from xfavot.strict import nearest, require, typed

FROM_PRESET = -1  # neutral value of whole-number parameters
INJECTED_HEAD = "# Parameters"  # first line of the cell that papermill injects


@dataclass(frozen=True, slots=True)
class Parameter:
    """One notebook parameter: name, type, neutral or default literal, and its help text."""

    name: str
    type: type
    default: Any
    help: str

    def line(self) -> str:
        """Return the parameter as its line in the notebook's parameter cell."""
        return f"{self.name}: {self.type.__name__} = {_literal(self.default)}  # {self.help}"


def _literal(value: object) -> str:
    """Write a literal with double quotes, as the formatter would."""
    return json.dumps(value) if isinstance(value, str | dict) else repr(value)


DATASET = Parameter("dataset", str, "mini", "mixture of corpora, see the README")
PRESET = Parameter("preset", str, "", "size; empty means mini for dataset mini, else paper")
STEPS = Parameter("steps", int, FROM_PRESET, "training steps; -1 means the preset's")
SEED = Parameter("seed", int, 0, "seed of everything random")
DEVICE = Parameter("device", str, "auto", "auto, cpu, cuda, cuda:1 or mps")
DATA_ROOT = Parameter("data_root", str, "data", "folder of prepared stores")
RUN_ROOT = Parameter("run_root", str, "runs", "folder of runs")
OVERRIDES = Parameter("overrides", dict, {}, "dotted settings, such as loss.xm, to values")

TRAIN_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    Parameter("configuration", str, "xfavot", "row of the paper's tables"),
    PRESET,
    STEPS,
    Parameter("batch_size", int, FROM_PRESET, "samples a step; -1 means the preset's"),
    SEED,
    DEVICE,
    Parameter("precision", str, "", "float32 or bf16; empty means the preset's"),
    DATA_ROOT,
    RUN_ROOT,
    Parameter("resume", str, "", "run folder or checkpoint to go on from; empty means none"),
    OVERRIDES,
)

PREPARE_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    Parameter("source", str, "", "folder of originals; not needed for mini"),
    Parameter("download", bool, False, "first fetch what the owners let anyone download"),
    Parameter("speakers", int, 16, "people in mini"),
    DATA_ROOT,
    Parameter("workers", int, 0, "processes; 0 means one a core"),
    SEED,
)

PRETRAIN_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("network", str, "all", "f0, content, vocoder, or all: the first two"),
    DATASET,
    PRESET,
    STEPS,
    SEED,
    DEVICE,
    DATA_ROOT,
    RUN_ROOT,
    OVERRIDES,
)

EXPLORE_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("checkpoint", str, "", "run folder or checkpoint; empty means the newest"),
    DATASET,
    DATA_ROOT,
    RUN_ROOT,
    SEED,
    DEVICE,
    Parameter("vocoder", str, "source_filter", "a vocoder's name, or its weights on disk"),
)

BENCHMARK_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    DATA_ROOT,
    DEVICE,
    SEED,
    Parameter("rounds", int, 5, "times that each thing is timed"),
    Parameter("out", str, "runs/benchmark", "folder of the tables and figures"),
)

STUDY_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("checkpoint", str, "", "runs or checkpoints with commas; empty: newest, none: none"),
    *EXPLORE_PARAMETERS[1:],
    Parameter("form", str, "faces", "faces: a voice, two faces (paper); outputs: also two voices"),
    Parameter("triplets", int, 30, "questions a model and task"),
    Parameter("evaluators", int, 5, "pages to make"),
    Parameter("answers", str, "", "folder of answers to read back; empty means make the pages"),
    Parameter("out", str, "runs/cpr_study", "folder of the study"),
)


def parameter_cell(parameters: Sequence[Parameter]) -> str:
    """Write the parameter cell of a notebook.

    Args:
        parameters: one of the lists above.

    Returns:
        The cell's source, without a final newline.
    """
    return "\n".join(parameter.line() for parameter in parameters)


def check(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of what a notebook passes; fill in defaults.

    Args:
        parameters: what the notebook declares.
        given: what it passes.

    Returns:
        A value for every declared parameter.

    Raises:
        ConfigError: an unknown name, or a value of another type.
    """
    declared = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in declared:
            raise ConfigError(f"{name} is not a parameter here; {nearest(name, declared)}")
    values: dict[str, Any] = {}
    for name, parameter in declared.items():
        value = given.get(name, parameter.default)
        if name == OVERRIDES.name:
            values[name] = read_overrides(value)
        else:
            values[name] = typed(value, parameter.type, name)
    return values


def listed(text: str) -> tuple[str, ...]:
    """Read names separated by commas; empty ones do not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_overrides(value: object) -> dict[str, Any]:
    """Read the `overrides` parameter: a mapping, or the text of one.

    `papermill -y 'overrides: {loss.xm: 0.5}'` hands over a dict; `-p overrides '{"loss.xm": 0.5}'`
    hands over its text, which is read as JSON or else as YAML, with the types that these give.

    Args:
        value: dict with dotted keys, or JSON or YAML text of one; an empty text is no override.

    Returns:
        Dotted name to value.

    Raises:
        ConfigError: neither of the two.
    """
    if isinstance(value, str):
        try:
            loaded = json.loads(value) if value.strip() else {}
        except json.JSONDecodeError:
            loaded = parse(value, "overrides")
        value = loaded
    overrides = typed(value, dict, "overrides")
    for key in overrides:
        typed(key, str, "a key of overrides")
    return dict(overrides)


def nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into sections: `{"loss.xm": 0}` into `{"loss": {"xm": 0}}`."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if isinstance(value, dict):
            raise ConfigError(
                f"overrides: {key} is a mapping; expected one setting a key; "
                f"write {key}.<name>: value"
            )
        (nested.setdefault(section, {}) if name else nested)[name or section] = value
    return nested


def place(name: str, value: str) -> str:
    """Say where a folder parameter points.

    Papermill runs a notebook in the folder that it was called from, JupyterLab in the notebook's
    own. So that `data` and `runs` are the same folders in both, a relative folder is taken from the
    repository's root where the current folder is its `notebooks/`.

    Args:
        name: the parameter's name.
        value: the folder given.

    Returns:
        The folder, relative to the current one or absolute.

    Raises:
        ConfigError: it is empty.
    """
    require(bool(value.strip()), name, value, "a folder", f"leave -p {name} out for the default")
    here = Path.cwd()
    inside = here.name == "notebooks" and (here.parent / "xfavot" / "config.py").is_file()
    return str(Path("..", value)) if inside and not Path(value).is_absolute() else value


def refuse_undeclared(parameters: Sequence[Parameter], *, depth: int = 2) -> None:
    """Refuse names that papermill injected although the notebook does not declare them.

    Papermill does not tell the kernel what it injected, but IPython keeps the source of every cell
    it ran in the notebook's namespace (`In`). The last one that starts as papermill's injected cell
    is parsed; nothing is executed. Calls from anywhere but a notebook's own cell are not checked.

    Args:
        parameters: what the notebook declares.
        depth: how many calls above this one the notebook's cell stands.

    Raises:
        ConfigError: an injected name is not declared.
    """
    history = sys._getframe(depth).f_globals.get("In")
    if not isinstance(history, list):
        return
    cells = [cell for cell in history if isinstance(cell, str) and cell.startswith(INJECTED_HEAD)]
    if not cells:
        return
    declared = [parameter.name for parameter in parameters]
    for node in ast.walk(ast.parse(cells[-1])):
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if isinstance(node, ast.Name) and stored and node.id not in declared:
            raise ConfigError(
                f"{node.id} was given with -p but is not a parameter of this notebook; "
                f"{nearest(node.id, declared)}"
            )
