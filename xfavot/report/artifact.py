"""The only writer of tables and figures: what lies in `paper_tables/` and `figures/`.

A table is a folder with a tidy CSV (full precision), the same as Markdown and LaTeX (rounded), and
a JSON with its provenance; a figure is a folder with PNG, PDF, the data drawn as CSV, and the JSON.
A folder is written whole or not at all, is never edited (the JSON knows each file's hash, and
reading checks it), and is never replaced by one of a lower tier.
"""

from __future__ import annotations

import csv
import dataclasses
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
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch

from xfavot.config import RunConfig, config_id, to_dict
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.parameters import injected

# Where a number comes from: the part of an artifact's JSON file that says so


TIERS = ("smoke", "reduced", "paper")  # for tests; at less than the paper's size; at its size
FOLDERS = (  # never published
    *("data_root", "run_root", "out", "source", "checkpoint", "resume", "others", "study"),
    *("answers", "manifest"),
)
MAY_BE_EMPTY = ("git_revision", "git_dirty", "weights", "checkpoint", "notebook", "command")
CHECKOUT = Path(__file__).resolve().parents[2]
CODE = ("xfavot", "notebooks", "pyproject.toml")  # what can change a number


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """A split of a prepared corpus: its manifest's hash and how many clips it has."""

    corpus: str
    split: str
    manifest: str
    count: int


NO_DATA = Data(corpus="none", split="none", manifest="none", count=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The trained weights that were measured."""

    step: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything that a table or a figure says about its origin.

    Args:
        tier: "smoke", "reduced" or "paper".
        config: the full configuration as plain values, without folders.
        config_id: its hash.
        seeds: every seed behind the numbers.
        git_revision: of the package's checkout, "" if it is none.
        git_dirty: the checkout's code differs from that revision.
        lock: hash of the names and versions of everything installed.
        dataset: name of the mixture.
        data: the splits that were used.
        weights: name to sha256 of every network that judges; empty if none does.
        checkpoint: what was measured; ``None`` if nothing trained was.
        device: processor, threads, versions; see :func:`machine`.
        started_at: ISO 8601, UTC.
        wall_s: seconds from there to the writing.
        notebook: its name, "" if it was none.
        command: what makes it again.

    Raises:
        DataError: something is missing, the tier is unknown, or a time is no number.
    """

    tier: str
    config: Mapping[str, Any]
    config_id: str
    seeds: tuple[int, ...]
    git_revision: str
    git_dirty: bool
    lock: str
    dataset: str
    data: tuple[Data, ...]
    weights: Mapping[str, str]
    checkpoint: Checkpoint | None
    device: Mapping[str, Any]
    started_at: str
    wall_s: float
    notebook: str
    command: str

    def __post_init__(self) -> None:
        """Refuse gaps."""
        empty: tuple[Any, ...] = (None, "", (), {}, [])
        missing = [
            f.name
            for f in dataclasses.fields(self)
            if f.name not in MAY_BE_EMPTY and getattr(self, f.name) in empty
        ]
        if not (self.notebook or self.command):
            missing.append("notebook or command")
        missing += [f"device.{k}" for k in ("cpu", "threads", "torch") if not self.device.get(k)]
        if missing:
            raise DataError(
                f"provenance: {', '.join(missing)} missing; expected a value for each; fill them "
                "in, or use report.collect"
            )
        if self.tier not in TIERS:
            raise DataError(f"provenance: tier {self.tier!r}; expected one of {', '.join(TIERS)}")
        if not (math.isfinite(self.wall_s) and self.wall_s >= 0):
            raise DataError(f"provenance: wall_s is {self.wall_s}; expected seconds, 0 or more")

    def record(self) -> dict[str, Any]:
        """The fields as plain values, ready for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain


@dataclass(frozen=True, slots=True)
class Beginning:
    """When the work behind an artifact began."""

    at: str
    clock: float


def begin() -> Beginning:
    """Note the time; call it before the work."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Beginning(now, time.monotonic())


def collect(
    began: Beginning,
    cfg: RunConfig,
    *,
    tier: str,
    stores: Sequence[Store],
    split: str = "train",
    seeds: Sequence[int] = (),
    weights: Mapping[str, str] | None = None,
    checkpoint: Checkpoint | None = None,
    notebook: str = "",
    command: str = "",
) -> Provenance:
    """Gather the provenance of what was measured, just before it is written.

    Args:
        began: of :func:`begin`.
        cfg: the configuration.
        tier: see :data:`TIERS`.
        stores: the prepared stores read; without any, the record says that no data were.
        split: which part of them.
        seeds: default, the configuration's.
        weights: name to sha256 of the networks that judge.
        checkpoint: the trained weights measured, if any.
        notebook: its name, such as "benchmark".
        command: default, the papermill command with the parameters that were given, or the command
            line of this process.

    Raises:
        DataError: see :class:`Provenance`.
    """
    revision, dirty = _git()
    return Provenance(
        tier=tier,
        config={k: v for k, v in to_dict(cfg).items() if k not in FOLDERS},
        config_id=config_id(cfg),
        seeds=tuple(seeds) or (cfg.seed,),
        git_revision=revision,
        git_dirty=dirty,
        lock=installed(),
        dataset=cfg.data.dataset,
        data=tuple(_part(store, split) for store in stores) or (NO_DATA,),
        weights=dict(weights or {}),
        checkpoint=checkpoint,
        device=machine(cfg.train.device),
        started_at=began.at,
        wall_s=round(time.monotonic() - began.clock, 3),
        notebook=notebook,
        command=command or (_papermill(notebook) if notebook else _command_line()),
    )


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the numbers were measured on: processor, cores, threads, load, versions.

    Args:
        device: as configured; a GPU is named where one is used.
    """
    used_gpu = torch.cuda.is_available() and device.startswith(("auto", "cuda"))
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if used_gpu else "",
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else "",
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": metadata.version("numpy"),
    }


def _processor() -> str:
    """The processor's name as people know it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, [*names, platform.processor(), platform.machine()]), "unknown")


def _part(store: Store, split: str) -> Data:
    count = sum(item.split == split for item in store.items)
    return Data(corpus=store.corpus, split=split, manifest=store.manifest_hash, count=count)


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


def installed() -> str:
    """16 hex digits over the sorted `name==version` of every installed distribution."""
    found = {f"{d.name}=={d.version}".lower() for d in metadata.distributions()}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]


def _papermill(notebook: str) -> str:
    """The papermill command with the parameters that papermill injected."""
    words = ["papermill", f"notebooks/{notebook}.ipynb", "out.ipynb"]
    for name, value in injected().items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        words += [] if name in FOLDERS else ["-p", name, text]
    return shlex.join(words)


def _command_line() -> str:
    """How this process was called, without the folder of the script."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


# Tidy rows, one number each: their check, their CSV and their Markdown


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
    return (
        "\n".join(
            [
                "\\begin{table}",
                f"\\caption{{{_tex(' '.join(filter(None, told)))}}}",
                f"\\begin{{tabular}}{{{''.join('r' if k in numeric else 'l' for k in shown)}}}",
                "\\toprule",
                rf"{head} \\",
                "\\midrule",
                *(rf"{line} \\" for line in lines),
                "\\bottomrule",
                "\\end{tabular}",
                "\\end{table}",
            ]
        )
        + "\n"
    )


def _tex(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"\textbar{}",
    }
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
