"""The evaluations that lie below a folder of runs, read for the paper's tables.

Read are `<run>/evaluation/evaluation.csv` with `missing.csv` and `evaluation.json` beside it,
`<folder>/scores.csv` likewise (foreign outputs), and `<folder>/paper_tables/cpr/` (the study, whose
rows are read apart). Only one tier is used, the highest there is; where a system was evaluated
twice on one dataset, the latest file counts. What is left out is told, never averaged in.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xfavot.errors import DataError
from xfavot.report.artifact import read_table
from xfavot.report.provenance import TIERS
from xfavot.report.published import key_of
from xfavot.report.tidy import COLUMNS, from_csv, require_columns

PAPER_STEPS = 20_000  # STATED, App. A
REDUCED = "reduced"
EVALUATION, SCORES, STUDY = "evaluation.csv", "scores.csv", "cpr.csv"
FILES = {  # where each lies, and how many folders below its run
    EVALUATION: ("*/evaluation/evaluation.csv", 1),
    SCORES: ("*/scores.csv", 0),
    STUDY: ("*/paper_tables/cpr/cpr.csv", 2),
}
PREFERENCE = "CPR"  # in the metric of every row of the study
REASONS = "missing.csv"
REASON_COLUMNS = ("system", "metric", "reason")
DIGEST = 12  # hex digits of a file's sha256 that rows carry
LONGEST_REASON = 240  # characters
FOLDER = re.compile(r"(?<![\w:/.])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\,;:'\"()]+[/\\])+")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a metric of a system is missing; an empty task is any."""

    system: str
    task: str
    metric: str
    reason: str


@dataclass(slots=True, eq=False, kw_only=True)
class Evaluations:
    """What was measured on the datasets asked for.

    Args:
        tier: of all rows; "reduced" without any.
        rows: tidy, with the column ``evaluation`` (run, step, hash of the file) after their own;
            ``system`` is a key of :data:`xfavot.report.published.SYSTEMS` where it is one.
        missing: reasons that the evaluations gave.
        left_out: files that are not used, and why.
    """

    tier: str = REDUCED
    rows: list[Row] = field(default_factory=list)
    missing: list[Reason] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        """What was found, as Markdown, which logs show as well."""
        files = sorted({str(row["evaluation"]) for row in self.rows})
        head = f"{len(self.rows)} values, tier {self.tier}; evaluations read: {len(files)}.\n"
        lines = [*files, *(f"left out: {one}" for one in self.left_out)]
        return "\n".join([head, *(f"- {line}" for line in lines)]) + "\n"

    def _repr_markdown_(self) -> str:
        return repr(self)


@dataclass(slots=True, eq=False, kw_only=True)
class _File:
    """One file of rows."""

    run: str
    name: str
    written: float
    tier: str
    rows: list[Row]
    missing: list[Reason]


def read(run_root: Path | str, datasets: tuple[str, ...], *, study: bool = False) -> Evaluations:
    """Read all evaluations below a folder.

    Args:
        run_root: folder of runs; one that does not exist holds none.
        datasets: names of the mixtures wanted; rows of others are passed over.
        study: read the preferences (CPR), else everything but them.

    Raises:
        DataError: a file is damaged, lacks columns, or holds what is no number.
    """
    patterns = [pattern for name, (pattern, _) in FILES.items() if study or name != STUDY]
    paths = [path for pattern in patterns for path in sorted(Path(run_root).glob(pattern))]
    files = [_file(path, datasets, study=study) for path in paths]
    files = [one for one in files if one.rows or one.missing]
    if not files:
        return Evaluations()
    tier = max((one.tier for one in files), key=TIERS.index)
    found = Evaluations(tier=tier)
    newest: dict[tuple[str, str], _File] = {}
    for one in sorted(files, key=lambda file: (file.written, file.run)):
        if one.tier != tier:
            found.left_out.append(
                f"{one.name} of {one.run} is of tier {one.tier}, another of tier {tier}"
            )
            continue
        for row in one.rows:
            newest[_key(row)] = one
    used = [one for one in files if one.tier == tier]
    for one in used:
        kept = [row for row in one.rows if newest[_key(row)] is one]
        found.rows += kept
        older = {str(row["system"]) for row in one.rows} - {str(row["system"]) for row in kept}
        if older:
            found.left_out.append(
                f"{', '.join(sorted(older))} in {one.name} of {one.run}: a later file has them"
            )
        found.missing += one.missing
    return found


