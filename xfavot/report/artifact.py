"""The only writer of tables and figures: what lies in `paper_tables/` and `figures/`.

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
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from string import ascii_lowercase
from typing import Any, Protocol

import pandas as pd
import torch

from xfavot.config import RunConfig, config_id, to_dict
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.parameters import injected

Row = Mapping[str, Any]
Provenance = dict[str, Any]  # see `collect`
View = tuple[pd.DataFrame, list[str]]  # cells of text as people see them, and notes below them

SCHEMA = 1
TIERS = ("smoke", "reduced", "paper")  # for tests; at less than the paper's size; at its size
FOLDERS = (  # never published
    *("data_root", "run_root", "out", "source", "checkpoint", "resume", "others", "study"),
    *("answers", "manifest"),
)
REQUIRED = ("tier", "config", "config_id", "seeds", "lock", "dataset", "data", "device", "notebook")
NO_DATA = {"corpus": "none", "split": "none", "manifest": "none", "count": 0}
CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("xfavot", "notebooks", "pyproject.toml")  # what can change a number
COLUMNS = ("system", "task", "dataset", "metric", "value", "ci_low", "ci_high", "n", "seed")
NAMES = ("system", "metric")  # never empty
MISSING = "missing"  # column: why a row has no value
DIGITS = 3  # significant, in Markdown and LaTeX
WHOLE, NUMBER = re.compile(r"-?\d+"), re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
DASH = "\N{EN DASH}"
EMPTY = "\0"  # begins a cell without a value; the reason follows
LETTER = re.compile(r"\$\^\{(\w+)\}\$")
LETTERS = (*ascii_lowercase, *(a + b for a in ascii_lowercase for b in ascii_lowercase))
SMOKE = "SMOKE: a test of the machinery, not a result."
STAMP = {"fontsize": 56, "weight": "bold", "rotation": 25, "color": "#D55E00", "alpha": 0.3}
TEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"|": r"\textbar{}"}
)


# Where a number comes from: the part of an artifact's JSON file that says so


@dataclass(frozen=True, slots=True)
class Beginning:
    """When the work behind an artifact began."""

    at: str
    clock: float

    def now(self) -> dict[str, Any]:
        """The two fields of the provenance about time."""
        return {"started_at": self.at, "wall_s": round(time.monotonic() - self.clock, 3)}


def begin() -> Beginning:
    """Note the time; call it before the work."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Beginning(now, time.monotonic())


def collect(
    began: Beginning,
    cfg: RunConfig,
    *,
    tier: str,
    stores: Sequence[Store],
    notebook: str,
    split: str = "train",
    seeds: Sequence[int] = (),
    weights: Mapping[str, str] | None = None,
    checkpoint: Mapping[str, Any] | None = None,
    dataset: str = "",
) -> Provenance:
    """Gather the provenance of what was measured, just before it is written.

    Args:
        began: of :func:`begin`.
        cfg: the configuration; it is recorded without folders.
        tier: see :data:`TIERS`.
        stores: the prepared stores read; without any, the record says that no data were.
        notebook: its name, such as "benchmark".
        split: which part of the stores.
        seeds: every seed behind the numbers; default, the configuration's.
        weights: name to sha256 of every network that judges.
        checkpoint: ``step`` and ``sha256`` of the trained weights measured, if any.
        dataset: name of the mixture; default, the configuration's.

    Returns:
        Plain values, ready for JSON. Beside the above: ``git_revision`` of the package's checkout
        ("" if it is none) and ``git_dirty``; ``lock``, a hash of all that is installed; ``device``,
        see :func:`machine`; ``started_at`` (ISO 8601, UTC) and ``wall_s`` from there to now; the
        ``command`` that makes it again, with the parameters that papermill injected.
    """
    revision, dirty = _git()
    words = ["papermill", f"notebooks/{notebook}.ipynb", "out.ipynb"]
    for name, value in injected().items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        words += [] if name in FOLDERS or "/" in text else ["-p", name, text]
    return {
        "tier": tier,
        "config": {k: v for k, v in to_dict(cfg).items() if k not in FOLDERS},
        "config_id": config_id(cfg),
        "seeds": list(seeds) or [cfg.seed],
        "git_revision": revision,
        "git_dirty": dirty,
        "lock": installed(),
        "dataset": dataset or cfg.data.dataset,
        "data": [_part(store, split) for store in stores] or [NO_DATA],
        "weights": dict(weights or {}),
        "checkpoint": dict(checkpoint) if checkpoint else None,
        "device": machine(cfg.train.device),
        **began.now(),
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
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": next(filter(None, [*names, platform.processor(), platform.machine()]), "unknown"),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if used_gpu else "",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
    }


