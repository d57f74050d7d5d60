"""Readers: one file a corpus, each turns a folder of originals into `Clip` records.

A reader only looks at names, folders and tables; it opens no media, so scanning a full corpus is
quick and a broken file is met later, in `xfavot.data.prepare`, where it is quarantined. Nothing has
to be renamed: every reader accepts the corpus's original layout. `source` is the corpus's own
folder or a folder that holds one folder a corpus.

Every media file below the corpus's folder ends up as (part of) a clip, as a `Reject` of its own, or
in a `Reject` that counts a class of files which are left out on purpose (`LeftOut`).

Lineage: design of this project; the layouts are those of the corpora's owners.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xfavot.errors import DataError
from collections.abc import Collection, Iterator
import csv
import io
from collections.abc import Collection
import hashlib
import importlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol, cast

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


# What a reader yields: clips, files that cannot be placed, files that are left out on purpose


AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma"}
)
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic"}
)
VIDEO_SUFFIXES = frozenset(
    {".mpg", ".mpeg", ".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".3gp", ".wmv", ".flv"}
)
MEDIA_SUFFIXES = AUDIO_SUFFIXES | IMAGE_SUFFIXES | VIDEO_SUFFIXES
NOT_NEEDED = "not needed"  # the reason of what is left out although nothing is wrong with it
EXAMPLES = 3  # names in a note


@dataclass(frozen=True, slots=True, kw_only=True)
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
        known = tuple(path for path in (self.video, self.audio, *self.images) if path is not None)
        if not known:
            raise DataError(
                f"clip {self.id!r} names no file; expected audio, images or a video; "
                "this is a fault of the corpus's reader"
            )
        return known


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A media file that a reader saw and could not place; it goes to the quarantine list."""

    source: Path
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A media file that a reader does not take on purpose; it is counted with its like.

    All that share `reason` and `why` become one `Reject`, whose detail holds their number.

    Attributes:
        source: the file.
        why: what it is, said of several files: ``"takes of the second microphone"``.
        reason: the class of the `Reject`.
    """

    source: Path
    why: str
    reason: str = NOT_NEEDED


class Tally:
    """Counts what is left out, class by class."""

    def __init__(self) -> None:
        """Start with no class."""
        self._classes: dict[tuple[str, str], tuple[int, str, list[str]]] = {}

    def add(self, left_out: LeftOut) -> None:
        """Count one file."""
        key = (left_out.reason, left_out.why)
        count, folder, names = self._classes.get(key, (0, str(left_out.source), []))
        if len(names) < EXAMPLES:
            names.append(left_out.source.name)
        self._classes[key] = (count + 1, os.path.commonpath([folder, left_out.source]), names)

    def notes(self) -> list[Reject]:
        """Return one record a class: the folder that holds its files, their number, examples."""
        return [
            Reject(
                source=Path(folder),
                reason=reason,
                detail=note(count, f"{'file' if count == 1 else 'files'}: {why}", names),
            )
            for (reason, why), (count, folder, names) in self._classes.items()
        ]


def note(count: int, what: str, examples: Sequence[str]) -> str:
    """Say how many of something there are, with examples."""
    return f"{count:,} {what}, for example {', '.join(map(printable, examples[:EXAMPLES]))}"


def printable(name: str) -> str:
    """Return a file's name with bytes that are not UTF-8 spelled out (backslash, x, two digits)."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def media_kind(path: Path) -> str:
    """Return what a file is by its suffix: ``"sound"``, ``"picture"``, ``"film"`` or ``""``."""
    suffix = path.suffix.casefold()
    kinds = {"sound": AUDIO_SUFFIXES, "picture": IMAGE_SUFFIXES, "film": VIDEO_SUFFIXES}
    return next((kind for kind, suffixes in kinds.items() if suffix in suffixes), "")


# Walking a folder of originals: every file once, loops of links end, nothing is passed over


ARCHIVE_SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """One folder and what lies in it, sorted by name."""

    path: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # links to folders
    hidden: list[Path] = field(default_factory=list)
    special: list[Path] = field(default_factory=list)  # pipes, devices, sockets
    fault: str = ""


def walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder below `folder` with its files, sorted.

    Links to folders are followed last, and every folder is entered once, so that a folder is seen
    under its own name where it has one and a loop of links ends.
    """
    for place in _folders(folder):
        yield place.path, place.files


def left_over(root: Path, taken: Collection[Path]) -> Iterator[Reject | LeftOut]:
    """Account for everything below `root` that no record of a reader names.

    Args:
        root: the corpus's folder.
        taken: files that records name.
    """
    for place in _folders(root):
        if place.fault:
            yield Reject(source=place.path, reason="cannot be opened", detail=place.fault)
        elif media_kind(place.path) and not (place.files or place.folders or place.links):
            detail = "expected a file of that name"
            yield Reject(source=place.path, reason="a folder, not a file", detail=detail)
        for path in place.special:
            if media_kind(path):
                detail = "a pipe, a device or a socket"
                yield Reject(source=path, reason="not a plain file", detail=detail)
        for path in place.files:
            kind = media_kind(path)
            if kind and path not in taken:
                yield LeftOut(source=path, why=f"{kind} files that this corpus's reader leaves out")
        for path in place.hidden:
            if path.is_dir():
                yield LeftOut(source=path, why="hidden folders (a dot begins the name)")
            elif media_kind(path):
                yield LeftOut(source=path, why="hidden files (a dot begins the name)")


def archives(root: Path) -> list[str]:
    """Return the names of archives below `root`, which may still have to be unpacked."""
    return [
        path.name
        for _, files in walk(root)
        for path in files
        if path.suffix.casefold() in ARCHIVE_SUFFIXES
    ]


def _folders(root: Path) -> Iterator[_Folder]:
    seen: set[tuple[int, int]] = set()
    waiting: list[Path] = [root]
    links: list[Path] = []
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        try:
            state = os.stat(here)
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            place = _read(here)
        except OSError as error:
            place = _Folder(path=here, fault=str(error))
        waiting += reversed(place.folders)
        links += place.links
        yield place


def _read(here: Path) -> _Folder:
    place = _Folder(path=here)
    with os.scandir(here) as stream:
        entries = sorted(stream, key=lambda entry: entry.name)
    for entry in entries:
        path = here / entry.name
        if entry.name.startswith("."):
            place.hidden.append(path)
        elif entry.is_dir(follow_symlinks=False):
            place.folders.append(path)
        elif entry.is_file(follow_symlinks=False):
            place.files.append(path)
        elif not entry.is_symlink():
            place.special.append(path)
        elif path.is_dir():
            place.links.append(path)
        elif path.is_file() or not path.exists():
            place.files.append(path)  # a link that leads nowhere is met again, and named, later
        else:
            place.special.append(path)
    return place


# Small tables beside a corpus: genders of speakers, texts of unknown encoding


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


VAL_SHARE = 0.1  # of the utterances or images, STATED


class Reader(Protocol):
    """What `xfavot.data.prepare` needs of a corpus.

    A module ``xfavot/data/readers/<corpus>.py`` is a reader: it has the constant `LAYOUT` and the
    function `scan`.
    """

    LAYOUT: str

    def scan(self, source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
        """Yield every clip below `source` in a stable order, and what is no clip."""
        ...


# What a corpus's folder may be called below `source`, beside its own name.
FOLDERS: dict[str, tuple[str, ...]] = {
    "mini": (),
    "grid": ("grid_corpus",),
    "vctk": ("vctk-corpus", "vctk-corpus-0.92", "vctk_corpus"),
    "celeba_hq": ("celebahq", "celeba-hq", "celebamask-hq"),
    "lrs3": ("lrs3-ted", "lrs3_ted"),
    "lip2wav": (),
    "voxceleb": ("voxceleb1", "vox1"),
    "librispeech": (),
    "avatars": (),
    "clips": ("talking_clips",),
}


class _Module:
    """A reader whose module is imported when it is first used."""

    def __init__(self, corpus: str) -> None:
        self.corpus = corpus

    def _module(self) -> Reader:
        return cast("Reader", importlib.import_module(f"{__name__}.{self.corpus}"))

    @property
    def LAYOUT(self) -> str:
        """The layout that the reader expects, in words."""
        return str(self._module().LAYOUT)

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
                f"{self.corpus} originals: {self.LAYOUT}; set `source` to it"
            )
        clips = 0
        rejects: list[Reject] = []
        tally = Tally()
        taken: set[Path] = set()
        for record in self._module().scan(source, seed=seed):
            if isinstance(record, Clip):
                clips += 1
                taken.update(record.files)
                yield _storable(record)
            else:
                taken.add(record.source)
                rejects += _kept(record, tally)
        root = corpus_folder(source, self.corpus)
        for rest in left_over(root, taken):
            rejects += _kept(rest, tally)
        rejects += [*tally.notes(), *self._other_folders(source, root)]
        if clips == 0:
            raise DataError(self._nothing(source, root, rejects))
        yield from rejects

    def _other_folders(self, source: Path, root: Path) -> Iterator[Reject]:
        """Name the folders of `source` that bear the corpus's name too."""
        for folder in sorted(source.iterdir() if source != root else ()):
            named = folder.name.casefold() in (self.corpus, *FOLDERS[self.corpus])
            if named and folder != root and folder.is_dir():
                detail = f"a second folder of {self.corpus}; {root.name} is taken"
                yield Reject(source=folder, reason=NOT_NEEDED, detail=detail)

    def _nothing(self, source: Path, root: Path, rejects: list[Reject]) -> str:
        """Say that a folder holds nothing that could be used, and what it holds instead."""
        seen = "".join(f"; {r.source}: {r.reason} ({r.detail})" for r in rejects[:EXAMPLES])
        packed = archives(root)
        if packed:
            seen += f"; {note(len(packed), 'archives', packed)}: unpack them first"
        return (
            f"source folder {str(source)!r} holds no clip of {self.corpus}{seen}; expected "
            f"{self.LAYOUT}; set `source` to that folder or to one that holds "
            f"{self.corpus!r} as a folder"
        )


