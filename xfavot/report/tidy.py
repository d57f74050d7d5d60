"""Tidy rows, one number each: their check, their CSV and their Markdown.

Rounding, in Markdown alone: three significant digits, the digits before the decimal point and whole
numbers in full.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xfavot.errors import DataError
from xfavot.report.provenance import Provenance

COLUMNS = ("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed")
NAMES = ("system", "metric")  # never empty
MISSING = "missing"  # column: why a row has no value
DIGITS = 3  # significant, in Markdown
WHOLE, NUMBER = re.compile(r"-?\d+"), re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")

Row = Mapping[str, Any]


def plain_rows(item: str, rows: Iterable[Row], tier: str) -> list[dict[str, Any]]:
    """Bring rows to plain values and the same columns.

    Args:
        item: the artifact, for messages.
        rows: at least one; a column that a row lacks becomes ``None`` there.
        tier: of the artifact; a row with another ``tier`` is refused.

    Raises:
        DataError: no row, a value that is neither text nor a finite number, or mixed tiers.
    """
    plain = [{k: v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in rows]
    if not plain:
        raise DataError(f"{item}: no row to write; expected at least one")
    columns = list(dict.fromkeys(key for row in plain for key in row))
    for number, row in enumerate(plain, 1):
        for key, value in row.items():
            if not isinstance(value, str | int | float | None) or (
                isinstance(value, float) and not math.isfinite(value)
            ):
                raise DataError(
                    f"{item}, row {number}: {key} is {value!r}; expected text or a finite number; "
                    "look for the cause before anything is written"
                )
        if row.get("tier", tier) != tier:
            raise DataError(
                f"{item}, row {number}: tier {row['tier']!r} in an artifact of tier {tier!r}; "
                "expected one tier; write each to a folder of its own"
            )
    return [{key: row.get(key) for key in columns} for row in plain]


def require_columns(where: str, row: Row) -> None:
    """Refuse a row of a table without what every row has.

    Args:
        where: the row, for the message.
        row: of :func:`plain_rows`.

    Raises:
        DataError: one of :data:`COLUMNS` is missing, or the value, its interval, the number of
            samples or the seed makes no sense; all five may be ``None`` where the column
            ``missing`` gives a reason.
    """
    absent = [name for name in COLUMNS if name not in row or (name in NAMES and not row[name])]
    if absent:
        raise DataError(f"{where}: {', '.join(absent)} missing; expected all of {list(COLUMNS)}")
    value, low, high, n = (row[name] for name in ("value", "ci_low", "ci_high", "n"))
    if row.get(MISSING) and (value, low, high, n, row["seed"]) == (None,) * 5:
        return  # a cell that nobody measured, with its reason
    given = [one for one in (value, low, high) if one is not None]
    number = value is not None and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in given
    )
    interval = number and (len(given) == 1 or (len(given) == 3 and low <= value <= high))
    if not (interval and type(n) is int and n >= 1 and row["seed"] not in (None, "")):
        raise DataError(
            f"{where}: value {value!r}, ci_low {low!r}, ci_high {high!r}, n {n!r}, seed "
            f"{row['seed']!r}; expected a number, inside both bounds or without any, from at least "
            "one sample, and a seed"
        )


def to_csv(rows: Sequence[Row]) -> bytes:
    """Write rows with full precision; ``None`` becomes an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def from_csv(text: str) -> list[dict[str, Any]]:
    """Read back what :func:`to_csv` wrote; what looks like a number becomes one."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: _parsed(cell) for name, cell in row.items()} for row in reader]


def _parsed(cell: str) -> Any:
    if WHOLE.fullmatch(cell):
        return int(cell)
    if NUMBER.fullmatch(cell):
        return float(cell)
    return {"": None, "True": True, "False": False}.get(cell, cell)


def to_markdown(rows: Sequence[Row], notes: Sequence[str], provenance: Provenance) -> str:
    """Write a table for people; columns with one value for all rows stand above it instead.

    Args:
        rows: of :func:`plain_rows`.
        notes: paragraphs above the table; empty ones are left out.
        provenance: for the line below it.
    """
    same = {k: v for k, v in rows[0].items() if len(rows) > 1 and all(r[k] == v for r in rows)}
    shown = [k for k in rows[0] if k not in same or k == "value"]
    above = ", ".join(f"{k} {rounded(v)}" for k, v in same.items() if v not in (None, ""))
    numeric = {k for k in shown if any(isinstance(row[k], int | float) for row in rows)}
    revision = provenance.git_revision[:8] + (" (changed)" if provenance.git_dirty else "")
    foot = (
        f"Tier {provenance.tier}; {provenance.started_at}, {provenance.device['cpu']}, "
        f"threads {provenance.device['threads']}; revision {revision or 'unknown'}. Rounded to "
        f"{DIGITS} significant digits; the CSV file has all of them."
    )
    table = [
        "| " + " | ".join(name.replace("_", " ") for name in shown) + " |",
        "|" + "|".join("---:" if name in numeric else "---" for name in shown) + "|",
        *("| " + " | ".join(rounded(row[name]) for name in shown) + " |" for row in rows),
    ]
    alike = f"All rows: {above}." if above else ""
    return "\n\n".join(filter(None, [*notes, alike, "\n".join(table), foot])) + "\n"


def to_latex(rows: Sequence[Row], notes: Sequence[str], provenance: Provenance) -> str:
    """Write a table for papers (package booktabs); columns with one value for all rows are told."""
    same = {k: v for k, v in rows[0].items() if len(rows) > 1 and all(r[k] == v for r in rows)}
    shown = [k for k in rows[0] if k not in same or k == "value"]
    numeric = {k for k in shown if any(isinstance(row[k], int | float) for row in rows)}
    alike = ", ".join(f"{k} {rounded(v)}" for k, v in same.items() if v not in (None, ""))
    told = [
        *(note.replace("**", "") for note in notes),
        f"All rows: {alike}." if alike else "",
        f"Tier {provenance.tier}.",
    ]
    lines = [" & ".join(_tex(rounded(row[k]).replace("\\|", "|")) for k in shown) for row in rows]
    head = " & ".join(_tex(name.replace("_", " ")) for name in shown)
    return "\n".join([
        "\\begin{table}", f"\\caption{{{_tex(' '.join(filter(None, told)))}}}",
        f"\\begin{{tabular}}{{{''.join('r' if k in numeric else 'l' for k in shown)}}}",
        "\\toprule", rf"{head} \\", "\\midrule", *(rf"{line} \\" for line in lines),
        "\\bottomrule", "\\end{tabular}", "\\end{table}",
    ]) + "\n"  # fmt: skip


def _tex(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
               "|": r"\textbar{}"}  # fmt: skip
    special |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
    return "".join(special.get(sign, sign) for sign in text)


def listing(values: Row) -> str:
    """Write names and values as a table in Markdown, one a line, without those that are empty."""
    lines = [f"| {k.replace('_', ' ')} | {rounded(v)} |" for k, v in values.items() if v != ""]
    return "\n".join(["| | |", "|---|---|", *lines]) + "\n"


def rounded(value: Any) -> str:
    """Write a cell of a table for people: see the rule in the module's docstring."""
    if isinstance(value, float):
        size = math.floor(math.log10(abs(value))) if value else 0
        return f"{value:.{max(0, DIGITS - 1 - size)}f}"
    return "" if value is None else " ".join(str(value).replace("|", "\\|").split())
