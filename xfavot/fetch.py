"""Files from the web, resumed, checked and only then named; archives unpacked without trust.

``XFAVOT_OFFLINE=1`` forbids any connection; proxies of the environment are obeyed. What has come of
a file is ``<name>.part``, and beside it lies the server's mark of the version (ETag or
Last-Modified), without which a changed file could be joined to an old part. Archives unpack beside
their target, which appears at the end.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import os
import re
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from filelock import FileLock

from xfavot import __version__
from xfavot.errors import DataError, import_optional, refusing

Log = Callable[[str], None]
OFFLINE = "XFAVOT_OFFLINE"
CHUNK_BYTES = 1 << 16  # what a cut connection may lose
TRIES = 6  # in a row that bring nothing new, after which an address is given up
MOST_PAUSE_SECONDS = 60.0  # between two tries; the pause doubles from 2 s
SILENCE_SECONDS = 60.0  # without a byte, after which a connection counts as dead
LINE_SECONDS = 10.0  # between two lines of progress
PASSING = (408, 425, 429, 500, 502, 503, 504)  # status codes that another try may overcome
MARK = ".version"  # ends the name of the server's mark of the version
MOST_RATIO = 100  # of unpacked to packed bytes; media hardly shrink, bombs do
RATIO_FREE_BYTES = 1 << 24  # a small archive may unpack to this many, whatever the ratio
_PAGE = re.compile(rb"\s*(<!doctype html|<html|<head|<\?xml[^>]*>\s*<(!doctype )?html)", re.I)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on the web.

    Attributes:
        url: its address, http or https.
        mirrors: other addresses of the same bytes, tried in order.
        file: what it is called on the disk.
        bytes: its size; 0 if not published.
        checksum: ``"sha256:..."`` or ``"md5:..."`` in lower case, or as many of its first digits as
            are published; ``""`` if none.
    """

    url: str = ""
    mirrors: tuple[str, ...] = ()
    file: str = ""
    bytes: int = 0
    checksum: str = ""


class _RefusedError(Exception):
    """An address will not give the file, however often it is asked."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; a killed one's lock is gone with it.

    Raises:
        DataError: what the disk refuses inside the block.
    """
    advice = "free some space or choose another folder, and run again: what came so far is kept"
    with refusing(OSError, DataError, f"{folder} cannot be written or read", advice):
        lock = FileLock(folder / ".fetch.lock")
        while not lock.is_locked:
            folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # whoever was done has removed the folder
                lock.acquire()
        try:
            yield
        finally:
            lock.release()


def fetch(remote: Remote, folder: Path, log: Log) -> Path:
    """Fetch a file, or find it fetched; :func:`alone` keeps other processes out meanwhile.

    Args:
        remote: the file.
        folder: where it goes; made if missing.
        log: receives plain lines of progress.

    Returns:
        ``<folder>/<name>``, complete and of the right size and checksum as far as these are known.

    Raises:
        DataError: no address gives the file (what came is kept for the next run), what was there
            is another file, or the program is offline.
    """
    target, part = folder / remote.file, folder / f"{remote.file}.part"
    if target.exists():
        if fault := fault_of(target, remote):
            raise DataError(f"{target} {fault}; remove it and run again")
        return target
    by_hand = f"fetch {remote.url} by hand and put it at {target}"
    if is_offline():
        raise DataError(f"{remote.file} is not here and {OFFLINE} forbids connections; {by_hand}")
    folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in (remote.url, *remote.mirrors):
        try:
            _receive(url, remote, part, log)
        except _RefusedError as error:
            reasons.append(f"{url} {error}")
            log(f"{remote.file}: {reasons[-1]}")
            continue
        part.replace(target)
        part.with_suffix(MARK).unlink()
        checksum = remote.checksum or f"{checksum_of(target)}, which nobody has published"
        log(f"{remote.file}: {size_text(target.stat().st_size)} are here, {checksum}")
        return target
    kept = f"; {size_text(_size_of(part))} are kept for the next run" if part.exists() else ""
    raise DataError(
        f"{remote.file} could not be fetched: {'; '.join(reasons)}{kept}; check the connection and "
        f"run again, or {by_hand}"
    )


