"""The only writer of tables and figures: what lies in `paper_tables/` and `figures/`.

A table is a folder with a tidy CSV (full precision), the same as Markdown and LaTeX (rounded), and
a JSON with its provenance; a figure is a folder with PNG, PDF, the data drawn as CSV, and the JSON.
A folder is written whole or not at all, is never edited (the JSON knows each file's hash, and
reading checks it), and is never replaced by one of a lower tier.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xfavot.errors import DataError
from xfavot.report.provenance import TIERS, Provenance
from xfavot.report.tidy import (
    Row,
    from_csv,
    plain_rows,
    require_columns,
    to_csv,
    to_latex,
    to_markdown,
)

SCHEMA = 1
SMOKE = "SMOKE: a test of the machinery, not a result"
STAMP = {"fontsize": 56, "weight": "bold", "rotation": 25, "color": "#D55E00", "alpha": 0.3}


class Renderable(Protocol):
    """A figure: :class:`xfavot.viz.drawing.Drawing`."""

    @property
    def figure(self) -> Any:
        """The matplotlib figure."""

    def render(self, kind: str = "png") -> bytes:
        """The bytes of a "png" or a "pdf" file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table as it lies on disk; a notebook shows it as Markdown."""

    rows: list[dict[str, Any]]
    record: dict[str, Any]  # the JSON file
    markdown: str

    def __repr__(self) -> str:
        """The Markdown, which logs show as well."""
        return self.markdown

    def _repr_markdown_(self) -> str:
        return self.markdown


def write_table(
    item: str,
    rows: Iterable[Row],
    *,
    provenance: Provenance,
    root: str | os.PathLike[str] = "paper_tables",
    caption: str = "",
) -> Path:
    """Write a table.

    Args:
        item: what it is, such as "table2"; names the folder and its files.
        rows: one number each, with the columns of :data:`xfavot.report.tidy.COLUMNS`, of which
            ``ci_low`` and ``ci_high`` are ``None`` where there is no interval; a row that says in
            a column ``missing`` why it has no value has none; further columns follow in the order
            in which they appear.
        provenance: where the numbers come from.
        root: folder of tables.
        caption: a sentence above the table in Markdown.

    Returns:
        The folder.

    Raises:
        DataError: no row, a column is missing, a number is not finite, tiers are mixed, an artifact
            of a higher tier lies there, or it cannot be written.
    """
    plain = plain_rows(item, rows, provenance.tier)
    for number, row in enumerate(plain, 1):
        require_columns(f"table {item}, row {number}", row)
    notes = [f"**{SMOKE}.**" if provenance.tier == "smoke" else "", caption]
    text = to_markdown(plain, notes, provenance)
    files = {f"{item}.csv": to_csv(plain), f"{item}.md": text.encode("utf-8")}
    files[f"{item}.tex"] = to_latex(plain, notes, provenance).encode("utf-8")
    return _commit(Path(root, item), item, files, provenance)


def write_figure(
    item: str,
    figure: Renderable,
    *,
    data: Iterable[Row],
    provenance: Provenance,
    root: str | os.PathLike[str] = "figures",
) -> Path:
    """Write a figure and the data drawn in it.

    Args:
        item: what it is, such as "fig4"; names the folder and its files.
        figure: the drawing; a "smoke" one is stamped.
        data: at least one row, any columns.
        provenance: where the data come from.
        root: folder of figures.

    Returns:
        The folder.

    Raises:
        DataError: as :func:`write_table`.
    """
    files = {f"{item}.csv": to_csv(plain_rows(item, data, provenance.tier))}
    stamp = "SMOKE" if provenance.tier == "smoke" else ""
    mark = figure.figure.text(0.5, 0.5, stamp, ha="center", va="center", **STAMP)
    for kind in ("png", "pdf"):
        files[f"{item}.{kind}"] = figure.render(kind)
    mark.remove()
    return _commit(Path(root, item), item, files, provenance)


def read_table(path: str | os.PathLike[str]) -> Table:
    """Read a table back.

    Args:
        path: its folder.

    Returns:
        The table; numbers are numbers again, empty cells ``None``.

    Raises:
        DataError: a file is missing, damaged or not the one that was written.
    """
    folder = Path(path)
    record, advice = read_record(folder), "write the table again; it is generated, never edited"
    contents: dict[str, bytes] = {}
    for name, digest in record["files"].items():
        file = folder / name
        contents[name] = file.read_bytes() if file.is_file() else b""
        if hashlib.sha256(contents[name]).hexdigest() != digest:
            raise DataError(f"{file} is missing or not the file that was written; {advice}")
    if f"{folder.name}.md" not in contents:
        raise DataError(f"{folder} holds no table; expected {folder.name}.md; {advice}")
    rows, text = (contents[f"{folder.name}.{end}"].decode("utf-8") for end in ("csv", "md"))
    return Table(rows=from_csv(rows), record=record, markdown=text)


def read_record(folder: Path) -> dict[str, Any]:
    """Read the JSON file of a table or a figure.

    Args:
        folder: of the artifact.

    Raises:
        DataError: it is missing or damaged, or of another version of this package.
    """
    file = folder / f"{folder.name}.json"
    try:
        record: dict[str, Any] = json.loads(file.read_text("utf-8"))
        known = record["schema"] == SCHEMA and record["tier"] in TIERS and bool(record["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file} is missing or damaged ({error!r}); expected the record of an artifact; delete "
            "the folder and write it again"
        ) from error
    if not known:
        raise DataError(f"{file}: schema {record['schema']}, tier {record['tier']}; write it again")
    return record


def _commit(folder: Path, item: str, files: Mapping[str, bytes], provenance: Provenance) -> Path:
    """Put all files and the record in place at once."""
    if not item or Path(item).name != item or item.startswith("."):
        raise DataError(f"artifact {item!r}: expected a plain name such as 'table2'")
    there = read_record(folder)["tier"] if folder.exists() else provenance.tier
    if TIERS.index(there) > TIERS.index(provenance.tier):
        raise DataError(
            f"{folder} holds an artifact of tier {there!r}, this one is of tier "
            f"{provenance.tier!r}; expected the same or a higher one; write to another root, or "
            "delete the folder first if it may go"
        )
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = {"schema": SCHEMA, "item": item, **provenance.record(), "files": digests}
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    draft, before = (folder.with_name(f".{item}.{os.getpid()}.{end}") for end in ("new", "old"))
    try:
        draft.mkdir(parents=True)
        for name, content in [*files.items(), (f"{item}.json", text.encode("utf-8"))]:
            (draft / name).write_bytes(content)
        if folder.exists():
            os.replace(folder, before)
        os.replace(draft, folder)
    except OSError as error:
        if before.exists() and not folder.exists():
            os.replace(before, folder)
        raise DataError(
            f"artifact {folder} cannot be written ({error}); what was there is unchanged; expected "
            "a writable folder with free space; free some, or choose another root"
        ) from error
    finally:
        for left in (draft, before):
            shutil.rmtree(left, ignore_errors=True)
    return folder