READERS: dict[str, _Module] = {corpus: _Module(corpus) for corpus in FOLDERS}


def _kept(record: Reject | LeftOut, tally: Tally) -> list[Reject]:
    """Count what is left out on purpose; return the others."""
    if isinstance(record, Reject):
        return [record]
    tally.add(record)
    return []


def _storable(clip: Clip) -> Clip:
    """Spell out what is not UTF-8 in the names that a clip has from its files."""
    names = (clip.id, clip.speaker, clip.transcript, str(clip.extra.get("group", "")))
    if all(name.isascii() or printable(name) == name for name in names):
        return clip
    extra = clip.extra | ({"group": printable(names[3])} if "group" in clip.extra else {})
    return replace(
        clip,
        id=printable(names[0]),
        speaker=printable(names[1]),
        transcript=printable(names[2]),
        extra=extra,
    )


def corpus_folder(source: Path, corpus: str) -> Path:
    """Return the folder of a corpus: a child of `source` that bears its name, or `source` itself.

    Args:
        source: the corpus's own folder, or one that holds one folder a corpus.
        corpus: its name.

    Raises:
        DataError: `source` cannot be read, or holds folders of other corpora and none of this one.
    """
    try:
        children = {child.name.casefold(): child for child in sorted(source.iterdir())}
    except OSError as error:
        raise DataError(
            f"source folder {str(source)!r} cannot be read ({error}); expected the {corpus} "
            "originals; correct its permissions"
        ) from error
    for name in (corpus, *FOLDERS[corpus]):
        if name in children and children[name].is_dir():
            return children[name]
    others = sorted(
        children[name].name
        for other, names in FOLDERS.items()
        for name in (other, *names)
        if name in children and children[name].is_dir()
    )
    if others:
        raise DataError(
            f"source folder {str(source)!r} holds {', '.join(others)} but no folder {corpus!r}; "
            f"put the {corpus} originals into a folder of that name, or set `source` to them"
        )
    return source


def fraction(key: str, *, seed: int) -> float:
    """Return a number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{printable(key)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def split_of(key: str, *, seed: int) -> str:
    """Return ``"val"`` for a tenth of the keys and ``"train"`` for the others."""
    return "val" if fraction(key, seed=seed) < VAL_SHARE else "train"
