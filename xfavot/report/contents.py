"""What is in the tables and figures of a folder, what is missing, and why."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from xfavot.report.artifact import read_record, read_table
from xfavot.report.tidy import MISSING

TABLES = (
    *(f"table{number}" for number in range(1, 10)),
    *("correspondence", "verification", "by_direction_and_sex", "modules"),
)
FIGURES = tuple(f"fig{number}" for number in range(1, 11))
NOT_MADE = "not made: see the log of notebooks/{}.ipynb"


@dataclass(frozen=True, slots=True)
class Contents:
    """What lies in a folder; a notebook shows it as Markdown.

    Args:
        items: name, tier, values and empty cells of every table and figure; a tier "" for one that
            is not there.
        reasons: reason, tables and number of cells, most cells first.
        failed: what could not be run.
    """

    items: tuple[tuple[str, str, int, int], ...]
    reasons: tuple[tuple[str, str, int], ...]
    failed: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """The Markdown, which logs show as well."""
        lines = ["| item | tier | values | empty cells |", "|---|---|---:|---:|"]
        for name, tier, values, empty in self.items:
            if tier:
                lines.append(f"| {name} | {tier} | {values or ''} | {empty or ''} |")
            else:
                notebook = "figures" if name in FIGURES else "tables"
                lines.append(f"| {name} | {NOT_MADE.format(notebook)} | | |")
        lines += ["", "Empty cells, and why:" if self.reasons else "No cell is empty.", ""]
        lines += [f"- {cells} in {where}: {reason}" for reason, where, cells in self.reasons]
        lines += ["", *(f"- failed: {one}" for one in self.failed)]
        return "\n".join(lines).rstrip("\n") + "\n"

    def _repr_markdown_(self) -> str:
        return repr(self)


def contents(out: str | os.PathLike[str], failed: Sequence[str] = ()) -> Contents:
    """Read every table and the record of every figure.

    Args:
        out: the folder with `paper_tables/` and `figures/`.
        failed: what could not be run.

    Raises:
        DataError: one of them is damaged or was edited.
    """
    items: list[tuple[str, str, int, int]] = []
    told: dict[str, list[str]] = {}
    there = sorted(path.name for path in Path(out, "paper_tables").glob("[!.]*"))
    for name in dict.fromkeys((*TABLES, *there)):
        folder = Path(out, "paper_tables", name)
        if not folder.is_dir():
            items.append((name, "", 0, 0))
            continue
        table = read_table(folder)
        empty = [str(row[MISSING]) for row in table.rows if row.get(MISSING)]
        for reason in empty:
            told.setdefault(reason, []).append(name)
        items.append((name, str(table.record["tier"]), len(table.rows) - len(empty), len(empty)))
    for name in FIGURES:
        folder = Path(out, "figures", name)
        tier = str(read_record(folder)["tier"]) if folder.is_dir() else ""
        items.append((name, tier, 0, 0))
    reasons = sorted(told.items(), key=lambda pair: -len(pair[1]))
    return Contents(
        tuple(items),
        tuple((why, ", ".join(dict.fromkeys(where)), len(where)) for why, where in reasons),
        tuple(failed),
    )
