"""Outputs that another system made, listed in a CSV file, so that they can be scored.

One row an output: `task` (named guidance to output, as everywhere), `source`, `reference` (empty
for a latent code), `output`, `model`, and where known `transcript` (of the source), `speaker` and
`gender` (f or m) of the person whom the reference shows. Relative paths start at the CSV's folder.
Everything about the list is checked before anything is measured, and all that is wrong is told at
once; what the files hold is found when they are read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from xfavot.convert.results import Task
from xfavot.errors import DataError
from xfavot.strict import nearest

REQUIRED = ("task", "source", "reference", "output", "model")
OPTIONAL = ("transcript", "speaker", "gender")
GENDERS = {"f": "f", "female": "f", "m": "m", "male": "m", "": ""}
WITHOUT_REFERENCE = (Task.Z2I, Task.Z2A)
SHOWN = 5  # faults that a message lists
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One row.

    Args:
        line: in the file, for messages.
        task: of the conversion.
        source, output: files that exist.
        reference: file that exists, or ``None`` where a latent code led.
        model: what made the output.
        transcript: what the source says, "" if not known.
        speaker: whom the reference shows, "" if not known.
        gender: of that person, "f", "m" or "".
    """

    line: int
    task: Task
    source: Path
    reference: Path | None
    output: Path
    model: str
    transcript: str = ""
    speaker: str = ""
    gender: str = ""

    @property
    def who(self) -> str:
        """Whose sample it is, for intervals: the reference's person, else the source file."""
        return self.speaker or str(self.source)


def read(path: str | PathLike[str]) -> tuple[Output, ...]:
    """Read and check a manifest.

    Args:
        path: a CSV file in UTF-8, with or without a byte order mark, separated by commas.

    Returns:
        The rows in their order, at least one.

    Raises:
        DataError: the file is missing, no text, empty or separated by something else; a column is
            missing or unknown; or rows name unknown tasks or missing files, have cells too many or
            too few, repeat an output, or contradict each other on a person or a transcript. Up to
            five faults are shown.
    """
    file = Path(path)
    header, rows = _cells(file)
    faults: list[str] = []
    found: list[Output] = []
    outputs: dict[Path, int] = {}
    genders: dict[str, str] = {}
    said: dict[Path, str] = {}
    for line, cells in rows:
        if len(cells) != len(header):
            faults.append(f"line {line} has {len(cells)} cells instead of {len(header)}")
            continue
        row = dict(zip(header, (cell.strip() for cell in cells), strict=True))
        wrong, made = _row(file.parent, line, row)
        if made is not None:
            first = outputs.setdefault(made.output.resolve(), line)
            if first != line:
                wrong.append(f"line {line} repeats the output of line {first}, {row['output']}")
            if made.transcript:
                known = said.setdefault(made.source.resolve(), made.transcript)
                if known != made.transcript:
                    wrong.append(f"line {line} has another transcript of {row['source']}")
            if made.speaker and made.gender:
                known = genders.setdefault(made.speaker, made.gender)
                if known != made.gender:
                    wrong.append(f"line {line} calls {made.speaker} both {known} and {made.gender}")
        faults += wrong
        found += [made] if made is not None else []
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"manifest {file}: {len(faults)} faults: {'; '.join(faults[:SHOWN])}{more}; expected "
            f"one existing output a row, named by {', '.join(REQUIRED)}; correct the file"
        )
    if not found:
        raise _refusal(file, "has a header and no row", "list the outputs below it")
    return tuple(found)


def groups_of(outputs: Sequence[Output]) -> dict[tuple[str, Task], list[Output]]:
    """Outputs by model and task, in the order in which they first appear."""
    found: dict[tuple[str, Task], list[Output]] = {}
    for one in outputs:
        found.setdefault((one.model, one.task), []).append(one)
    return found


def _cells(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the numbered rows that are not blank."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _refusal(file, f"cannot be read ({error})", "save it as CSV in UTF-8") from error
    if not lines:
        raise _refusal(file, "is empty", f"begin it with the line {','.join(REQUIRED)}")
    header = [cell.strip().lower() for cell in lines[0][1]]
    other = [name for mark, name in OTHER_DELIMITERS.items() if mark in lines[0][1][0]]
    if len(header) == 1 and other:
        raise _refusal(file, f"is separated by {other[0]}", "save it separated by commas")
    absent = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
    twice = sorted({name for name in header if header.count(name) > 1})
    if absent or unknown or twice:
        reasons = [f"lacks {', '.join(absent)}"] if absent else []
        reasons += [f"has {name!r} ({nearest(name, (*REQUIRED, *OPTIONAL))})" for name in unknown]
        reasons += [f"has {', '.join(twice)} twice"] if twice else []
        raise _refusal(file, f"{'; '.join(reasons)} in its first line", "correct the header")
    return header, lines[1:]


def _row(folder: Path, line: int, row: dict[str, str]) -> tuple[list[str], Output | None]:
    """Return what is wrong with a row, and the row if it can be used."""
    tasks = {task.value: task for task in Task}
    task = tasks.get(row["task"].lower())
    gender = GENDERS.get(row.get("gender", "").lower())
    wrong = []
    if task is None:
        wrong.append(f"line {line}: task {row['task']!r} ({nearest(row['task'], tasks)})")
    if gender is None:
        wrong.append(f"line {line}: gender {row['gender']!r} instead of f, m or nothing")
    if not row["model"]:
        wrong.append(f"line {line} names no model")
    paths: dict[str, Path] = {}
    for name in ("source", "reference", "output"):
        if row[name]:
            paths[name] = folder / Path(row[name]).expanduser()
            if not paths[name].is_file():
                wrong.append(f"line {line}: no file at its {name} {paths[name]}")
        elif name != "reference" or task not in (*WITHOUT_REFERENCE, None):
            wrong.append(f"line {line} names no {name}")
    if wrong or task is None or gender is None:
        return wrong, None
    return [], Output(
        line=line, task=task, source=paths["source"], reference=paths.get("reference"),
        output=paths["output"], model=row["model"], transcript=row.get("transcript", ""),
        speaker=row.get("speaker", ""), gender=gender,
    )  # fmt: skip


def _refusal(file: Path, reason: str, advice: str) -> DataError:
    return DataError(
        f"manifest {file} {reason}; expected CSV with the columns {', '.join(REQUIRED)}, and where "
        f"known {', '.join(OPTIONAL)}; {advice}"
    )
