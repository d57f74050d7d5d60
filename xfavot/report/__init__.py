"""Tables and figures on disk, each with a record of where it comes from; their only writer.

started = report.begin()
origin = report.collect(started, cfg, tier="reduced", stores=stores, notebook="benchmark")
folder = report.write_table("benchmark", rows, provenance=origin, root="paper_tables")
report.read_table(folder)

A table is a folder with a tidy CSV (full precision), a view for people as Markdown and LaTeX, and
a JSON with its provenance; a figure is a folder with PNG, PDF, the data drawn as CSV, and the JSON.
A folder is written whole or not at all, is never edited (the JSON knows each file's hash, and
reading checks it), and is never replaced by one of a lower tier.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
import os
import platform
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import pandas as pd
import torch

from xfavot.config import RunConfig, config_id, to_dict
from xfavot.data.store import Store
from xfavot.errors import DataError, refusing
from xfavot.evaluation.rows import csv_text, writing
from xfavot.files import whole_folder
from xfavot.parameters import injected

Row = Mapping[str, Any]
Place = str | os.PathLike[str]
Provenance = dict[str, Any]  # see `collect`
View = tuple[pd.DataFrame, list[str]]  # cells of text as people see them, and notes below them

SCHEMA = 1
TIERS = ("smoke", "reduced", "paper")  # for tests; at less than the paper's size; at its size
FOLDERS = (  # never published
    *("data_root", "run_root", "out", "source", "checkpoint", "resume", "others", "study"),
    *("answers", "manifest"),
)
NO_DATA = {"corpus": "none", "split": "none", "manifest": "none", "count": 0}
CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("xfavot", "notebooks", "pyproject.toml")  # what can change a number
COLUMNS = ("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed")
MISSING = "missing"  # column: why a row has no value
DIGITS = 3  # significant, in Markdown and LaTeX
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
DASH = "\N{EN DASH}"
EMPTY = "\0"  # begins a cell without a value; the reason follows
LETTER = re.compile(r"\$\^\{(\w+)\}\$")
LETTERS = (*ascii_lowercase, *(a + b for a in ascii_lowercase for b in ascii_lowercase))
SMOKE = "SMOKE: a test of the machinery, not a result."
STAMP = {"fontsize": 56, "weight": "bold", "rotation": 25, "color": "#D55E00", "alpha": 0.3}
UP, DOWN = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}"  # which values are the better ones
TEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"|": r"\textbar{}"}
)


# Where a number comes from: the part of an artifact's JSON file that says so


def begin() -> datetime:
    """Note the time; call it before the work."""
    return datetime.now(UTC)


def times(began: datetime) -> dict[str, Any]:
    """The two fields of the provenance about time: the beginning, and the seconds since."""
    seconds = (datetime.now(UTC) - began).total_seconds()
    return {"started_at": began.isoformat(timespec="seconds"), "wall_s": round(seconds, 3)}


def collect(
    began: datetime,
    cfg: RunConfig,
    *,
    tier: str,
    stores: Sequence[Store],
    notebook: str,
    split: str = "train",
) -> Provenance:
    """Gather the provenance of what was measured, just before it is written.

    Args:
        began: of :func:`begin`.
        cfg: the configuration; it is recorded without folders.
        tier: see :data:`TIERS`.
        stores: the prepared stores read; without any, the record says that no data were.
        notebook: its name, such as "benchmark".
        split: which part of the stores.

    Returns:
        Plain values, ready for JSON. Beside the above: ``dataset``, the mixture, and ``seeds``,
        those of the configuration; ``weights``, name to sha256 of every network that judges, and
        ``checkpoint``, ``step`` and ``sha256`` of the trained weights measured, none yet: whoever
        has others puts them in place of these. ``git_revision`` of the package's checkout
        ("" if it is none) and ``git_dirty``; ``lock``, a hash of all that is installed; ``device``,
        see :func:`machine`; ``started_at`` (ISO 8601, UTC) and ``wall_s`` from there to now; the
        ``command`` that makes it again, with the parameters that papermill injected.
    """
    revision, dirty = _git()
    words = ["papermill", f"notebooks/{notebook}.ipynb", "out.ipynb"]
    for name, value in injected().items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        words += [] if name in FOLDERS or "/" in text else ["-p", name, text]
    data = [
        {
            "corpus": store.corpus,
            "split": split,
            "manifest": store.manifest_hash,
            "count": sum(item.split == split for item in store.items),
        }
        for store in stores
    ]
    return {
        "tier": tier,
        "config": {k: v for k, v in to_dict(cfg).items() if k not in FOLDERS},
        "config_id": config_id(cfg),
        "seeds": [cfg.seed],
        "git_revision": revision,
        "git_dirty": dirty,
        "lock": installed(),
        "dataset": cfg.data.dataset,
        "data": data or [NO_DATA],
        "weights": {},
        "checkpoint": None,
        "device": machine(cfg.train.device),
        **times(began),
        "notebook": notebook,
        "command": shlex.join(words),
    }


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on: processor, cores, threads, load, versions.

    Args:
        device: as configured; a GPU is named where one is used.
    """
    used_gpu = torch.cuda.is_available() and device.startswith(("auto", "cuda"))
    info = Path("/proc/cpuinfo")
    text = info.read_text("utf-8", errors="replace") if info.is_file() else ""
    name = re.search(r"^model name\s*: (.+)", text, re.MULTILINE)
    return {
        "cpu": name[1] if name else platform.processor() or platform.machine() or "unknown",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if used_gpu else "",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
    }


