"""Archives unpacked without trust in them: whole or not at all, and never outside their folder.

The listing is judged first (`xfavot.fetch.listing`). Since listings lie, bytes are counted again
while they are written. Modes, owners and times of the archive are not applied. An archive unpacks
beside its target, which appears at the end with a stamp that says what it was made of.
"""

from __future__ import annotations

import lzma
import re
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xfavot.errors import DataError
from xfavot.fetch.listing import judge, opened
from xfavot.fetch.part import CHUNK_BYTES, alone, checksum_of, on_disk, read_json, write_json
from xfavot.fetch.progress import Log, Meter, size_text

STAMP = ".unpacked.json"  # in the unpacked folder
RATIO_FREE_BYTES = 1 << 24  # a small archive may unpack to this many, whatever the ratio
_ENDING = re.compile(r"(\.tar)?\.[^.]*$", re.IGNORECASE)
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, OverflowError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much an archive may unpack to.

    Attributes:
        files: members.
        bytes: of all together.
        ratio: of these to the bytes of the archive; media hardly shrink, bombs do.
    """

    files: int = 1_000_000
    bytes: int = 1 << 38
    ratio: float = 100.0


BOUNDS = Bounds()


class _Room:
    """The bytes that may still be written."""

    def __init__(self, archive: Path, bounds: Bounds) -> None:
        self._archive = archive
        by_ratio = max(int(archive.stat().st_size * bounds.ratio), RATIO_FREE_BYTES)
        self.left = min(bounds.bytes, by_ratio)

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise DataError(
                f"{self._archive} unpacks to more bytes than it may; expected an archive of media; "
                "nothing was unpacked: look at it before trusting it"
            )


def stem(name: str) -> str:
    """Return an archive's name without its ending (``a.tar.gz``: ``a``)."""
    return _ENDING.sub("", name) or name


def is_unpacked(target: Path, *, name: str, size: int = 0, checksum: str = "") -> bool:
    """Say whether a folder is what a certain archive unpacks to.

    Args:
        target: the folder; may be missing.
        name, size, checksum: of the archive; 0 and ``""`` where unknown.

    Raises:
        DataError: something else is there, which is never overwritten.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    stamp = read_json(target / STAMP)
    known = str(stamp.get("checksum", ""))
    comparable = checksum and known.partition(":")[0] == checksum.partition(":")[0]
    same = stamp.get("archive") == name and size in (0, stamp.get("bytes"))
    if same and (known == checksum or not comparable):
        return True
    found = f"{stamp.get('archive')} of {known}" if stamp else "something else"
    raise DataError(
        f"{target} holds {found}; expected nothing, or what {name} {checksum} unpacks to; if these "
        "are the originals use them as they are, else move them away and run again"
    )


def extract(
    archive: Path,
    target: Path,
    *,
    bounds: Bounds = BOUNDS,
    nested: bool = False,
    on_log: Log | None = None,
) -> Path:
    """Unpack an archive into a folder of its own, or find it unpacked.

    A single folder at its top that is called as the archive takes the place of `target`.

    Args:
        archive: a zip or a tar.
        target: the folder, which appears when all is unpacked.
        bounds: how much it may be.
        nested: unpack zip files inside it too, each into a folder of its name; not those inside
            these.
        on_log: receives plain lines of progress.

    Returns:
        `target`.

    Raises:
        DataError: the archive is damaged, hostile or too large, the disk is full, or something
            else is at `target`; what was there stays and nothing is added.
    """
    log: Log = on_log or (lambda line: None)
    with alone(target.parent, log):
        checksum = checksum_of(archive)
        size = archive.stat().st_size
        if is_unpacked(target, name=archive.name, size=size, checksum=checksum):
            return target
        draft = target.with_name(f".{target.name}.unpacking")
        try:
            with on_disk(target, "nothing is half unpacked"), _readable(archive):
                shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
                draft.mkdir()
                room = _Room(archive, bounds)
                _unpack(archive, draft, room, bounds, log)
                for inner in sorted(draft.rglob("*.zip")) if nested else ():
                    if zipfile.is_zipfile(inner):
                        _unpack_inner(inner, room, bounds, log)
                top = draft / stem(archive.name)
                whole = top if top.is_dir() and list(draft.iterdir()) == [top] else draft
                stamp = {"archive": archive.name, "bytes": size, "checksum": checksum}
                write_json(whole / STAMP, stamp)
                whole.replace(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    log(f"{archive.name}: unpacked to {target}")
    return target


def _unpack(archive: Path, folder: Path, room: _Room, bounds: Bounds, log: Log) -> None:
    with opened(archive) as content:
        members = judge(archive, content.members(), most_files=bounds.files, most_bytes=room.left)
        total = sum(member.size for _, member in members)
        free = shutil.disk_usage(folder).free
        if total > free:
            raise DataError(
                f"{folder.parent} has {size_text(free)} free; expected {size_text(total)} for the "
                f"files of {archive.name}; free some space and run again"
            )
        meter = Meter(f"{archive.name}: unpacking", log, total=total)
        for where, member in members:
            path = folder / where
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with content.open(member) as source, path.open("xb") as file:
                while chunk := source.read(CHUNK_BYTES):
                    room.take(len(chunk))
                    file.write(chunk)
                    meter.add(len(chunk))


def _unpack_inner(inner: Path, room: _Room, bounds: Bounds, log: Log) -> None:
    """Put the files of a zip inside an archive in its place."""
    folder = inner.with_suffix("")
    if folder.exists():
        raise DataError(
            f"{inner.name} inside the archive unpacks to {folder.name!r}, which it holds too; "
            "expected one of them; unpack it by hand"
        )
    folder.mkdir()
    _unpack(inner, folder, room, bounds, log)
    inner.unlink()


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Turn what the decoders raise into a `DataError`."""
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; those of gzip and bz2 have no number
        raise DataError(
            f"{archive} is damaged ({type(error).__name__}: {error}); expected a whole archive; "
            "remove it and fetch it again; nothing was unpacked"
        ) from error
