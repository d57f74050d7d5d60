"""Scores of foreign outputs on the disk: the rows, what is missing and why, and where it is from.

`scores.csv` has the columns of the project's tables in full precision, `missing.csv` every metric
that could not be had with its reason, `scores.json` the hash of the manifest and of the weights,
`scores.md` all of it for people, rounded. Only reasons may name paths of this machine.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from xfavot import __version__
from xfavot.errors import DataError
from xfavot.evaluation.ledger import Ledger, Missing
from xfavot.evaluation.rows import cell, csv_text, replace_text
from xfavot.weights.pinned import describe

JUDGES = ("nisqa", "nisqa_tts", "resemblyzer")  # sets of weights with a published checksum
SHOWN = ("system", "task", "metric", "value", "ci_low", "ci_high", "n")
LONGEST_REASON = 160  # characters, in Markdown


def save(ledger: Ledger, manifest: Path | str, folder: Path | str) -> Path:
    """Write the scores of a manifest, each file whole or not at all.

    Args:
        ledger: of `foreign_outputs.score`.
        manifest: the CSV file that was scored, for its hash.
        folder: made if it is not there.

    Returns:
        The table in Markdown.

    Raises:
        DataError: there is no row, or the files cannot be written.
    """
    if not ledger.rows:
        raise DataError(f"scores of {manifest}: no row to write; expected one; read the reasons")
    missing = [dataclasses.asdict(one) for one in ledger.missing]
    fields = [field.name for field in dataclasses.fields(Missing)]
    target = Path(folder, "scores.md")
    try:
        said = _origin(ledger, Path(manifest))
        for name, text in (
            ("scores.csv", csv_text(ledger.rows, list(ledger.rows[0]))),
            ("missing.csv", csv_text(missing, fields)),
            ("scores.json", json.dumps(said, indent=2, sort_keys=True) + "\n"),
            ("scores.md", markdown(ledger)),
        ):
            replace_text(target.with_name(name), text)
    except OSError as error:
        raise DataError(
            f"scores in {folder} cannot be written ({error}); expected a writable folder with room "
            "for a few kilobytes; free some space or name another"
        ) from error
    return target


def markdown(ledger: Ledger) -> str:
    """Write rows, definitions and reasons for people."""
    lines = ["| " + " | ".join(SHOWN) + " |", "|---|---|---|---:|---:|---:|---:|"]
    for row in ledger.rows:
        lines.append("| " + " | ".join(cell(row[name]) for name in SHOWN) + " |")
    definitions = {str(row["metric"]): str(row["definition"]) for row in ledger.rows}
    lines += ["", *(f"- {metric}: {text}." for metric, text in definitions.items())]
    if ledger.missing:
        lines += ["", "Missing, or not for all:", ""]
    for one in ledger.missing:
        reason = " ".join(one.reason.split())
        short = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}..."
        lines.append(f"- {one.system}, {one.task}, {one.metric} ({one.samples}): {short}")
    return "\n".join(lines) + "\n"


def _origin(ledger: Ledger, manifest: Path) -> dict[str, Any]:
    """Where the scores come from."""
    return {
        "schema": "xfavot foreign scores 1",
        "version": __version__,
        "manifest": manifest.name,
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
        "seed": ledger.seed,
        "weights": {name: describe(name).checksum for name in JUDGES},
        "rows": len(ledger.rows),
        "missing": len(ledger.missing),
    }