def _git() -> tuple[str, bool]:
    """Revision of the checkout, and whether its code was changed since."""
    if not (CHECKOUT / ".git").exists():
        return "", False
    git = ("git", "-C", str(CHECKOUT))
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "check": True}
    try:
        revision = subprocess.run([*git, "rev-parse", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", *CODE], **options).stdout
    except (OSError, subprocess.SubprocessError):  # no git here, or no commit yet
        return "", False
    return revision, bool(changed.strip())


@functools.cache
def installed() -> str:
    """16 hex digits over the sorted `name==version` of every installed distribution."""
    packages = {f"{d.name}=={d.version}".lower() for d in metadata.distributions()}
    return hashlib.sha256("\n".join(sorted(packages)).encode()).hexdigest()[:16]


# Tidy rows, one number each


def require_columns(where: str, row: Row) -> None:
    """Refuse a row of a table without what every row has.

    Args:
        where: the row, for the message.
        row: plain values.

    Raises:
        DataError: one of :data:`COLUMNS` is missing, or the value, its interval, the number of
            samples or the seed makes no sense; all five may be ``None`` where the column
            ``missing`` gives a reason.
    """
    if gaps := [name for name in COLUMNS if name not in row]:
        raise DataError(f"{where}: {', '.join(gaps)} missing; expected all of {list(COLUMNS)}")
    value, low, high, n, seed = (row[name] for name in COLUMNS[4:])
    named = bool(row["system"] and row["metric"])
    if named and row.get(MISSING) and (value, low, high, n, seed) == (None,) * 5:
        return  # a cell that nobody measured, with its reason
    bounds = [value, value] if (low, high) == (None, None) else [low, high]
    numbers = all(type(one) in (int, float) and math.isfinite(one) for one in (value, *bounds))
    inside = numbers and bounds[0] <= value <= bounds[1]
    if not (named and inside and type(n) is int and n >= 1 and seed not in (None, "")):
        raise DataError(
            f"{where}: { ({name: row[name] for name in COLUMNS}) }; expected a system, a metric, a "
            "finite value, inside both bounds or without any, from at least one sample, and a seed"
        )


def plain_rows(item: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Give rows plain values and the same columns; a column that a row lacks is ``None`` there.

    Raises:
        DataError: no row, or a number that is not finite.
    """
    made = [{k: v.item() if hasattr(v, "item") else v for k, v in row.items()} for row in rows]
    columns = list(dict.fromkeys(name for row in made for name in row))
    bad = [
        f"row {number}: {name} is {value}"
        for number, row in enumerate(made, 1)
        for name, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if bad or not made:
        raise DataError(
            f"{item}: {bad[0] if bad else 'no row'}; expected finite numbers in at least one row; "
            "look for the cause before anything is written"
        )
    return [{name: row.get(name) for name in columns} for row in made]


def from_csv(text: str) -> list[dict[str, Any]]:
    """Read back a CSV file of ours, cell by cell: what looks like a number becomes one."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: _parsed(cell) for name, cell in row.items()} for row in reader]


def _parsed(cell: str) -> Any:
    if number := NUMBER.fullmatch(cell):
        return float(cell) if number[1] or number[2] else int(cell)
    return {"": None, "True": True, "False": False}.get(cell, cell)


# What people see of them


def rounded(value: Any) -> str:
    """Write a cell for people: floats with three significant digits, nothing for ``None``."""
    if isinstance(value, float):
        size = math.floor(math.log10(abs(value))) if value else 0
        return f"{value:.{max(0, DIGITS - 1 - size)}f}"
    return "" if value is None else " ".join(str(value).split())


def footnoted(cells: pd.DataFrame, *notes: str, index: bool = True) -> View:
    """Turn cells that begin with :data:`EMPTY` into a dash with a letter, explained below.

    Args:
        cells: text; a cell that is not there is neither measured nor printed.
        notes: further ones, after those of the letters.
        index: whether its rows have names, which become columns.
    """
    shown = cells.astype(object).fillna(f"{EMPTY}neither measured nor printed")
    if shown.columns.nlevels > 1:
        shown.columns = pd.MultiIndex.from_tuples([*shown.columns])
    shown = shown.reset_index(drop=not index)
    texts = map(str, shown.to_numpy().ravel())
    reasons = dict.fromkeys(text for text in texts if text.startswith(EMPTY))
    letters = {why: f"$^{{{letter}}}$" for why, letter in zip(reasons, LETTERS, strict=False)}
    shown = shown.map(lambda cell: DASH + letters[cell] if cell in letters else cell)
    return shown, [*(f"{letter} {why[1:]}." for why, letter in letters.items()), *notes]


def listing(rows: Sequence[Row], columns: Mapping[str, str] | None = None) -> View:
    """Show tidy rows as they are, rounded.

    Args:
        rows: of a table.
        columns: what is shown, and under which name; default, all that differs between rows, with
            a note on what does not.
    """
    same = {k: v for k, v in rows[0].items() if len(rows) > 1 and all(r.get(k) == v for r in rows)}
    names = columns or {
        k: k.replace("_", " ") for k in rows[0] if k == "value" or k not in (*same, MISSING)
    }
    alike = ", ".join(f"{k} {rounded(v)}" for k, v in same.items() if v not in (None, ""))
    cells = pd.DataFrame([{k: rounded(row.get(k)) for k in names} for row in rows])
    if "value" in names:
        cells["value"] = [cell_of(row) for row in rows]
    notes = [f"All rows: {alike}."] if alike and not columns else []
    return footnoted(cells.rename(columns=names), *notes, index=False)


def cell_of(row: Row) -> str:
    """The value of a row, rounded, or the reason why there is none."""
    return EMPTY + row[MISSING] if row.get(MISSING) else rounded(row["value"])


def _markdown(view: View, caption: str, foot: str) -> str:
    """Write a view as Markdown; headers of several levels become lines of one cell."""
    cells = view[0].map(lambda cell: LETTER.sub(r"<sup>\1</sup>", str(cell)).replace("|", "\\|"))
    cells.columns = [
        "<br>".join(filter(None, name)) if isinstance(name, tuple) else name for name in cells
    ]
    align = ["right" if right else "left" for right in _numeric(view[0])]
    table = cells.to_markdown(index=False, disable_numparse=True, colalign=align)
    notes = "<br>\n".join(LETTER.sub(r"<sup>\1</sup>", note) for note in view[1])
    return "\n\n".join(filter(None, [caption, table, notes, foot])) + "\n"


def _latex(view: View, caption: str) -> str:
    """Write a view as a table environment (packages booktabs, graphicx), notes below it."""
    cells, notes = view
    align = "".join("r" if right else "l" for right in _numeric(cells))
    style = cells.style.hide(axis="index").format(escape="latex-math")
    style = style.format_index(escape="latex-math", axis="columns")
    tabular = style.to_latex(hrules=True, multicol_align="c", column_format=f"@{{}}{align}@{{}}")
    number = re.match(r"Table (\d+): ", caption)
    title = caption[number.end() if number else 0 :].translate(TEX)
    counter = rf"\setcounter{{table}}{{{int(number[1]) - 1}}}" if number else ""
    below = []
    for note in notes:
        letter = (LETTER.match(note) or [""])[0]
        below.append(rf"{letter}{note.removeprefix(letter).translate(TEX)}\par")
    lines = [
        *(r"\begin{table}", r"\centering\small\setlength{\tabcolsep}{3pt}", counter),
        rf"\caption{{{title}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        *(tabular.rstrip(), r"}\par\smallskip\footnotesize\raggedright", *below, r"\end{table}"),
    ]
    whole = "\n".join(filter(None, lines)) + "\n"
    return whole.replace(UP, r"$\uparrow$").replace(DOWN, r"$\downarrow$")


def _numeric(cells: pd.DataFrame) -> list[bool]:
    """Whether each column holds numbers, but for its dashes."""
    return [
        all(NUMBER.fullmatch(cell) for cell in column if cell and not cell.startswith(DASH))
        for column in cells.to_numpy().T
    ]


class Table(str):
    """A table as it lies on disk; a notebook shows it as Markdown, and a log as it is."""

    rows: list[dict[str, Any]]
    record: dict[str, Any]  # the JSON file

    __repr__ = _repr_markdown_ = str.__str__


def write_table(
    item: str,
    rows: Iterable[Row],
    *,
    provenance: Provenance,
    root: Place = "paper_tables",
    caption: str = "",
    view: View | None = None,
) -> Path:
    """Write a table.

    Args:
        item: what it is, such as "table2"; names the folder and its files.
        rows: one number each, with the columns of :data:`COLUMNS`, of which ``ci_low`` and
            ``ci_high`` are ``None`` where there is no interval; a row that says in a column
            ``missing`` why it has no value has none; further columns follow in the order in which
            they appear.
        provenance: where the numbers come from, of :func:`collect`.
        root: folder of tables.
        caption: a sentence above the table.
        view: what people see of the rows; default, :func:`listing`.

    Returns:
        The folder.

    Raises:
        DataError: no row, a column is missing, a number is not finite, an artifact of a higher
            tier lies there, or it cannot be written; what was there is unchanged.
    """
    whole = plain_rows(item, rows)
    for number, row in enumerate(whole, 1):
        require_columns(f"{item}, row {number}", row)
    view = view or listing(whole)
    revision = provenance["git_revision"][:8] + (" (changed)" if provenance["git_dirty"] else "")
    foot = (
        f"Tier {provenance['tier']}; {provenance['started_at']}, {provenance['device']['cpu']}, "
        f"threads {provenance['device']['threads']}; revision {revision or 'unknown'}. Rounded; "
        f"`{item}.csv` has all digits, intervals and counts, `{item}.json` the origin."
    )
    smoke = [f"**{SMOKE}**"] if provenance["tier"] == "smoke" else []
    above = " ".join(filter(None, [*smoke, caption]))
    files = {
        "csv": csv_text(whole, [*whole[0]]).encode("utf-8"),
        "md": _markdown(view, above, foot).encode("utf-8"),
        "tex": _latex(view, above.replace("**", "")).encode("utf-8"),
    }
    return _commit(Path(root, item), files, provenance)


def write_figure(
    item: str, figure: Any, *, data: Iterable[Row], provenance: Provenance, root: Place = "figures"
) -> Path:
    """Write a figure and the data drawn in it.

    Args:
        item: what it is, such as "fig4"; names the folder and its files.
        figure: a :class:`xfavot.viz.drawing.Drawing`; a "smoke" one is stamped.
        data: at least one row, any columns.
        provenance: where the data come from.
        root: folder of figures.

    Returns:
        The folder.

    Raises:
        DataError: as :func:`write_table`.
    """
    rows = plain_rows(item, data)
    files = {"csv": csv_text(rows, [*rows[0]]).encode("utf-8")}
    stamp = "SMOKE" if provenance["tier"] == "smoke" else ""
    mark = figure.figure.text(0.5, 0.5, stamp, ha="center", va="center", **STAMP)
    files |= {kind: figure.render(kind) for kind in ("png", "pdf")}
    mark.remove()
    return _commit(Path(root, item), files, provenance)


def read_table(path: Place) -> Table:
    """Read a table back.

    Args:
        path: its folder.

    Returns:
        The table; numbers are numbers again, empty cells ``None``.

    Raises:
        DataError: a file is missing, damaged or not the one that was written.
    """
    folder = Path(path)
    record, contents = read_record(folder), dict[str, bytes]()
    known: Any = record.get("files")
    for suffix in (".csv", ".md", ".tex"):
        file = folder / f"{folder.name}{suffix}"
        contents[suffix] = file.read_bytes() if file.is_file() else b""
        digest = hashlib.sha256(contents[suffix]).hexdigest()
        if not isinstance(known, dict) or digest != known.get(file.name):
            raise DataError(
                f"{file} is missing or not the file that was written; write the table again; it is "
                "generated, never edited"
            )
    table = Table(contents[".md"].decode("utf-8"))
    table.rows, table.record = from_csv(contents[".csv"].decode("utf-8")), record
    return table


def read_record(folder: Path) -> dict[str, Any]:
    """Read the JSON file of a table or a figure.

    Args:
        folder: of the artifact.

    Raises:
        DataError: it is missing or damaged, or of another version of this package.
    """
    expected = "the record of an artifact of this version; delete the folder and write it again"
    return read_json(folder / f"{folder.name}.json", expected, schema=[SCHEMA], tier=TIERS)


def read_json(file: Path, expected: str, **fields: Sequence[Any]) -> dict[str, Any]:
    """Read a JSON file that holds a mapping.

    Args:
        file: the file.
        expected: what it should be, and what to do, for the message.
        fields: what it has to hold, and the values that are right.

    Raises:
        DataError: it is missing or damaged, or holds something else.
    """
    what, faults = f"{file} is missing or damaged", (OSError, ValueError, KeyError, TypeError)
    with refusing(faults, DataError, what, f"expected {expected}"):
        record = dict(json.loads(file.read_text("utf-8")))
        wrong = [f"{name} {record[name]!r}" for name in fields if record[name] not in fields[name]]
        if wrong:
            raise ValueError(", ".join(wrong))
    return record


def _commit(folder: Path, files: Mapping[str, bytes], provenance: Provenance) -> Path:
    """Put all files, by their suffix, and the record in place at once."""
    tier, item = provenance["tier"], folder.name
    held = folder.exists() and any(folder.iterdir())  # a workflow makes folders beforehand
    there = read_record(folder)["tier"] if held else tier
    if TIERS.index(there) > TIERS.index(tier):
        raise DataError(
            f"{folder} holds an artifact of tier {there!r}, this one is of tier {tier!r}; expected "
            "the same or a higher one; write to another root, or delete the folder if it may go"
        )
    named = {f"{item}.{suffix}": content for suffix, content in files.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in named.items()}
    record = {"schema": SCHEMA, "item": item, **provenance, "files": digests}
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    with writing(folder), whole_folder(folder, replace=True) as draft:
        for name, content in {**named, f"{item}.json": text.encode("utf-8")}.items():
            (draft / name).write_bytes(content)
    return folder