def _part(store: Store, split: str) -> dict[str, Any]:
    count = sum(item.split == split for item in store.items)
    known = {"corpus": store.corpus, "split": split, "manifest": store.manifest_hash}
    return {**known, "count": count}


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
    value, low, high, n, seed = (row[name] for name in COLUMNS[4:])
    if row.get(MISSING) and (value, low, high, n, seed) == (None,) * 5:
        return  # a cell that nobody measured, with its reason
    given = [one for one in (value, low, high) if one is not None]
    number = value is not None and all(type(one) in (int, float) for one in given)
    interval = number and (len(given) == 1 or (len(given) == 3 and low <= value <= high))
    if not (interval and type(n) is int and n >= 1 and seed not in (None, "")):
        raise DataError(
            f"{where}: value {value!r}, ci_low {low!r}, ci_high {high!r}, n {n!r}, seed {seed!r}; "
            "expected a number, inside both bounds or without any, from at least one sample, and "
            "a seed"
        )


def to_csv(rows: Sequence[Row]) -> bytes:
    """Write rows with full precision; ``None`` becomes an empty cell."""
    text: str = pd.DataFrame(rows, dtype=object).to_csv(index=False, lineterminator="\n")
    return text.encode("utf-8")


def from_csv(text: str) -> list[dict[str, Any]]:
    """Read back what :func:`to_csv` wrote, cell by cell: what looks like a number becomes one."""
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [{name: _parsed(cell) for name, cell in row.items()} for row in reader]


def _parsed(cell: str) -> Any:
    if WHOLE.fullmatch(cell):
        return int(cell)
    if NUMBER.fullmatch(cell):
        return float(cell)
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
    cells = [
        {
            name: EMPTY + row[MISSING]
            if key == "value" and row.get(MISSING)
            else rounded(row.get(key))
            for key, name in names.items()
        }
        for row in rows
    ]
    notes = [f"All rows: {alike}."] if alike and not columns else []
    return footnoted(pd.DataFrame(cells), *notes, index=False)


def _markdown(view: View, caption: str, foot: str) -> str:
    """Write a view as Markdown; headers of several levels become lines of one cell."""
    cells = view[0].map(lambda cell: LETTER.sub(r"<sup>\1</sup>", str(cell)).replace("|", "\\|"))
    cells.columns = [
        "<br>".join(filter(None, name)) if isinstance(name, tuple) else name for name in cells
    ]
    align = ["right" if _numeric(cells.iloc[:, k]) else "left" for k in range(cells.shape[1])]
    table = cells.to_markdown(index=False, disable_numparse=True, colalign=align)
    notes = "<br>\n".join(LETTER.sub(r"<sup>\1</sup>", note) for note in view[1])
    return "\n\n".join(filter(None, [caption, table, notes, foot])) + "\n"


def _latex(view: View, caption: str) -> str:
    """Write a view as a table environment (packages booktabs, graphicx), notes below it."""
    cells, notes = view
    align = "".join("r" if _numeric(cells.iloc[:, k]) else "l" for k in range(cells.shape[1]))
    style = cells.style.hide(axis="index").format(escape="latex-math")
    style = style.format_index(escape="latex-math", axis="columns")
    tabular = style.to_latex(hrules=True, multicol_align="c", column_format=f"@{{}}{align}@{{}}")
    lines = tabular.rstrip().split("\n")  # \begin, \toprule, then a line a level of the heads
    for level in reversed(range(cells.columns.nlevels - 1)):
        lines.insert(
            level + 3, "".join(_rules([tuple(name)[: level + 1] for name in cells.columns]))
        )
    number = re.match(r"Table (\d+): ", caption)
    title = caption[number.end() if number else 0 :].translate(TEX)
    below = []
    for note in notes:
        letter = LETTER.match(note)
        text = note[letter.end() if letter else 0 :].translate(TEX)
        below.append(f"{letter[0] if letter else ''}{text}\\par")
    head = [r"\begin{table}", r"\centering\small\setlength{\tabcolsep}{3pt}"]
    if number:
        head.append(rf"\setcounter{{table}}{{{int(number[1]) - 1}}}")
    fit = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
    foot = [r"}\par\smallskip\footnotesize\raggedright", *below, r"\end{table}"]
    return "\n".join([*head, rf"\caption{{{title}}}", fit, *filter(None, lines), *foot]) + "\n"


