"""A file on its way to the disk: the part that has come, where it came from, checksums, the lock.

Beside ``<name>.part`` lies ``.<name>.part.json`` with the address and the server's mark of the
version (ETag or Last-Modified), without which a changed file could be joined to an old part. A
finished file has ``.<name>.json`` with its checksum, so that it is read through once only.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xfavot.errors import DataError
from xfavot.fetch.progress import Log

CHUNK_BYTES = 1 << 20
LOCK = ".fetch.lock"


@contextmanager
def on_disk(path: Path, after: str = "what came so far is kept") -> Iterator[None]:
    """Turn what the disk refuses inside the block into a `DataError`, which ends with `after`."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path} cannot be written or read ({error}); expected a folder with free space and "
            f"permission; free some space or choose another folder, and run again: {after}"
        ) from error


@contextmanager
def alone(folder: Path, log: Log) -> Iterator[None]:
    """Keep other processes out of a folder; a killed one's lock is gone with it."""
    with on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    with lock:
        with on_disk(folder):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log(f"{folder}: another process is at work here; waiting for it to end")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_json(path: Path) -> dict[str, Any]:
    """Read a small JSON mapping; one that is missing or damaged is empty."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a small JSON mapping, whole or not at all."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def checksum_of(path: Path, algorithm: str = "") -> str:
    """Return the checksum of a finished file, from its record if that still fits.

    Args:
        path: the file.
        algorithm: ``"sha256"`` or ``"md5"``; ``""`` takes what the record has, else sha256.

    Returns:
        For example ``"sha256:0f3a..."``.

    Raises:
        DataError: the file cannot be read.
    """
    with on_disk(path):
        state = path.stat()
        mark = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
        record = read_json(_record(path))
        known = str(record.get("checksum", ""))
        if known.startswith(algorithm or ("sha256", "md5")) and mark.items() <= record.items():
            return known
        algorithm = algorithm or "sha256"
        checksum = f"{algorithm}:{_digest(path, algorithm).hexdigest()}"
        write_json(_record(path), {**mark, "checksum": checksum})
        return checksum


class Part:
    """The bytes of a file that have come so far, with their running checksum.

    Args:
        target: where the finished file goes.
        algorithm: of the checksum.
    """

    def __init__(self, target: Path, algorithm: str) -> None:
        """Find what an earlier try has left; see the class."""
        self.target, self.algorithm = target, algorithm
        self.path = target.with_name(f"{target.name}.part")
        self._note = _record(self.path)
        self.size = self.path.stat().st_size if self.path.is_file() else 0
        self.origin = read_json(self._note) if self.size else {}
        self._hash: Any = None

    def rehash(self) -> None:
        """Read what is there through the checksum, once a process."""
        if self._hash is None and self.size:
            with on_disk(self.path):
                self._hash = _digest(self.path, self.algorithm)

    @contextmanager
    def writing(self, offset: int, origin: Mapping[str, Any]) -> Iterator[Callable[[bytes], None]]:
        """Open the part for the block; offset 0 starts it anew, else it is its present size."""
        with on_disk(self.path):
            if offset == 0:
                self.path.write_bytes(b"")
                self._hash = _new(self.algorithm)
            self.size, self.origin = offset, dict(origin)
            write_json(self._note, self.origin)
            file = self.path.open("ab")

        def write(chunk: bytes) -> None:
            with on_disk(self.path):
                file.write(chunk)
            self._hash.update(chunk)
            self.size += len(chunk)

        try:
            yield write
        finally:
            with on_disk(self.path):
                file.close()

    @property
    def checksum(self) -> str:
        """The checksum of all that has come, for example ``"sha256:0f3a..."``."""
        self.rehash()
        return f"{self.algorithm}:{(self._hash or _new(self.algorithm)).hexdigest()}"

    def finish(self) -> None:
        """Give the file its name; only now does it look complete to anyone."""
        checksum = self.checksum
        with on_disk(self.target):
            with self.path.open("ab") as file:
                os.fsync(file.fileno())
            state = self.path.stat()
            record = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns, "checksum": checksum}
            write_json(_record(self.target), {**self.origin, **record})
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the part: it can never become the file."""
        with on_disk(self.path):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self.size, self.origin, self._hash = 0, {}, None


def _record(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _new(algorithm: str) -> Any:
    return hashlib.new(algorithm, usedforsecurity=False)


def _digest(path: Path, algorithm: str) -> Any:
    digest = _new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest
