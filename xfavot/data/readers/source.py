"""A folder of originals, and the records that a reader makes of it.

A reader looks at names, folders and tables. It opens media only to learn what a file of an unusual
name is, so that scanning a full corpus is quick and a broken file is met later, in
`xfavot.data.prepare`, where it is quarantined.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
USUAL = {  # suffixes that are taken at their word, to be quick and to name what is broken
    "sound": ".wav .flac .mp3 .ogg .oga .opus .m4a .aac .aif .aiff .wma",
    "picture": ".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .avif .heic",
    "film": ".mpg .mpeg .mp4 .m4v .avi .mov .mkv .webm .3gp .wmv .flv",
}
_KINDS = {suffix: kind for kind, suffixes in USUAL.items() for suffix in suffixes.split()}
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
        files: how many files it stands for.
    """

    source: Path
    reason: str
    detail: str = ""
    counted: bool = False
    files: int = 1


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
        alone.append(Reject(Path(os.path.commonpath(paths)), reason, detail, files=len(paths)))
    return alone


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
        self.path, self.codes, self._misfits = path, dict[str, str](), list[str]()
        lines, contradictory = dict[str, int](), set[str]()
        for line, name, word in rows:
            code = None if word is None else _GENDERS.get(word.strip().casefold())
            first = lines.setdefault(name, line)
            if not name or code is None or self.codes.setdefault(name, code) != code:
                self._misfits.append(f"line {line} ({name!r}, {word!r})")
                if name and code is not None:
                    contradictory.add(name)
                    if strict:
                        raise DataError(
                            f"{path}: lines {first} and {line} give {name!r} the genders "
                            f"{self.codes[name]!r} and {code!r}; expected one row a speaker"
                        )
        for name in contradictory:
            del self.codes[name]
        self._unused = dict.fromkeys(self.codes)

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

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        folded: dict[str, list[str]] = {}
        for name in self.codes:
            folded.setdefault(name.casefold(), []).append(name)
        return folded

    def notes(self, *, unused: bool = True) -> Iterator[Reject]:
        """Yield what is to be said of rows that do not fit, and of rows that no clip asked for."""
        if self._misfits:
            what = "rows are not one name with one gender"
            yield Reject(self.path, MALFORMED, note(len(self._misfits), what, self._misfits))
        if unused and self._unused:
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

    Args:
        root: the folder.
        corpus: its name.
        seed: of the splits.

    Attributes:
        folders: each folder below it (as a path in it) with its files, sorted.
    """

    def __init__(self, root: Path, corpus: str = "", *, seed: int) -> None:
        """Walk through the folder."""
        self.root, self.corpus, self.seed = root, corpus, seed
        self.folders: list[tuple[Path, list[Path]]] = []
        self._odd: list[Reject] = []  # what is hidden, no plain file, or cannot be opened
        self._used: set[Path] = {root / "speakers.csv"}
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
                self._odd.append(Reject(here, "cannot be opened", str(error)))
                continue
            files, below = list[Path](), list[Path]()
            for path in entries:
                if path.name.startswith("."):
                    kind = "folders" if os.path.isdir(path) else "files"
                    why = f"hidden {kind} (a dot begins the name)"
                    self._odd.append(Reject(path, NOT_NEEDED, why, counted=True))
                elif os.path.isdir(path):
                    (links if path.is_symlink() else below).append(path)
                elif os.path.isfile(path) or not os.path.exists(path):
                    files.append(path)  # a link that leads nowhere is met again, and named, later
                else:
                    why = "a pipe, a device or a socket"
                    self._odd.append(Reject(path, "not a plain file", why))
            if not entries and here.suffix.casefold() in _KINDS:
                self._odd.append(Reject(here, "a folder, not a file", "a file has such a name"))
            waiting += reversed(below)
            self.folders.append((here.relative_to(root), files))

    @cached_property
    def speakers(self) -> Genders:
        """The table ``speakers.csv``."""
        return read_speakers(self.root)

    def text(self, path: Path | None) -> str:
        """Read a small text file of unknown encoding; an absent or unreadable one gives ``""``."""
        if path is None or not path.is_file():
            return ""
        self._used.add(path)
        try:
            return path.read_bytes().decode("utf-8-sig", errors="replace")
        except OSError:
            return ""

    def words(self, path: Path | None) -> str:
        """Read the words of a transcript; ``""`` if there is none."""
        return " ".join(self.text(path).split())

    def clip(self, kind: str, speaker: str, name: str, known: str = "", **more: Any) -> Clip:
        """Make a clip of a speaker, whose gender is that of ``speakers.csv`` or the one known."""
        gender = self.speakers.gender(speaker) or known
        return Clip(f"{speaker}/{name}", kind, f"{self.corpus}/{speaker}", gender, **more)

    def rest(self, taken: set[Path]) -> Iterator[Reject]:
        """Account for everything that no record of a reader names and that was not read.

        Args:
            taken: the files that records name.
        """
        yield from self._odd
        for path in (path for _, files in self.folders for path in files):
            if path not in taken and path not in self._used:
                kind = media_kind(path)
                why = f"{kind} files that this corpus's reader leaves out"
                why = why if kind else "other files (neither sound, picture nor film)"
                yield Reject(path, NOT_NEEDED, why, counted=True)
        if "speakers" in vars(self):  # the reader has asked for genders
            yield from self.speakers.notes()


@dataclass(frozen=True)
class Reader:
    """The reader of one corpus."""

    corpus: str
    layout: str  # that is expected, in words
    names: tuple[str, ...]  # of its folder
    read: Callable[[Source], Iterator[Clip | Reject]]

    def scan(self, source: Path, *, seed: int) -> Iterator[Clip | Reject]:
        """Yield every clip below `source` in a stable order, then whatever is no clip.

        Raises:
            DataError: the folder is missing or holds nothing in the corpus's layout, or a table
                beside the corpus contradicts itself.
        """
        source = Path(source)
        if not source.is_dir():
            raise DataError(
                f"source folder {str(source)!r} does not exist; expected the folder of the "
                f"{self.corpus} originals: {self.layout}; set `source` to it"
            )
        root = corpus_folder(source, self.corpus)
        folder = Source(root, self.corpus, seed=seed)
        taken: set[Path] = set()
        rejects: list[Reject] = []
        clips = 0
        for record in self.read(folder):
            if isinstance(record, Clip):
                clips += 1
                taken.update(record.files)
                yield _storable(record)
            else:
                taken.add(record.source)
                rejects.append(record)
        rejects = summed([*rejects, *folder.rest(taken)])
        for other in sorted(source.iterdir() if source != root else ()):
            if other != root and other.is_dir() and other.name.casefold() in self.names:
                detail = f"a second folder of {self.corpus}; {root.name} is taken"
                rejects.append(Reject(other, NOT_NEEDED, detail))
        if not clips:
            seen = "".join(f"; {r.source}: {r.reason} ({r.detail})" for r in rejects[:EXAMPLES])
            if any(path.suffix in ARCHIVES for _, files in folder.folders for path in files):
                seen += "; it holds archives: unpack them first"
            raise DataError(
                f"source folder {str(source)!r} holds no clip of {self.corpus}{seen}; expected "
                f"{self.layout}; set `source` to that folder or to one that holds "
                f"{self.corpus!r} as a folder"
            )
        yield from rejects


READERS: dict[str, Reader] = {}


def reader(
    layout: str, *names: str
) -> Callable[[Callable[[Source], Iterator[Clip | Reject]]], Callable[..., Any]]:
    """Register the function that reads the corpus of its name; `names` are others of its folder."""

    def register(read: Callable[[Source], Iterator[Clip | Reject]]) -> Callable[..., Any]:
        corpus = read.__name__
        READERS[corpus] = Reader(corpus, layout, (corpus, *names), read)
        return read

    return register


def _storable(clip: Clip) -> Clip:
    """Spell out what is not UTF-8 in the names that a clip has from its files."""
    extra = {k: printable(x) if k == "group" else x for k, x in clip.extra.items()}
    return replace(clip, id=printable(clip.id), speaker=printable(clip.speaker), extra=extra)


def corpus_folder(source: Path, corpus: str) -> Path:
    """Return the folder of a corpus: a child of `source` that bears its name, or `source` itself.

    Args:
        source: the corpus's own folder, or one that holds one folder a corpus.
        corpus: its name.

    Raises:
        DataError: `source` cannot be read, or holds folders of other corpora and none of this one.
    """
    try:
        folders = {path.name.casefold(): path for path in sorted(source.iterdir()) if path.is_dir()}
    except OSError as error:
        raise DataError(
            f"source folder {str(source)!r} cannot be read ({error}); expected the {corpus} "
            "originals; correct its permissions"
        ) from error
    for name in READERS[corpus].names:
        if name in folders:
            return folders[name]
    every = {name for reader in READERS.values() for name in reader.names}
    others = sorted(path.name for name, path in folders.items() if name in every)
    if others:
        raise DataError(
            f"source folder {str(source)!r} holds {', '.join(others)} but no folder {corpus!r}; "
            f"put the {corpus} originals into a folder of that name, or set `source` to them"
        )
    return source
