"""Readers: each turns a folder of a corpus's originals into `Clip` records.

Nothing has to be renamed: every reader (see `layouts`) accepts the corpus's original layout. The
folder given is the corpus's own or one that holds one folder a corpus. Every file below the
corpus's folder ends up as (part of) a clip, is read as a table or a transcript, becomes a `Reject`
of its own, or is counted in a `Reject` of a class of files that are left out on purpose.

A reader looks at names, folders and tables. It opens media only to learn what a file of an unusual
name is, so that scanning a full corpus is quick and a broken file is met later, in
`xfavot.data.prepare`, where it is quarantined.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xfavot.errors import DataError, refusing
from xfavot.media import kind_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VAL_SHARE = 0.1  # of the utterances or images, STATED
NOT_NEEDED = "not needed"  # the reason of what is left out although nothing is wrong with it
NOTED = "used, with a note"
MALFORMED, UNUSED = "rows that do not fit", "rows without a clip"  # of a list of genders
NOT_REJECTED = (NOT_NEEDED, NOTED, MALFORMED, UNUSED)
EXAMPLES = 3  # names in a note
USUAL = {  # suffixes that are taken at their word, to be quick and to name what is broken
    "sound": ".wav .flac .mp3 .ogg .oga .opus .m4a .aac .aif .aiff .wma",
    "picture": ".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .avif .heic",
    "film": ".mpg .mpeg .mp4 .m4v .avi .mov .mkv .webm .3gp .wmv .flv",
}
_KINDS = {suffix: kind for kind, suffixes in USUAL.items() for suffix in suffixes.split()}
_WORDS = {"f": "f female w woman", "m": "m male man", "": "? - unknown none na n/a nan"}
_GENDERS = {"": ""} | {word: code for code, words in _WORDS.items() for word in words.split()}


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
        detail: what is wrong, or what several such files are.
        files: how many files, or rows of a list, it stands for.
    """

    source: Path
    reason: str
    detail: str = ""
    files: int = 1


def note(source: Path, reason: str, what: str, names: Collection[str]) -> Reject:
    """Say how many of something there are, with examples."""
    shown = ", ".join(map(printable, [*names][:EXAMPLES]))
    return Reject(source, reason, f"{len(names):,} {what}, for example {shown}", len(names))


