"""Tidy rows: one measure each, with chance, the judge's own accuracy and the goal beside it."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.errors import DataError

COLUMNS = ("task", "guidance", "metric", "value", "n", "chance", "judge", "goal", "met")
PROVENANCE = ("run", "step", "dataset", "manifest", "split", "seed", "judges")
AT_LEAST, AT_MOST = ">=", "<="
HEADS = {
    "task": "task",
    "guidance": "guidance",
    "metric": "measure",
    "value": "value",
    "n": "n",
    "chance": "chance",
    "judge": "judge on real",
    "goal": "goal",
    "met": "met",
}

Row = dict[str, Any]


def row(
    task: str,
    guidance: str,
    metric: str,
    value: float,
    n: int,
    *,
    chance: float | None = None,
    judge: float | None = None,
    goal: float | None = None,
    sense: str = AT_LEAST,
) -> Row:
    """Make one row.

    Args:
        task: "a2i" and so on, or what else is measured.
        guidance: what gave the style, "" if nothing did.
        metric: name of the measure.
        value: the figure.
        n: samples, pairs or queries behind it.
        chance: what blind guessing gives.
        judge: the judge's own figure on real samples not trained on.
        goal: what is asked; None for information.
        sense: ">=" or "<=", how value and goal are compared.

    Raises:
        DataError: the value is not finite.
    """
    if not math.isfinite(value):
        raise DataError(
            f"evaluation: {metric} of {task} is {value} over {n} samples; expected a finite "
            "number; check that the checkpoint's outputs are finite"
        )
    met = None if goal is None else (value >= goal if sense == AT_LEAST else value <= goal)
    return {
        "task": task,
        "guidance": guidance,
        "metric": metric,
        "value": value,
        "n": n,
        "chance": chance,
        "judge": judge,
        "goal": None if goal is None else f"{sense} {goal:g}",
        "met": met,
    }


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows as a table in Markdown, rounded, with their provenance above it.

    Args:
        rows: of :func:`row`; the provenance, if any, is that of the first one.
    """
    first = rows[0] if rows else {}
    asked = [one for one in rows if one["met"] is not None]
    lines = [
        ", ".join(f"{name} {first[name]}" for name in PROVENANCE if name in first),
        "",
        f"{sum(bool(one['met']) for one in asked)} of {len(asked)} goals met.",
        "",
        "| " + " | ".join(HEADS.values()) + " |",
        "|" + "|".join("---:" if name in NUMBERS else "---" for name in HEADS) + "|",
    ]
    lines += ["| " + " | ".join(_cell(one[name]) for name in HEADS) + " |" for one in rows]
    return "\n".join(lines).lstrip("\n") + "\n"


NUMBERS = ("value", "n", "chance", "judge", "goal")


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return cell(value)


def cell(value: Any) -> str:
    """Write one value into a table of Markdown: floats with three digits, nothing for ``None``."""
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value).replace("|", "/")


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Write rows as CSV in full precision, an empty cell for ``None``.

    Args:
        rows: with no other columns than these.
        columns: in their order.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def replace_text(file: Path, text: str) -> None:
    """Write a file whole or not at all, in a folder that is made if need be.

    Raises:
        OSError: it cannot be written.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


def save(rows: Sequence[Row], folder: Path | str, *, name: str = "learning") -> Path:
    """Write `<name>.csv` (full precision) and `<name>.md` (rounded), each whole or not at all.

    Args:
        rows: of one evaluation.
        folder: usually `<run>/evaluation`; made if it is not there.
        name: of the two files.

    Returns:
        The table in Markdown; the other file lies beside it.

    Raises:
        DataError: they cannot be written.
    """
    extra = [key for key in PROVENANCE if rows and key in rows[0]]
    target = Path(folder, f"{name}.md")
    try:
        replace_text(target.with_suffix(".csv"), csv_text(rows, [*COLUMNS, *extra]))
        replace_text(target, markdown(rows))
    except OSError as error:
        raise DataError(
            f"{folder}: the table cannot be written ({error}); expected a folder with room for a "
            "few kilobytes; free some space"
        ) from error
    return target


# Bootstrap over people: intervals that do not take the samples of one person for independent


LEVEL = 0.95
DRAWS = 1000
FEWEST = 2  # people, below which there is no interval

Array = NDArray[np.float64]


def draws_of(people: int, *, seed: int, draws: int = DRAWS) -> Array:
    """(draws, people): how often each person is drawn."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(people, np.full(people, 1 / people), size=draws).astype(np.float64)


