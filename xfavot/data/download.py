"""A corpus from its owners' servers into a folder of originals, where the owners allow it.

``<folder>/<corpus>`` is what the reader takes as its source. A corpus of one archive unpacks right
there, one of several into a folder each. The archives lie in ``<folder>/archives/<corpus>``. All of
it can be cut off at any point and goes on there with the next call.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from xfavot.data.corpora import Corpus, Download, describe
from xfavot.errors import DataError
from xfavot.fetch.archives import BOUNDS, Bounds, extract, is_unpacked, stem
from xfavot.fetch.part import on_disk
from xfavot.fetch.progress import Log, size_text
from xfavot.fetch.remote import PATIENCE, Patience, Remote, fetch
from xfavot.fetch.zenodo import record_files
from xfavot.strict import nearest

ARCHIVES = "archives"
UNPACKED_RATIO = 1.1  # room that is asked for, to the bytes of an archive; media hardly shrink


def offer(corpus: str) -> str:
    """Say what `download` would fetch and under which terms, or how to ask for the corpus.

    Args:
        corpus: one of `READERS`.

    Returns:
        Lines of text; nothing is asked of any server.

    Raises:
        ConfigError: no such corpus.
    """
    known = describe(corpus)
    if not known.downloads:
        lines = [f"{known.title} cannot be fetched by this program. To get it: {known.how}"]
    else:
        lines = [f"{known.title} can be fetched:", *map(_entry_text, known.downloads)]
    lines += [f"Licence: {known.licence}"]
    lines += [f"Terms: {entry.terms}" for entry in known.downloads if entry.terms]
    return "\n".join([*lines, f"Cite: {known.citation}"])


def download(
    corpus: str,
    folder: Path | str,
    *,
    on_log: Log | None = None,
    keep_archives: bool = True,
    files: Sequence[str] | None = None,
    patience: Patience = PATIENCE,
    bounds: Bounds = BOUNDS,
) -> Path:
    """Fetch and unpack a corpus, or find that done.

    Args:
        corpus: one of `READERS`.
        folder: of originals; the corpus goes below it.
        on_log: receives plain lines: the terms, the files, progress.
        keep_archives: leave the archives; otherwise each is removed once it is unpacked.
        files: archives wanted, names as `Download.files` has them; ``None`` is all.
        patience: how often and how long to try a server.
        bounds: how much one archive may unpack to.

    Returns:
        ``<folder>/<corpus>``, a source for `xfavot.data.prepare.prepare`.

    Raises:
        ConfigError: no such corpus.
        DataError: the corpus must be asked for, a file cannot be had, is another than published
            or may do harm, something else is in its place, the disk is full, or the program is
            offline and something is missing. What is done stays done.
    """
    log: Log = on_log or (lambda line: None)
    known = describe(corpus)
    log(offer(corpus))
    if not known.downloads:
        raise DataError(
            f"{corpus} cannot be fetched; expected one that its owners let anyone fetch; "
            f"{known.how} (licence: {known.licence})"
        )
    root, archives = Path(folder) / corpus, Path(folder) / ARCHIVES / corpus
    listed = [
        remote for entry in known.downloads for remote in _remotes(entry, archives, log, patience)
    ]
    alone = len(listed) == 1
    places = {remote: root if alone else root / stem(remote.name) for remote in listed}
    todo = [
        remote
        for remote in _chosen(known, listed, files)
        if not is_unpacked(
            places[remote], name=remote.name, size=remote.size, checksum=remote.checksum
        )
    ]
    log(f"{corpus}: {_amount(todo)} to fetch and unpack, {_amount(listed)} in all")
    _require_space(corpus, Path(folder), archives, todo, keep_archives)
    for remote in todo:
        archive = fetch(remote, archives, on_log=log, patience=patience)
        extract(archive, places[remote], bounds=bounds, nested=True, on_log=log)
        if not keep_archives:
            with on_disk(archive):
                archive.unlink()
    log(f"{corpus}: ready in {root}")
    return root


def _remotes(entry: Download, archives: Path, log: Log, patience: Patience) -> list[Remote]:
    """Turn an entry into files; a record is asked for them and its answer kept."""
    if entry.url:
        return [
            Remote(
                url=entry.url,
                name=entry.file,
                size=entry.bytes,
                checksum=entry.checksum,
                mirrors=entry.mirrors,
            )
        ]
    number = entry.record.rstrip("/").rpartition("/")[2]
    listing = Remote(url=entry.record, name=f"record-{number}.json")
    path = fetch(listing, archives, on_log=log, patience=patience)
    with on_disk(path):
        text = path.read_bytes().decode("utf-8", errors="replace")
    try:
        found = record_files(entry.record, text)
    except DataError:
        path.unlink()  # asked for again by the next call
        raise
    return _matching(entry.record, found, entry.files)


def _matching(where: str, remotes: Sequence[Remote], patterns: Sequence[str]) -> list[Remote]:
    """Choose by name; a pattern that fits nothing is an error."""
    names = [remote.name for remote in remotes]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(f"{where} has no file {pattern!r}; {nearest(pattern, names)}")
    wanted = (any(fnmatchcase(name, pattern) for pattern in patterns) for name in names)
    return [remote for remote, want in zip(remotes, wanted, strict=True) if want]


def _chosen(known: Corpus, listed: Sequence[Remote], files: Sequence[str] | None) -> list[Remote]:
    return list(listed) if files is None else _matching(known.title, listed, files)


def _require_space(
    corpus: str, folder: Path, archives: Path, todo: Sequence[Remote], keep_archives: bool
) -> None:
    """Refuse to start what cannot end, as far as sizes are known."""
    coming = [remote.size for remote in todo if not (archives / remote.name).exists()]
    held = sum(coming) if keep_archives else max(coming, default=0)
    need = held + int(UNPACKED_RATIO * sum(remote.size for remote in todo))
    with on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    if need > free:
        raise DataError(
            f"{corpus}: {folder} has {size_text(free)} free; expected about {size_text(need)} for "
            "the archives and their files; free some space, choose another folder, or let the "
            "archives be removed (keep_archives)"
        )


def _amount(remotes: Sequence[Remote]) -> str:
    size = size_text(sum(remote.size for remote in remotes))
    unknown = sum(not remote.size for remote in remotes)
    more = f" and {unknown} of unknown size" if unknown else ""
    return f"{len(remotes)} archives ({size}{more})"


def _entry_text(entry: Download) -> str:
    """Write one entry as a line."""
    if entry.record:
        return (
            f"- {', '.join(entry.files)} of {entry.record}, which tells their sizes and checksums "
            "when the download starts"
        )
    size = size_text(entry.bytes) if entry.bytes else "size not published"
    checksum = entry.checksum or "no published checksum"
    return f"- {entry.file} ({size}, {checksum}) from {', '.join((entry.url, *entry.mirrors))}"
