"""What an archive says it holds, judged before anything of it is written.

The kind (zip; tar, plain or compressed by gzip, bzip2, xz) is told by content. Refused are names
that lead out of the folder, links and devices, names that meet where letter case does not count,
encryption, too many files and too many bytes.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from xfavot.errors import DataError
from xfavot.fetch.part import CHUNK_BYTES

MOST_DEPTH = 64  # folders in one another
MOST_HEADER_BYTES = 1 << 22  # read at once; a tar can announce names of any length
MOST_PADDING_BYTES = 1 << 24  # after the end of a tar
_ENCRYPTED = 0x1  # flag of a zip's member
_KINDS = {0: "file", stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symbolic link"}
_STREAMS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry of an archive.

    Attributes:
        name: as the archive has it.
        kind: ``"file"``, ``"folder"``, or what else it is.
        size: bytes, as the archive says.
        encrypted: whether a password is needed.
        entry: of `zipfile` or `tarfile`.
    """

    name: str
    kind: str
    size: int
    encrypted: bool = False
    entry: Any = None


class Archive(Protocol):
    """An opened archive."""

    def members(self) -> Iterator[Member]:
        """Yield what it lists."""
        ...

    def open(self, member: Member) -> IO[bytes]:
        """Open a file of it for reading."""
        ...


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> Iterator[Member]:
        for entry in self._archive.infolist():
            name = entry.orig_filename  # `filename` is cut at a NUL
            mode = stat.S_IFMT(entry.external_attr >> 16)
            kind = _KINDS.get(mode, "device")
            yield Member(
                name=name,
                kind="folder" if kind == "file" and name.endswith("/") else kind,
                size=entry.file_size,
                encrypted=bool(entry.flag_bits & _ENCRYPTED),
                entry=entry,
            )

    def open(self, member: Member) -> IO[bytes]:
        return self._archive.open(member.entry)


class _Tar:
    def __init__(self, archive: tarfile.TarFile, stream: _Stepwise) -> None:
        self._archive, self._stream = archive, stream

    def members(self) -> Iterator[Member]:
        for entry in self._archive:
            if entry.isreg():
                kind = "file"
            elif entry.isdir():
                kind = "folder"
            else:
                links = {tarfile.SYMTYPE: "symbolic link", tarfile.LNKTYPE: "hard link"}
                kind = links.get(entry.type, "device")
            yield Member(name=entry.name, kind=kind, size=entry.size, entry=entry)
        self._require_end()

    def _require_end(self) -> None:
        """Refuse an archive that breaks off, which `tarfile` takes for its end.

        The stream is read out, since gzip's and bzip2's checksums stand last.
        """
        self._stream.seek(self._archive.offset)
        if self._stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it breaks off or a header is damaged")
        padding = 0
        while chunk := self._stream.read(CHUNK_BYTES):
            padding += len(chunk)
            if padding > MOST_PADDING_BYTES:
                raise tarfile.ReadError(f"more than {MOST_PADDING_BYTES} bytes after its end")

    def open(self, member: Member) -> IO[bytes]:
        source = self._archive.extractfile(member.entry)
        if source is None:
            raise tarfile.ReadError(f"{member.name!r} is no file")
        return source


class _Stepwise:
    """A stream that is never read in one great piece, as `tarfile` would read a hostile header."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self._read(count)


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open an archive by its content.

    Raises:
        DataError: it is neither a zip nor a tar.
    """
    with path.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        with zipfile.ZipFile(path) as archive:
            yield _Zip(archive)
        return
    opener: Any = next((opener for magic, opener in _STREAMS if head.startswith(magic)), None)
    if opener is None and head[257:262] != b"ustar":
        raise DataError(
            f"{path} is no archive (it begins with {head[:16]!r}); expected a zip or a tar; remove "
            "it and fetch it again"
        )
    with (opener or open)(path, "rb") as stream:
        steps = _Stepwise(stream)
        with tarfile.open(fileobj=steps, mode="r:") as tar:  # type: ignore[call-overload]
            yield _Tar(tar, steps)


def judge(
    archive: Path, members: Iterable[Member], *, most_files: int, most_bytes: int
) -> list[tuple[PurePosixPath, Member]]:
    """Refuse a listing with anything that may do harm.

    Args:
        archive: for messages.
        members: its listing.
        most_files, most_bytes: how much it may hold.

    Returns:
        Where each member goes, below the folder of the archive.

    Raises:
        DataError: naming the first member that is refused, and why.
    """
    placed: list[tuple[PurePosixPath, Member]] = []
    seen: dict[str, tuple[str, str]] = {}
    total = 0
    for member in members:
        where = PurePosixPath(member.name)
        total += member.size
        fault = _fault(member, where) or _meets(seen, where, member.kind)
        if not fault and (total > most_bytes or len(placed) >= most_files):
            fault = f"with it there are more than {most_files} files or {most_bytes} bytes"
        if fault:
            raise DataError(
                f"{archive}: {member.name[:200]!r}: {fault}; expected files and folders that "
                "unpack safely; nothing was unpacked: look at the archive before trusting it"
            )
        if where.parts:
            placed.append((where, member))
    if not any(member.kind == "file" for _, member in placed):
        raise DataError(f"{archive} holds no file; expected some; remove it and fetch it again")
    return placed


def _fault(member: Member, where: PurePosixPath) -> str:
    """Say what is wrong with one member, ``""`` if nothing is."""
    name = member.name
    if not name or "\0" in name or "\\" in name or re.match("/|[A-Za-z]:", name):
        return "no plain relative path"
    if ".." in where.parts:
        return "leads out of its folder"
    if len(where.parts) > MOST_DEPTH:
        return f"deeper than {MOST_DEPTH} folders"
    if member.kind not in ("file", "folder"):
        return f"a {member.kind}"
    if member.size < 0:
        return "of negative size"
    return "encrypted" if member.encrypted else ""


def _meets(seen: dict[str, tuple[str, str]], where: PurePosixPath, kind: str) -> str:
    """Say which earlier name a path or a folder above it meets where letter case is ignored."""
    for depth in range(len(where.parts), 0, -1):
        path = "/".join(where.parts[:depth])
        here = kind if depth == len(where.parts) else "folder"
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded not in seen:
            seen[folded] = path, here
            continue
        taken, was = seen[folded]
        if taken != path or "file" in (was, here):
            return f"meets {taken!r}"
        break  # a folder met before, and those above it too
    return ""