def _rules(heads: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Rules below those neighbouring columns that have the same head."""
    ends = [k for k, head in enumerate(heads, 1) if k == len(heads) or heads[k] != head]
    for start, end in zip([0, *ends], ends, strict=False):
        if end - start > 1 and heads[start][-1]:
            yield rf"\cmidrule(lr){{{start + 1}-{end}}}"


def _numeric(column: pd.Series[Any]) -> bool:
    """Whether a column holds numbers, but for its dashes."""
    shown = [cell for cell in column if cell and not cell.startswith(DASH)]
    return all(NUMBER.fullmatch(cell) for cell in shown)


class Renderable(Protocol):
    """A figure: :class:`xfavot.viz.drawing.Drawing`."""

    @property
    def figure(self) -> Any:
        """The matplotlib figure."""

    def render(self, kind: str = "png") -> bytes:
        """The bytes of a "png" or a "pdf" file."""


class Markdown(str):
    """Text that a notebook shows as Markdown, and a log as it is."""

    def __repr__(self) -> str:
        """The text itself."""
        return str(self)

    def _repr_markdown_(self) -> str:
        return str(self)


class Table(Markdown):
    """A table as it lies on disk; a notebook shows it as Markdown."""

    rows: list[dict[str, Any]]
    record: dict[str, Any]  # the JSON file


def write_table(
    item: str,
    rows: Iterable[Row],
    *,
    provenance: Provenance,
    root: str | os.PathLike[str] = "paper_tables",
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
        DataError: no row, a column is missing, a number is not finite, tiers are mixed, an artifact
            of a higher tier lies there, or it cannot be written.
    """
    plain = plain_rows(item, rows, provenance["tier"])
    for number, row in enumerate(plain, 1):
        require_columns(f"table {item}, row {number}", row)
    view = view or listing(plain)
    smoke = provenance["tier"] == "smoke"
    revision = provenance["git_revision"][:8] + (" (changed)" if provenance["git_dirty"] else "")
    foot = (
        f"Tier {provenance['tier']}; {provenance['started_at']}, {provenance['device']['cpu']}, "
        f"threads {provenance['device']['threads']}; revision {revision or 'unknown'}. Rounded; "
        f"`{item}.csv` has all digits, intervals and counts, `{item}.json` the origin."
    )
    above = " ".join(filter(None, [f"**{SMOKE}**" if smoke else "", caption]))
    files = {
        f"{item}.csv": to_csv(plain),
        f"{item}.md": _markdown(view, above, foot).encode("utf-8"),
        f"{item}.tex": _latex(view, above.replace("**", "")).encode("utf-8"),
    }
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
    files = {f"{item}.csv": to_csv(plain_rows(item, data, provenance["tier"]))}
    stamp = "SMOKE" if provenance["tier"] == "smoke" else ""
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
    table = Table(text)
    table.rows, table.record = from_csv(rows), record
    return table


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
    gaps = [name for name in REQUIRED if not provenance.get(name)]
    if gaps or provenance["tier"] not in TIERS:
        raise DataError(
            f"artifact {item}: provenance without {', '.join(gaps) or 'a known tier'}; expected "
            f"that of report.collect, and one of the tiers {', '.join(TIERS)}"
        )
    there = read_record(folder)["tier"] if folder.exists() else provenance["tier"]
    if TIERS.index(there) > TIERS.index(provenance["tier"]):
        raise DataError(
            f"{folder} holds an artifact of tier {there!r}, this one is of tier "
            f"{provenance['tier']!r}; expected the same or a higher one; write to another root, or "
            "delete the folder first if it may go"
        )
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = {"schema": SCHEMA, "item": item, **provenance, "files": digests}
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
