"""One file from the web to the disk: resumed where it was cut, checked, and only then named.

Lineage: design of this project on the standard library; proxies of the environment are honoured.
``XFAVOT_OFFLINE=1`` forbids any connection. No credentials are sent or written.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xfavot.errors import DataError
from xfavot.fetch.exchange import Again, Refused, ask, looks_like_page
from xfavot.fetch.part import Part, alone, checksum_of, on_disk
from xfavot.fetch.progress import Log, Meter, size_text

OFFLINE = "XFAVOT_OFFLINE"
_URL = re.compile(r"https?://[^\s/?#]+[!-~]*")
_CHECKSUM = re.compile(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})?")
_NAME = re.compile(r"(?!.*\.part$)[^./\\:\0-\x1f][^/\\:\0-\x1f]{0,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file on the web.

    Attributes:
        url: its address, http or https.
        name: what it is called on the disk.
        size: bytes; 0 if unknown.
        checksum: ``"sha256:..."`` or ``"md5:..."`` in lower case; ``""`` if unknown.
        mirrors: other addresses of the same bytes, tried in order.
    """

    url: str
    name: str
    size: int = 0
    checksum: str = ""
    mirrors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no address, name, size or checksum."""
        for url in (self.url, *self.mirrors):
            if "@" in url.partition("://")[2].partition("/")[0]:
                raise DataError(
                    f"{self.name}: its address holds a user name; expected none, since addresses "
                    "are written to the disk; remove it"
                )
            if not _URL.fullmatch(url):
                raise DataError(f"{self.name}: address {url!r}; expected http(s)://...; correct it")
        if not _NAME.fullmatch(self.name):
            raise DataError(f"file name {self.name!r}; expected a plain one; correct it")
        if self.size < 0 or not _CHECKSUM.fullmatch(self.checksum):
            raise DataError(
                f"{self.name}: size {self.size}, checksum {self.checksum!r}; expected 0 or more "
                "bytes, and sha256:<64 hex> or md5:<32 hex> in lower case or nothing; correct it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to bear with a server.

    Attributes:
        tries: in a row that bring nothing new, after which an address is given up.
        first_pause, most_pause: seconds between tries; they double from the first to the most,
            which also bounds what a server may ask for.
        silence: seconds without a byte after which a connection counts as dead.
        sleep, clock: of `time`; tests put others.
    """

    tries: int = 6
    first_pause: float = 2.0
    most_pause: float = 60.0
    silence: float = 60.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic


PATIENCE = Patience()


def fetch(
    remote: Remote, folder: Path | str, *, on_log: Log | None = None, patience: Patience = PATIENCE
) -> Path:
    """Fetch a file, or find it fetched.

    Args:
        remote: the file.
        folder: where it goes; made if missing. One process at a time works there.
        on_log: receives plain lines of progress.
        patience: how often and how long to try.

    Returns:
        ``<folder>/<name>``, complete and of the right size and checksum as far as these are known.

    Raises:
        DataError: no address gives the file, what came or was there is another file, the disk is
            full (what came is kept for the next run), or the program is offline.
    """
    log: Log = on_log or (lambda line: None)
    target = Path(folder) / remote.name
    with alone(target.parent, log):
        if target.exists():
            _require_same(remote, target)
            return target
        _require_online(remote, target)
        part = Part(target, remote.checksum.partition(":")[0] or "sha256")
        reasons = []
        for url in (remote.url, *remote.mirrors):
            try:
                _fetch_from(url, remote, part, log, patience)
            except Refused as error:
                reasons.append(f"{url} {error}")
                log(f"{remote.name}: {reasons[-1]}")
            else:
                return target
        kept = f"; {size_text(part.size)} of it are kept for the next run" if part.size else ""
        raise DataError(
            f"{remote.name} could not be fetched: {'; '.join(reasons)}{kept}; expected "
            f"{_wanted(remote)}; check the connection and run again, or fetch it by hand and put "
            f"it at {target}"
        )


