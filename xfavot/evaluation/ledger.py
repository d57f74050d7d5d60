"""What was measured and what could not be: rows for tables, and reasons for what is missing.

A measurement that fails is never a row and never replaced; its reason is kept with how many samples
it concerns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xfavot.evaluation.resampled_people import ratio_interval

UNUSABLE = "unusable_outputs"  # metric: share of a group's outputs that cannot be read

Row = dict[str, Any]


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
            [one.above for one in samples], [one.below for one in samples],
            [one.who for one in samples], seed=self.seed,
        )  # fmt: skip
        value = sum(one.above for one in samples) / total
        if low is not None and high is not None:
            low, high = min(low, value), max(high, value)
        self.add(group, {
            "metric": metric, "value": value, "ci_low": low, "ci_high": high, "n": len(samples),
            "seed": self.seed, "definition": definition,
        })  # fmt: skip

    def add(self, group: Group, row: Mapping[str, Any]) -> None:
        """Add a row that was measured elsewhere."""
        first = {"system": group.system, "task": group.task, "dataset": group.dataset}
        named = ("metric", "value", "ci_low", "ci_high", "n", "seed", "chance", "definition")
        self.rows.append({**first, **{name: row.get(name) for name in named}})

    def lacks(self, group: Group, metric: str, reason: object, samples: int = 1) -> None:
        """Remember why a metric is missing; equal reasons are counted together."""
        key = (group.system, group.task, metric, str(reason))
        self.reasons[key] = self.reasons.get(key, 0) + samples
