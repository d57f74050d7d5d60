"""Results of the paper's protocol on the disk: finished parts, the rows, and what is missing.

`evaluation.csv` has the columns of the project's tables in full precision, with `direction` and
`sex` (of the outputs; empty where all are taken together), `guidance` and `speakers`;
`missing.csv` every metric that could not be had with its reason; `evaluation.json` what was
measured; `evaluation.md` all of it for people, rounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xfavot.errors import DataError
from xfavot.evaluation.ledger import UNUSABLE
from xfavot.evaluation.rows import cell, csv_text, replace_text
from xfavot.training.checkpoint import LoadedModel

COLUMNS = (
    *("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed"),
    *("direction", "sex", "guidance", "speakers", "n_real", "chance", "definition"),
)
MISSING = ("system", "task", "speakers", "metric", "reason", "samples")
SHOWN = ("system", "task", "speakers", "metric", "value", "ci_low", "ci_high", "n")
SHOWN_APART = ("system", "task", "speakers", "direction", "sex", "metric", "value", "n")
NUMBERS = ("value", "ci_low", "ci_high", "n")
PARTS = "parts"
MEAN = "mean"  # the direction of rows that average both
EVERYTHING = "all"  # a metric: none of them
LONGEST_REASON = 200  # characters, in Markdown

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one task among some speakers, and what is missing there."""

    rows: list[Row]
    missing: list[Row]

    @classmethod
    def nothing(cls, system: str, task: str, speakers: str, reason: str) -> Part:
        """Make a part in which nothing could be measured."""
        names = {"system": system, "task": task, "speakers": speakers}
        return cls([], [{**names, "metric": EVERYTHING, "reason": reason, "samples": 0}])


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All parts together.

    Args:
        rows: by `COLUMNS`.
        missing: by `MISSING`.
        origin: what was measured, and how.
        folder: where it belongs.
    """

    rows: list[Row]
    missing: list[Row]
    origin: Mapping[str, Any]
    folder: Path

    @classmethod
    def of(
        cls, parts: Sequence[Part], *, wanted: tuple[str, ...], unasked: str, folder: Path,
        origin: Mapping[str, Any],
    ) -> Evaluation:  # fmt: skip
        """Join parts and leave out what was not asked for.

        Args:
            parts: in the order of the rows.
            wanted: how the names of metrics begin that were asked for.
            unasked: the reason of metrics that were not.
            folder, origin: see the class.

        Raises:
            DataError: nothing was measured; the reasons are told.
        """
        always = (*wanted, UNUSABLE)
        rows = [row for part in parts for row in part.rows if row["metric"].startswith(always)]
        missing = [
            {name: one.get(name, "") for name in MISSING}
            for part in parts
            for one in part.missing
            if one["reason"] != unasked and one["metric"].startswith((*always, EVERYTHING))
        ]
        if not any(row["metric"] != UNUSABLE for row in rows):
            reasons = "; ".join(dict.fromkeys(one["reason"] for one in missing)) or "no reason"
            raise DataError(f"evaluation: nothing could be measured; {reasons}")
        return cls([{n: row.get(n) for n in COLUMNS} for row in rows], missing, origin, folder)


def results_folder(model: LoadedModel) -> Path:
    """Where the results of a checkpoint belong: the folder `evaluation` of its run."""
    return model.path.resolve().parents[1] / "evaluation"


def keep(file: Path, basis: str, part: Part) -> None:
    """Keep a finished part, whole or not at all.

    Args:
        file: under `PARTS`.
        basis: all that it follows from.
        part: what was measured.

    Raises:
        DataError: it cannot be written.
    """
    _write(file, json.dumps({"basis": json.loads(basis), **asdict(part)}, indent=1) + "\n")


def kept(file: Path, basis: str) -> Part | None:
    """Read a finished part; ``None`` if there is none, or none that can be trusted."""
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["basis"] != json.loads(basis):
            return None
        part = Part(list(held["rows"]), list(held["missing"]))
        whole = all("metric" in row for row in (*part.rows, *part.missing))
        return part if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(evaluation: Evaluation) -> Path:
    """Write the four files, each whole or not at all.

    Returns:
        The table in Markdown.

    Raises:
        DataError: they cannot be written.
    """
    target = evaluation.folder / "evaluation.md"
    origin = json.dumps(dict(evaluation.origin), indent=2, sort_keys=True) + "\n"
    _write(target.with_suffix(".csv"), csv_text(evaluation.rows, COLUMNS))
    _write(target.with_name("missing.csv"), csv_text(evaluation.missing, MISSING))
    _write(target.with_suffix(".json"), origin)
    _write(target, markdown(evaluation))
    return target


def markdown(evaluation: Evaluation) -> str:
    """Write rows, definitions and reasons for people."""
    told = evaluation.origin
    count = told["conversions"]
    lines = [
        f"{told['run']}, step {told['step']}; dataset {told['dataset']}, seed {told['seed']}; "
        f"vocoder {told['vocoder']}, recogniser {told['recogniser']}.",
        "",
        f"Reduced: {count} voices a task, {count} source faces a direction, ten outputs of each."
        if count
        else "The paper's counts: 140 and 180 voices, all faces, ten outputs of each.",
        "",
        *_table([row for row in evaluation.rows if not row["sex"]], SHOWN),
        "",
        "Frechet distances fall with the number of images: compare those of equal n alone. The "
        "speakers are those of the validation split (seen) and those left out (unseen).",
        "",
        "By direction (source to reference) and by sex (of the reference):",
        "",
        *_table([row for row in evaluation.rows if row["sex"]], SHOWN_APART),
        "",
    ]
    defined = dict.fromkeys((row["metric"], row["definition"]) for row in evaluation.rows)
    lines += [f"- {metric}: {text}." for metric, text in defined]
    if evaluation.missing:
        lines += ["", "Missing, or not for all:", ""]
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for one in evaluation.missing:
        key = (one["system"], one["metric"], " ".join(one["reason"].split()))
        reasons.setdefault(key, []).append(f"{one['task']} {one['speakers']}".strip())
    for (system, metric, reason), where in reasons.items():
        short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
        lines.append(f"- {system}, {metric} ({', '.join(where)}): {short}")
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    rules = ("---:" if name in NUMBERS else "---" for name in columns)
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(rules) + "|",
        *("| " + " | ".join(cell(row[name]) for name in columns) + " |" for row in rows),
    ]


def _write(file: Path, text: str) -> None:
    try:
        replace_text(file, text)
    except OSError as error:
        raise DataError(
            f"{file} cannot be written ({error}); expected a writable folder with room for a few "
            "kilobytes; free some space"
        ) from error
