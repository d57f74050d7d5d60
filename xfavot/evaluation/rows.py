"""Tidy rows: one measure each, with chance, the judge's own accuracy and the goal beside it."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
        "task": task, "guidance": guidance, "metric": metric, "value": value, "n": n,
        "chance": chance, "judge": judge,
        "goal": None if goal is None else f"{sense} {goal:g}", "met": met,
    }  # fmt: skip


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