def is_offline() -> bool:
    """Say whether the environment forbids connections."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


def _fetch_from(url: str, remote: Remote, part: Part, log: Log, patience: Patience) -> None:
    """Try one address until the file is whole or the patience ends."""
    anew, most, failures = False, part.size, 0
    while True:
        try:
            _try_once(url, remote, part, log, patience, anew=anew)
            _finish(remote, part, log)
            return
        except Again as error:
            failures = 0 if part.size > most else failures + 1
            anew, most = error.anew, max(part.size, most)
            if failures >= patience.tries:
                raise Refused(f"{error}, {failures} tries in a row") from error
            pause = max(patience.first_pause * 2.0 ** max(failures - 1, 0), error.after)
            pause = min(pause, patience.most_pause)
            log(f"{remote.name}: {error}; trying again in {pause:.0f} s")
            patience.sleep(pause)


def _try_once(
    url: str, remote: Remote, part: Part, log: Log, patience: Patience, *, anew: bool
) -> None:
    """Ask once, for what is missing if that can be trusted to fit, and write what comes."""
    same = part.origin.get("url") == url and part.origin.get("version")
    offset = part.size if (same or remote.checksum) and not anew else 0
    if offset:
        part.rehash()
        log(f"{remote.name}: going on from {size_text(offset)}")
    with ask(
        url,
        offset=offset,
        origin=part.origin,
        size=remote.size,
        page=Path(remote.name).suffix.casefold() in (".html", ".htm"),
        timeout=patience.silence,
    ) as answer:
        whole = answer.total or remote.size
        _require_space(part.path, whole - part.size)
        meter = Meter(remote.name, log, total=whole, done=answer.offset, clock=patience.clock)
        with part.writing(answer.offset, answer.origin) as write:
            for chunk in answer.chunks:
                write(chunk)
                meter.add(len(chunk))
    if part.size < whole:
        raise Again(f"the connection was cut after {part.size} of {whole} bytes")


def _finish(remote: Remote, part: Part, log: Log) -> None:
    """Name the file if it is the right one, else remove it."""
    if remote.size and part.size != remote.size:
        came = part.size
        part.discard()
        raise Refused(f"sent {came} bytes or more, expected {remote.size}; they were removed")
    checksum = part.checksum
    if remote.checksum and checksum != remote.checksum:
        part.discard()
        raise Refused(f"sent a file of {checksum}, expected {remote.checksum}; it was removed")
    part.finish()
    known = "as it should be" if remote.checksum else "which nobody has published to compare"
    log(f"{remote.name}: {size_text(part.size)} are here, {checksum}, {known}")


def _require_same(remote: Remote, target: Path) -> None:
    """Check a file that is there already; reading it through is done once."""
    advice = f"remove {target} and run again"
    with on_disk(target):
        size = target.stat().st_size
        with target.open("rb") as file:
            page = looks_like_page(file.read(200))
    if remote.size and size != remote.size:
        raise DataError(f"{target} has {size} bytes; expected {remote.size}; {advice}")
    if not remote.checksum and page and not target.suffix.casefold().startswith(".htm"):
        raise DataError(f"{target} is a web page; expected {_wanted(remote)}; {advice}")
    checksum = checksum_of(target, remote.checksum.partition(":")[0])
    if remote.checksum and checksum != remote.checksum:
        raise DataError(f"{target} is {checksum}; expected {remote.checksum}; {advice}")


def _require_online(remote: Remote, target: Path) -> None:
    if is_offline():
        raise DataError(
            f"{remote.name} is not here and {OFFLINE} forbids connections; expected "
            f"{_wanted(remote)}; fetch {remote.url} elsewhere and put it at {target}, or unset "
            f"{OFFLINE}"
        )


def _require_space(path: Path, count: int) -> None:
    with on_disk(path):
        free = shutil.disk_usage(path.parent).free
    if count > free:
        raise DataError(
            f"{path.parent} has {size_text(free)} free; expected {size_text(count)} for "
            f"{path.stem}; free some space or choose another folder, and run again"
        )


def _wanted(remote: Remote) -> str:
    size = f"{remote.size} bytes" if remote.size else "the file"
    return f"{size}, {remote.checksum}" if remote.checksum else size
