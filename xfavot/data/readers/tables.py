"""Small tables beside a corpus: genders of speakers, texts of unknown encoding."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

from xfavot.data.readers.records import Reject, note
from xfavot.errors import DataError

SPEAKERS = "speakers.csv"
MALFORMED = "rows that do not fit"
UNUSED = "rows without a clip"
_GENDERS = {
    **dict.fromkeys(("f", "female", "w", "woman"), "f"),
    **dict.fromkeys(("m", "male", "man"), "m"),
}
_UNKNOWN = frozenset({"", "?", "-", "unknown", "none", "na", "n/a", "nan"})


class Speakers:
    """Genders by speaker, as ``speakers.csv`` has them; it remembers which rows were of use.

    Args:
        path: the table, which need not exist.
        genders: name to ``"f"``, ``"m"`` or ``""``.
        malformed: rows that do not fit, for people.
    """

    def __init__(self, path: Path, genders: dict[str, str], malformed: Collection[str]) -> None:
        """Keep the rows, none of them of use yet."""
        self.path, self.genders = path, genders
        self._malformed = list(malformed)
        self._unused = dict.fromkeys(genders)
        self._folded: dict[str, list[str]] = {}
        for name in genders:
            self._folded.setdefault(name.casefold(), []).append(name)

    def gender(self, *names: str) -> str:
        """Return the gender of the first name that the table knows, ``""`` if none.

        A name that differs from one row alone in its case is that row's.
        """
        for name in names:
            near = self._folded.get(name.casefold(), [])
            row = name if name in self.genders else near[0] if len(near) == 1 else ""
            if row:
                self._unused.pop(row, None)
                return self.genders[row]
        return ""

    def notes(self) -> list[Reject]:
        """Return what is to be said of the table, once all clips have asked for their gender."""
        return [
            Reject(source=self.path, reason=reason, detail=note(len(rows), what, rows))
            for reason, what, rows in (
                (MALFORMED, "rows are not speaker, F or M", self._malformed),
                (UNUSED, "speakers have no clip here", list(self._unused)),
            )
            if rows
        ]


def read_speakers(folder: Path) -> Speakers:
    """Read ``speakers.csv`` (speaker, gender) beside a corpus; an absent file is an empty table.

    Raises:
        DataError: the file is no table in UTF-8 with the columns `speaker` and `gender`, or two of
            its rows contradict each other.
    """
    path = folder / SPEAKERS
    genders: dict[str, str] = {}
    if not path.is_file():
        return Speakers(path, genders, ())
    lines: dict[str, int] = {}
    malformed: list[str] = []
    for number, row in _rows(path):
        name, word = row["speaker"], row["gender"]
        code = gender_code(word)
        if not name or (not code and word.casefold() not in _UNKNOWN):
            malformed.append(f"line {number} ({name!r}, {word!r})")
        elif name in genders and genders[name] != code:
            raise DataError(
                f"{path}: lines {lines[name]} and {number} give {name!r} the genders "
                f"{genders[name]!r} and {code!r}; expected one row a speaker; correct the table"
            )
        else:
            genders[name] = code
            lines.setdefault(name, number)
    return Speakers(path, genders, malformed)


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Line number and cells, by column, of each row that is not blank."""
    advice = "write one row a speaker, gender F or M, as CSV in UTF-8"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); expected a table in UTF-8; {advice}"
        ) from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [cell.strip().casefold() for cell in next(table, [])]
    if not {"speaker", "gender"} <= set(columns):
        raise DataError(f"{path} has the columns {columns}; expected speaker, gender; {advice}")
    rows = []
    for cells in table:
        filled = [cell.strip() for cell in cells] + [""] * (len(columns) - len(cells))
        if any(filled):
            rows.append((table.line_num, dict(zip(columns, filled, strict=False))))
    return rows


def gender_code(word: str | None) -> str:
    """Return ``"f"``, ``"m"`` or ``""`` for the ways in which tables write a gender."""
    return _GENDERS.get((word or "").strip().casefold(), "")


def read_text(path: Path) -> str:
    """Read a small text file of unknown encoding; an unreadable one gives ``""``."""
    if not path.is_file():
        return ""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError:
        return ""