def quantiles(values: Iterable[float]) -> tuple[float, float] | tuple[None, None]:
    """Return the interval of bootstrapped values; those that are not finite do not count."""
    found = np.array(list(values), dtype=np.float64)
    found = found[np.isfinite(found)]
    if not found.size:
        return None, None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio_interval(
    above: Sequence[float], below: Sequence[float], people: Sequence[str], *, seed: int
) -> tuple[float, float] | tuple[None, None]:
    """Interval of a ratio of two sums over samples, such as errors over words; see also the mean.

    Args:
        above, below: of every sample; for a mean, `below` is all ones.
        people: to whom each sample belongs.
        seed: of the draws.

    Returns:
        The interval, or nothing with fewer than two people.
    """
    names = sorted(set(people))
    if len(names) < FEWEST:
        return None, None
    numbers = {name: number for number, name in enumerate(names)}
    code = [numbers[name] for name in people]
    sums = np.zeros((2, len(names)))
    np.add.at(sums[0], code, above)
    np.add.at(sums[1], code, below)
    weight = draws_of(len(names), seed=seed)  # (draws, K)
    top, bottom = weight @ sums[0], weight @ sums[1]
    return quantiles(top[bottom > 0] / bottom[bottom > 0])


# What was measured and what could not be: rows for tables, and reasons for what is missing


UNUSABLE = "unusable_outputs"  # metric: share of a group's outputs that cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """What rows belong together: one system, one task, one set of data."""

    system: str
    task: str
    dataset: str


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: ``above / below`` is its value, and of many the ratio of sums.

    Args:
        above: value, or errors.
        below: 1, or words.
        who: to whom it belongs, for intervals.
    """

    above: float
    below: float
    who: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A metric that a group has not, or not for all of its samples."""

    system: str
    task: str
    metric: str
    reason: str
    samples: int


@dataclass(slots=True, eq=False)
class Ledger:
    """Rows in the columns of the project's tables, and what is missing.

    Args:
        seed: of the intervals.
    """

    seed: int = 0
    rows: list[Row] = field(default_factory=list)
    reasons: dict[tuple[str, str, str, str], int] = field(default_factory=dict)

    @property
    def missing(self) -> list[Missing]:
        """What is missing and why, in the order in which it was found."""
        return [Missing(*key, samples) for key, samples in self.reasons.items()]

    def mean(self, group: Group, metric: str, samples: Sequence[Sample], definition: str) -> None:
        """Add the ratio of sums of some samples; nothing if there is none."""
        total = sum(one.below for one in samples)
        if not total:
            return
        low, high = ratio_interval(
            [one.above for one in samples],
            [one.below for one in samples],
            [one.who for one in samples],
            seed=self.seed,
        )
        value = sum(one.above for one in samples) / total
        if low is not None and high is not None:
            low, high = min(low, value), max(high, value)
        self.add(
            group,
            {
                "metric": metric,
                "value": value,
                "ci_low": low,
                "ci_high": high,
                "n": len(samples),
                "seed": self.seed,
                "definition": definition,
            },
        )

    def add(self, group: Group, row: Mapping[str, Any]) -> None:
        """Add a row that was measured elsewhere."""
        first = {"system": group.system, "task": group.task, "dataset": group.dataset}
        named = ("metric", "value", "ci_low", "ci_high", "n", "seed", "chance", "definition")
        self.rows.append({**first, **{name: row.get(name) for name in named}})

    def lacks(self, group: Group, metric: str, reason: object, samples: int = 1) -> None:
        """Remember why a metric is missing; equal reasons are counted together."""
        key = (group.system, group.task, metric, str(reason))
        self.reasons[key] = self.reasons.get(key, 0) + samples