def _key(row: Row) -> tuple[str, str]:
    """What one file alone may tell: a system on a dataset."""
    return str(row["system"]), str(row["dataset"])


def _file(path: Path, datasets: tuple[str, ...], *, study: bool) -> _File:
    """Read one file of rows and the reasons beside it."""
    run = path.parents[FILES[path.name][1]]
    described = _described(run / "config.json")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:DIGEST]
    table = read_table(path.parent) if path.name == STUDY else None
    told = _told(path.with_suffix(".json")) if path.name == EVALUATION else {}
    step = f", step {told['step']}" if "step" in told else ""
    own = {"evaluation": f"{run.name}{step}, sha256 {digest}"}
    rows = []
    for number, row in enumerate(table.rows if table else _rows(path), 1):
        require_columns(f"{path}, row {number}", row)
        if row["dataset"] in datasets and (PREFERENCE in str(row["metric"])) == study:
            rows.append({**row, "system": _system(row["system"], run, described), **own})
    tier = str(table.record["tier"]) if table else _tier(described, told)
    reasons = path.with_name(REASONS)
    ours = told.get("dataset") in (None, *datasets)
    given = _rows(reasons) if ours and not study and reasons.is_file() else []
    missing = []
    for number, row in enumerate(given, 1):
        if any(not row.get(name) for name in REASON_COLUMNS):
            raise DataError(
                f"{reasons}, row {number}: {dict(row)}; expected {', '.join(REASON_COLUMNS)}; run "
                "notebooks/evaluate.ipynb again"
            )
        if row.get("dataset") in (None, *datasets):
            missing.append(Reason(
                system=_system(row["system"], run, described), task=str(row.get("task") or ""),
                metric=str(row["metric"]), reason=public(str(row["reason"])),
            ))  # fmt: skip
    return _File(run=run.name, name=path.name, written=path.stat().st_mtime, tier=tier, rows=rows,
                 missing=missing)  # fmt: skip


def _rows(path: Path) -> list[Row]:
    """Read a CSV file whose every line is whole."""
    advice = "run notebooks/evaluate.ipynb again"
    try:
        rows = from_csv(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected a CSV file in UTF-8 whose lines have as "
            f"many cells as its head; {advice}"
        ) from error
    if path.name != REASONS and not rows:
        raise DataError(f"{path} has no row; expected the columns {list(COLUMNS)}; {advice}")
    return rows


def _described(path: Path) -> dict[str, Any]:
    """The configuration of a run, {} where there is none."""
    config = _mapping(path, "a run's configuration; restore it, or move the run away")
    if config and not {"configuration", "preset", "train"} <= config.keys():
        raise DataError(
            f"{path} lacks configuration, preset or train; expected a run's configuration; restore "
            "it, or move the run away"
        )
    return config


def _told(path: Path) -> dict[str, Any]:
    """How a checkpoint was evaluated, {} where that is not told."""
    return _mapping(path, "how the run was evaluated; run notebooks/evaluate.ipynb again")


def _mapping(path: Path, expected: str) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); expected {expected}") from error
    if not isinstance(read, dict):
        raise DataError(f"{path} holds {type(read).__name__}; expected {expected}")
    return read


def _system(name: Any, run: Path, described: dict[str, Any]) -> str:
    """The key of a system; a row named after its run is its configuration."""
    own = (run.name, described.get("name"))
    return key_of(str(described["configuration"] if described and name in own else name))


def _tier(described: dict[str, Any], told: dict[str, Any]) -> str:
    """Tier of a run: "paper" only at the paper's sizes, steps and numbers of conversions."""
    preset = described.get("preset")
    trained = told.get("step", 0) if isinstance(told.get("step"), int) else 0
    whole = preset == "paper" and trained >= PAPER_STEPS and told.get("conversions") == 0
    return "smoke" if preset == "smoke" else "paper" if whole else REDUCED


def public(reason: str) -> str:
    """Say a reason in short: what is wrong and what to do, without folders of the machine."""
    parts = FOLDER.sub("", " ".join(reason.split())).split("; ")
    plain = parts[0] if len(parts) == 1 else f"{parts[0]}; {parts[-1]}"
    if len(plain) <= LONGEST_REASON:
        return plain
    return f"{plain[:LONGEST_REASON].rpartition(' ')[0].rstrip(',;')} ..."