def _receive(url: str, remote: Remote, part: Path, log: Log) -> None:
    """Try one address until the part is whole and the right one, or the patience ends."""
    requests = import_optional("requests", extra="data", purpose="fetching files")
    failures, most = 0, _size_of(part)
    while not (remote.bytes and _size_of(part) == remote.bytes):
        try:
            _ask(requests, url, remote, part, log)
            break
        except requests.RequestException as error:
            failures = 1 if _size_of(part) > most else failures + 1
            most = max(most, _size_of(part))
            if isinstance(error, ValueError) or failures >= TRIES:  # a ValueError: no address
                raise _RefusedError(f"{error}, {failures} tries in a row") from error
            pause = min(2.0**failures, MOST_PAUSE_SECONDS)
            log(f"{remote.file}: {error}; trying again in {pause:.0f} s")
            time.sleep(pause)
    if fault := fault_of(part, remote):
        part.unlink()
        raise _RefusedError(f"sent a file that {fault}; it was removed")


def _ask(requests: Any, url: str, remote: Remote, part: Path, log: Log) -> None:
    """Ask once, for what is missing if that can be trusted to fit, and write what comes."""
    offset, mark = _size_of(part), part.with_suffix(MARK)
    version = mark.read_text(encoding="utf-8") if offset and mark.exists() else ""
    headers = {"User-Agent": f"xfavot/{__version__}", "Accept-Encoding": "identity"}
    if offset and (version or remote.checksum):
        headers["Range"] = f"bytes={offset}-"
        headers |= {"If-Range": version} if version else {}
    with requests.get(url, headers=headers, stream=True, timeout=SILENCE_SECONDS) as response:
        code, given = response.status_code, response.headers
        if code in PASSING:
            response.raise_for_status()
        schemes = [hop.url.partition(":")[0] for hop in (*response.history, response)]
        if code not in (200, 206, 416) or schemes != sorted(schemes):
            raise _RefusedError(f"answers with status {code} by {' and '.join(schemes)}")
        etag = given.get("ETag", "")  # a weak one does not name the bytes
        came = etag if etag.startswith('"') else given.get("Last-Modified", "")
        begins = given.get("Content-Range", "").startswith(f"bytes {offset}-")
        if code != 200 and not (code == 206 and begins and came in (version, "")):
            part.unlink()
            raise requests.ConnectionError("the file here is not continued; starting anew")
        mark.write_text(came, encoding="utf-8")
        last = time.monotonic()
        with part.open("ab" if code == 206 else "wb") as file:
            for chunk in response.iter_content(CHUNK_BYTES):
                file.write(chunk)
                if remote.bytes and file.tell() > remote.bytes:
                    break
                if time.monotonic() - last >= LINE_SECONDS:
                    last = time.monotonic()
                    whole = f" of {size_text(remote.bytes)}" if remote.bytes else ""
                    log(f"{remote.file}: {size_text(file.tell())}{whole}")


