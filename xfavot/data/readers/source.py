"""A folder of originals, and the records that a reader makes of it.

A reader only looks at names, folders and tables; it opens no media, so scanning a full corpus is
quick and a broken file is met later, in `xfavot.data.prepare`, where it is quarantined.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfavot.errors import DataError
from xfavot.media import kind_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VAL_SHARE = 0.1  # of the utterances or images, STATED
NOT_NEEDED = "not needed"  # the reason of what is left out although nothing is wrong with it
NOTED = "used, with a note"
NOT_REJECTED = (NOT_NEEDED, NOTED)
MALFORMED = "rows that do not fit"
UNUSED = "rows without a clip"
EXAMPLES = 3  # names in a note
SUFFIXES = {
    "sound": ".wav .flac .mp3 .ogg .oga .opus .m4a .aac .aif .aiff .wma",
    "picture": ".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .avif .heic",
    "film": ".mpg .mpeg .mp4 .m4v .avi .mov .mkv .webm .3gp .wmv .flv",
}
ARCHIVES = [".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"]
_KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes.split()}
_GENDERS = {
    **dict.fromkeys(["f", "female", "w", "woman"], "f"),
    **dict.fromkeys(["m", "male", "man"], "m"),
    **dict.fromkeys(("", *["?", "-", "unknown", "none", "na", "n/a", "nan"]), ""),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """One item of a corpus as its files name it, before anything is decoded.

    Attributes:
        id: unique within the corpus and stable, for example ``s1/bbaf2n``.
        kind: ``"av"`` (face and voice of one person), ``"audio"`` or ``"image"``.
        speaker: ``"grid/s1"``; ``""`` if unknown.
        gender: ``"f"``, ``"m"`` or ``""`` if unknown.
        transcript: the words, or ``""``.
        split: ``"train"``, ``"val"``, ``"unseen"``; ``""`` lets `xfavot.data.prepare` decide by a
            hash of the id (or of ``extra["group"]``, so that one video stays in one split).
        audio: file with the voice; ``None`` takes the track of `video`.
        images: faces as still images.
        video: film from which frames are taken, instead of `images`.
        aligned: the images are face crops in CelebA-HQ's framing and are only resized.
        landmarks: eyes, nose, mouth corners known beforehand, (images, 5, 2) in pixels (x, y).
        extra: anything more the corpus knows: `group` (see `split`), `seconds` (the length that
            every clip of the corpus has; a shorter one is truncated), `hidden` and `faces` (the
            factors of `mini`: of the speaker, and one mapping an image).
    """

    id: str
    kind: str
    speaker: str = ""
    gender: str = ""
    transcript: str = ""
    split: str = ""
    audio: Path | None = None
    images: tuple[Path, ...] = ()
    video: Path | None = None
    aligned: bool = False
    landmarks: NDArray[np.float32] | None = field(default=None, compare=False)
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def source(self) -> Path:
        """The file that stands for the clip in messages, the manifest and the quarantine."""
        return self.files[0]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the clip: film, sound, images."""
        return tuple(path for path in (self.video, self.audio, *self.images) if path is not None)


@dataclass(frozen=True, slots=True)
class Reject:
    """A file that a reader could not place, or leaves out; it goes to the quarantine list.

    Attributes:
        source: the file.
        reason: the class of the reject.
        detail: what is wrong; of a counted one, what several such files are.
        counted: all that share reason and detail become one reject that holds their number.
    """

    source: Path
    reason: str
    detail: str = ""
    counted: bool = False


def note(count: int, what: str, examples: Sequence[str]) -> str:
    """Say how many of something there are, with examples."""
    return f"{count:,} {what}, for example {', '.join(map(printable, examples[:EXAMPLES]))}"


def summed(rejects: Iterable[Reject]) -> list[Reject]:
    """Return the rejects, the counted ones as one a class: common folder, number, examples."""
    alone: list[Reject] = []
    classes: dict[tuple[str, str], list[Path]] = {}
    for reject in rejects:
        if reject.counted:
            classes.setdefault((reject.reason, reject.detail), []).append(reject.source)
        else:
            alone.append(reject)
    for (reason, why), paths in classes.items():
        what = f"{'file' if len(paths) == 1 else 'files'}: {why}"
        detail = note(len(paths), what, [path.name for path in paths[:EXAMPLES]])
        alone.append(Reject(Path(os.path.commonpath(paths)), reason, detail))
    return alone


def printable(name: str) -> str:
    """Return a file's name with bytes that are not UTF-8 spelled out (backslash, x, two digits)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def fraction(key: str, *, seed: int) -> float:
    """Return a number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{printable(key)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def media_kind(path: Path) -> str:
    """Return ``"sound"``, ``"picture"``, ``"film"`` or ``""``.

    A usual suffix is taken at its word, since a corpus may hold 100,000 files; whatever else it
    may be called, the content decides.
    """
    return _KINDS.get(path.suffix.casefold()) or kind_of(path) or ""


def of_kind(files: Iterable[Path], *kinds: str) -> list[Path]:
    """Return the media of some kinds."""
    return [path for path in files if media_kind(path) in kinds]


def read_text(path: Path) -> str:
    """Read a small text file of unknown encoding; an absent or unreadable one gives ``""``."""
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace") if path.is_file() else ""
    except OSError:
        return ""


def read_words(path: Path | None) -> str:
    """Read the words of a transcript; ``""`` if there is none."""
    return " ".join(read_text(path).split()) if path else ""


class Genders:
    """Genders by name, as a table beside a corpus has them; it remembers which rows were of use.

    Args:
        path: the table.
        rows: line number, name and gender in any spelling, ``None`` where the row does not fit.
        strict: refuse rows that contradict each other instead of dropping them.

    Raises:
        DataError: two rows contradict each other in a strict table.
    """

    def __init__(
        self, path: Path, rows: Iterable[tuple[int, str, str | None]] = (), *, strict: bool = False
    ) -> None:
        """Read the rows, none of them of use yet."""
        self.path, self.codes = path, dict[str, str]()
        self._malformed: list[str] = []
        lines: dict[str, int] = {}
        contradictory: set[str] = set()
        for line, name, word in rows:
            code = None if word is None else _GENDERS.get(word.strip().casefold())
            first = lines.setdefault(name, line)
            if name and code is not None and self.codes.setdefault(name, code) == code:
                continue
            if strict and name and code is not None:
                raise DataError(
                    f"{path}: lines {first} and {line} give {name!r} the genders "
                    f"{self.codes[name]!r} and {code!r}; expected one row a speaker; correct the "
                    "table"
                )
            self._malformed.append(f"line {line} ({name!r}, {word!r})")
            contradictory |= {name} if code is not None else set()
        for name in contradictory & self.codes.keys():
            del self.codes[name]
        self._unused = dict.fromkeys(self.codes)
        self._folded: dict[str, list[str]] = {}
        for name in self.codes:
            self._folded.setdefault(name.casefold(), []).append(name)

    def gender(self, *names: str) -> str:
        """Return the gender of the first name that the table knows, ``""`` if none.

        A name that differs from one row alone in its case is that row's.
        """
        for name in names:
            rows = [name] if name in self.codes else self._folded.get(name.casefold(), [])
            if len(rows) == 1:
                self._unused.pop(rows[0], None)
                return self.codes[rows[0]]
        return ""

    def malformed(self) -> Iterator[Reject]:
        """Yield what is to be said of rows that do not fit."""
        if self._malformed:
            what = "rows are not one name with one gender"
            detail = note(len(self._malformed), what, self._malformed)
            yield Reject(self.path, MALFORMED, detail)

    def unused(self) -> Iterator[Reject]:
        """Yield what is to be said of rows that no clip has asked for."""
        if self._unused:
            what = f"of {len(self.codes):,} rows have no clip here"
            yield Reject(self.path, UNUSED, note(len(self._unused), what, list(self._unused)))


def read_speakers(folder: Path) -> Genders:
    """Read ``speakers.csv`` (speaker, gender) beside a corpus; an absent file is an empty table.

    Raises:
        DataError: the file is no table in UTF-8 with the columns `speaker` and `gender`, or two of
            its rows contradict each other.
    """
    path = folder / "speakers.csv"
    advice = "write one row a speaker, gender F or M, as CSV in UTF-8"
    if not path.is_file():
        return Genders(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); expected UTF-8; {advice}") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [cell.strip().casefold() for cell in next(table, [])]
    if not {"speaker", "gender"} <= set(columns):
        raise DataError(f"{path} has the columns {columns}; expected speaker, gender; {advice}")
    rows: list[tuple[int, str, str | None]] = []
    for cells in table:
        row = dict(zip_longest(columns, map(str.strip, cells), fillvalue=""))
        if any(row.values()):
            rows.append((table.line_num, row["speaker"], row["gender"]))
    return Genders(path, rows, strict=True)


class Source:
    """The folder of one corpus, read once.

    Links to folders are followed last, and every folder is entered once, so that a folder is seen
    under its own name where it has one and a loop of links ends.

    Attributes:
        root: the folder.
        seed: of the splits.
        folders: each folder below it (as a path in it) with its files, sorted.
        odd: what is no plain file, is hidden, or cannot be opened.
    """

    def __init__(self, root: Path, *, seed: int) -> None:
        """Walk through the folder."""
        self.root, self.seed = root, seed
        self.folders: list[tuple[Path, list[Path]]] = []
        self.odd: list[Reject] = []
        entered: set[tuple[int, int]] = set()
        waiting, links = [root], list[Path]()
        while waiting or links:
            here = waiting.pop() if waiting else links.pop(0)
            try:
                state = here.stat()
                if (state.st_dev, state.st_ino) in entered:
                    continue
                entered.add((state.st_dev, state.st_ino))
                entries = sorted(here.iterdir())
            except OSError as error:
                self.odd.append(Reject(here, "cannot be opened", str(error)))
                continue
            below, linked, files = self._sorted(entries)
            if media_kind(here) and not (below or linked or files):
                detail = "expected a file of that name"
                self.odd.append(Reject(here, "a folder, not a file", detail))
            waiting += reversed(below)
            links += linked
            self.folders.append((here.relative_to(root), files))

    def _sorted(self, entries: Iterable[Path]) -> tuple[list[Path], list[Path], list[Path]]:
        """Return folders, links to folders, and files; what is none of them is odd."""
        below, linked, files = list[Path](), list[Path](), list[Path]()
        for path in entries:
            if path.name.startswith("."):
                kind = "folders" if os.path.isdir(path) else "files" if media_kind(path) else ""
                detail = f"hidden {kind} (a dot begins the name)"
                self.odd += [Reject(path, NOT_NEEDED, detail, counted=True)] if kind else []
            elif os.path.isdir(path):
                (linked if path.is_symlink() else below).append(path)
            elif os.path.isfile(path) or not os.path.exists(path):
                files.append(path)  # a link that leads nowhere is met again, and named, later
            elif media_kind(path):
                self.odd.append(Reject(path, "not a plain file", "a pipe, a device or a socket"))
        return below, linked, files

    @cached_property
    def speakers(self) -> Genders:
        """The table ``speakers.csv``."""
        return read_speakers(self.root)

    def rest(self, taken: set[Path]) -> Iterator[Reject]:
        """Account for everything that no record of a reader names.

        Args:
            taken: the files that records name.
        """
        yield from self.odd
        for _, files in self.folders:
            for path in of_kind(files, *SUFFIXES):
                if path not in taken:
                    detail = f"{media_kind(path)} files that this corpus's reader leaves out"
                    yield Reject(path, NOT_NEEDED, detail, counted=True)
        if "speakers" in vars(self):  # the reader has asked for genders
            yield from (*self.speakers.malformed(), *self.speakers.unused())