def printable(name: str) -> str:
    """Return a file's name with bytes that are not UTF-8 spelled out (backslash, x, two digits)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def fraction(key: str, *, seed: int) -> float:
    """Return a number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{printable(key)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def media_kind(path: Path, *, look: bool = False) -> str:
    """Return ``"sound"``, ``"picture"``, ``"film"`` or ``""``.

    Args:
        path: the file.
        look: let the content decide whatever the suffix says, which costs some ms a file.
    """
    usual = _KINDS.get(path.suffix.casefold(), "")
    return usual if usual and not look else kind_of(path) or usual


def of_kind(files: Iterable[Path], *kinds: str) -> list[Path]:
    """Return the media of some kinds."""
    return [path for path in files if media_kind(path) in kinds]


def code_of(word: str) -> str | None:
    """Return the gender that a word of any table means: "f", "m" or "" if unknown."""
    return _GENDERS.get(word.strip().casefold())


class Source:
    """The folder of one corpus, read once.

    Links to folders are followed last, and every folder is entered once, so that a folder is seen
    under its own name where it has one and a loop of links ends.

    Args:
        root: the folder.
        corpus: its name.
        seed: of the splits.

    Attributes:
        folders: each folder below it (as a path in it) with its files, sorted.
        clips: by id, and
        rejects: whatever is no clip, as :func:`scan` finds them.
        used: files that are in either, or were read.
    """

    def __init__(self, root: Path, corpus: str = "", *, seed: int) -> None:
        """Walk through the folder."""
        self.root, self.corpus, self.seed = root, corpus, seed
        self.folders: list[tuple[Path, list[Path]]] = []
        self.clips: dict[str, Clip] = {}
        self.rejects: list[Reject] = []
        self._counted: dict[str, list[Path]] = defaultdict(list)  # what is left out, by class
        self.used: set[Path] = {root / "speakers.csv"}
        self._asked: set[str] = set()  # rows of speakers.csv
        entered, tops = set[tuple[int, int]](), [str(root)]
        for top in tops:  # grows by the links to folders that are met
            for place, below, names in os.walk(top, onerror=self._shut):
                here, state = Path(place), os.stat(place)
                if (key := (state.st_dev, state.st_ino)) in entered:
                    below.clear()
                    continue
                entered.add(key)
                if not names and not below and here.suffix.casefold() in _KINDS:
                    self.rejects.append(Reject(here, "a folder, not a file", "named like a file"))
                self._hide(here, names, "files")
                self._hide(here, below, "folders")
                tops += [str(here / name) for name in below if os.path.islink(here / name)]
                files: list[Path] = []
                for path in (here / name for name in names):
                    if path.is_file() or not os.path.exists(path):
                        files.append(path)  # a link that leads nowhere is met again, and named
                    else:
                        why = "a pipe, a device or a socket"
                        self.rejects.append(Reject(path, "not a plain file", why))
                self.folders.append((here.relative_to(root), files))

    def _shut(self, error: OSError) -> None:
        self.rejects.append(Reject(Path(error.filename), "cannot be opened", str(error)))

    def _hide(self, here: Path, names: list[str], what: str) -> None:
        """Sort names, and take those out that a dot begins."""
        names.sort()
        if hidden := [here / name for name in names if name.startswith(".")]:
            self._counted[f"hidden {what} (a dot begins the name)"] += hidden
            names[:] = [name for name in names if not name.startswith(".")]

    @cached_property
    def speakers(self) -> dict[str, str]:
        """The genders in ``speakers.csv`` (speaker, gender); an absent file is an empty table.

        Raises:
            DataError: the file is no table in UTF-8 with the columns `speaker` and `gender`, a
                gender is none, or two rows contradict each other.
        """
        path, codes = self.root / "speakers.csv", dict[str, str]()
        if not path.is_file():
            return codes
        advice = "expected speaker, gender; write one row a speaker, gender F or M, as CSV in UTF-8"
        faults = (OSError, ValueError, KeyError)
        with refusing(faults, DataError, f"{path} cannot be read", advice):
            text = path.read_text(encoding="utf-8-sig")
            delimiter = max(",;\t", key=text.partition("\n")[0].count)
            table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, restval="")
            table.fieldnames = [cell.strip().casefold() for cell in table.fieldnames or ()]
            for row in table:
                name, word = row["speaker"].strip(), row["gender"].strip()
                code = code_of(word)
                if code is None or codes.setdefault(name, code) != code:
                    raise ValueError(f"line {table.line_num}: {name!r} is {word!r}")
        return codes

    @cached_property
    def _folded(self) -> dict[str, str]:
        alike = Counter(map(str.casefold, self.speakers))
        return {n.casefold(): n for n in self.speakers if alike[n.casefold()] == 1}

    def gender(self, name: str) -> str:
        """Return the gender of a name in ``speakers.csv``, ``""`` if it is not there.

        A name that differs from one row alone in its case is that row's.
        """
        row = name if name in self.speakers else self._folded.get(name.casefold(), "")
        self._asked.add(row)
        return self.speakers.get(row, "")

    def listed(self, path: Path, rows: Iterable[Sequence[str]], at: int) -> dict[str, str]:
        """Read genders by name off the rows of a list that its owners made.

        Rows without a name or a gender, and those that contradict each other, are left out and
        named among the rejects.

        Args:
            path: the list.
            rows: cells of each row, the name first.
            at: place of the gender.
        """
        codes: dict[str, str | None] = {}
        odd: list[str] = []
        for name, *cells in filter(any, rows):
            code = code_of(cells[at - 1]) if cells[at - 1 :] else None
            if not name or code is None or codes.setdefault(name, code) != code:
                odd.append(" ".join([name, *cells[at - 1 : at]]))
                if code is not None:
                    codes[name] = None  # whatever else is said of it
        if odd:
            self.rejects.append(note(path, MALFORMED, "rows are not one name with one gender", odd))
        return {name: code for name, code in codes.items() if code is not None}

    def unused(self, path: Path, rows: Mapping[str, str], used: Collection[str]) -> None:
        """Note the rows of a list whose names no clip has."""
        if names := [name for name in rows if name not in used]:
            what = f"of {len(rows):,} rows have no clip here"
            self.rejects.append(note(path, UNUSED, what, names))

    def text(self, path: Path | None) -> str:
        """Read a small text file of unknown encoding; an absent or unreadable one gives ``""``."""
        with suppress(OSError):
            if path and path.is_file():
                self.used.add(path)
                return path.read_bytes().decode("utf-8-sig", errors="replace")
        return ""

    def words(self, path: Path | None) -> str:
        """Read the words of a transcript; ``""`` if there is none."""
        return " ".join(self.text(path).split())

    def clip(self, name: str, kind: str, speaker: str, known: str = "", **more: Any) -> Clip:
        """Make a clip of a speaker, whose gender is that of ``speakers.csv`` or the one known."""
        whole = f"{self.corpus}/{speaker}" if speaker else ""
        return Clip(name, kind, whole, self.gender(speaker) or known, **more)

    def account(self) -> None:
        """Account for everything that no record of a reader names and that was not read."""
        if "speakers" in vars(self):  # the reader has asked for genders
            self.unused(self.root / "speakers.csv", self.speakers, self._asked)
        for path in (path for _, files in self.folders for path in files):
            if path not in self.used:
                kind = media_kind(path)
                why = f"{kind} files that this corpus's reader leaves out"
                why = why if kind else "other files (neither sound, picture nor film)"
                self._counted[why].append(path)
        for why, paths in self._counted.items():
            what = f"{'file' if len(paths) == 1 else 'files'}: {why}"
            place, names = Path(os.path.commonpath(paths)), [path.name for path in paths]
            self.rejects.append(note(place, NOT_NEEDED, what, names))