def _size_of(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def is_offline() -> bool:
    """Say whether the environment forbids connections."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


def fault_of(path: Path, remote: Remote) -> str:
    """Say how a file differs from what it should be, "" if it does not as far as is known."""
    size, algorithm = path.stat().st_size, remote.checksum.partition(":")[0]
    if remote.bytes and size != remote.bytes:
        return f"has {size} bytes; expected {remote.bytes}"
    with path.open("rb") as file:
        if looks_like_page(file.read(200)):
            return "is a web page; expected another file"
    checksum = checksum_of(path, algorithm) if algorithm else ""
    fits = checksum.startswith(remote.checksum)
    return "" if fits else f"is {checksum}; expected {remote.checksum}"


def looks_like_page(head: bytes) -> bool:
    """Say whether a file begins as a web page does."""
    return _PAGE.match(head[:200]) is not None


def checksum_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file, for example ``"sha256:0f3a..."``."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def size_text(count: float) -> str:
    """Write a number of bytes with three digits and a decimal unit."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while count >= 999.5 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.3g} {units[0]}"


def record_files(record: str, wanted: Sequence[str], folder: Path, log: Log) -> list[Remote]:
    """List files of a Zenodo record; its answer is kept in the folder.

    Args:
        record: its address in the API, ``https://zenodo.org/api/records/<number>``.
        wanted: names, with ``[1-9]`` as in a shell, and no ``*``, which could lead elsewhere.
        folder, log: as in :func:`fetch`.

    Raises:
        DataError: as :func:`fetch`, the answer is no listing, or a wanted file is not in it.
    """
    file = f"record-{record.rpartition('/')[2]}.json"
    listing = fetch(Remote(url=record, file=file), folder, log)
    try:
        listed = {entry["key"]: entry for entry in json.loads(listing.read_bytes())["files"]}
        names = [fnmatch.filter(listed, pattern) for pattern in wanted]
        if not all(names):
            raise ValueError(f"lists {', '.join(listed)}, expected {', '.join(wanted)}")
        return [
            Remote(
                url=f"{record}/files/{quote(name)}/content",
                file=name,
                bytes=int(listed[name]["size"]),
                checksum=listed[name]["checksum"],
            )
            for name in itertools.chain(*names)
        ]
    except (ValueError, TypeError, LookupError) as error:
        listing.unlink()  # asked for again by the next call
        raise DataError(
            f"{record} gave no listing that is of use ({type(error).__name__}: {error}); look at "
            f"it in a browser, fetch its files by hand and put them in {folder}"
        ) from error


def is_unpacked(folder: Path) -> bool:
    """Say whether something is in a folder already, which nothing is ever unpacked over."""
    return folder.exists() and any(folder.iterdir())


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or a tar into a folder of its own, unless something is in it already.

    A single folder at its top that is called as the archive takes the place of `folder`.

    Args:
        archive: the file; its content says of which kind it is.
        folder: appears when all is unpacked.

    Raises:
        DataError: the archive is damaged, hostile or too large; nothing is added.
    """
    if is_unpacked(folder):
        return
    draft = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
    advice = (
        "expected a whole archive of plain files and free space; free some, or fetch it again and "
        "look at it before trusting it; nothing was unpacked"
    )
    # what decoders raise on hostile bytes is a long list
    with (
        refusing(Exception, DataError, f"{archive} cannot be unpacked", advice),
        ExitStack() as end,
    ):
        end.callback(shutil.rmtree, draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _extract(archive, draft)
        top = draft / stem(archive.name)
        (top if list(draft.iterdir()) == [top] and top.is_dir() else draft).replace(folder)


def stem(name: str) -> str:
    """Return an archive's name without its ending (``a.tar.gz``: ``a``)."""
    return re.sub(r"(\.tar)?\.[^.]*$", "", name) or name


def _extract(archive: Path, folder: Path) -> None:
    """Write what an archive holds; names that lead out of the folder are refused or tamed."""
    room = max(MOST_RATIO * archive.stat().st_size, RATIO_FREE_BYTES)

    def admit(size: int) -> None:
        nonlocal room
        room -= max(size, 512)  # many empty files are a bomb too
        if room < 0:
            raise ValueError("it is too much to unpack")

    def admit_tar(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        admit(member.size)
        if not (member.isreg() or member.isdir()):
            raise ValueError(f"{member.name[:200]!r} is a link or a device")
        return tarfile.data_filter(member, path)

    with archive.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                admit(entry.file_size)
            packed.extractall(folder)  # a link becomes a file that holds its text
        return
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter=admit_tar)
        stream: Any = tar.fileobj
        stream.seek(tar.offset)
        tail = stream.read(RATIO_FREE_BYTES)  # to the end, where gzip and bzip2 keep a checksum
        if len(tail) < tarfile.BLOCKSIZE or tail.strip(b"\0"):  # `tarfile` takes it for the end
            raise tarfile.ReadError("it breaks off or a header is damaged")
