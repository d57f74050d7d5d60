"""What is known of each corpus: licence, consent, bias, held-out speakers, the paper's counts.

Paper: Sec. 4 (counts, excluded speakers, validation images). One file a corpus in
`xfavot/presets/corpora/`; mixtures, dataset cards, messages and downloads all read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from xfavot import presets
from xfavot.data.store import Store
from xfavot.errors import ConfigError
from xfavot.strict import build, nearest, require
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from xfavot.errors import DataError
from xfavot.fetch.archives import BOUNDS, Bounds, extract, is_unpacked, stem
from xfavot.fetch.part import on_disk
from xfavot.fetch.progress import Log, size_text
from xfavot.fetch.remote import PATIENCE, Patience, Remote, fetch
from xfavot.fetch.zenodo import record_files
from xfavot.strict import nearest


COUNTS = ("speakers", "unseen", "images", "val_female", "val_male")


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What can be fetched of a corpus: one file, or some of a Zenodo record.

    Attributes:
        url, mirrors: addresses of one file, tried in order.
        file: its name.
        bytes, checksum: as its owners publish them; 0 and ``""`` if they do not.
        record: address of a record in Zenodo's API, which tells names, sizes and checksums.
        files: names wanted of the record; ``*``, ``?`` and ``[1-9]`` as in a shell.
        terms: where its terms of use stand.
    """

    url: str = ""
    mirrors: tuple[str, ...] = ()
    file: str = ""
    bytes: int = 0
    checksum: str = ""
    record: str = ""
    files: tuple[str, ...] = ()
    terms: str = ""

    def __post_init__(self) -> None:
        """Check that it is one of the two."""
        one = bool(self.url and self.file) and not (self.record or self.files)
        some = bool(self.record and self.files) and not (self.url or self.file)
        got, step = self.url or self.record, "give these and none of the other two"
        require(one or some, "downloads", got, "url with file, or record with files", step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One corpus as `xfavot/presets/corpora/<name>.yaml` describes it.

    Attributes:
        name: as in `READERS`.
        title: its owners' name for it.
        content: what it holds.
        licence, consent, bias, citation: sentences for its card.
        how: how to get it.
        held_out: speakers that training never sees, without the corpus's name.
        paper: counts of the paper, any of `COUNTS`.
        downloads: what `xfavot.data.download` can fetch; empty where the owners must be asked.
    """

    name: str
    title: str
    content: str
    licence: str
    consent: str
    bias: str
    citation: str
    how: str
    held_out: tuple[str, ...] = ()
    paper: Mapping[str, int] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()


def describe(name: str) -> Corpus:
    """Read the description of a corpus.

    Raises:
        ConfigError: no such corpus, or its file has unknown or missing entries.
    """
    described = presets.load("corpora", name)
    known = {entry.name for entry in fields(Corpus)} - {"name"}
    where = f"corpora/{name}.yaml"
    for key in described:
        if key not in known:
            raise ConfigError(f"{where}: {key!r} is unknown; {nearest(key, known)}")
    for key in set(described.get("paper", {})) - set(COUNTS):
        raise ConfigError(f"{where}: paper: {key!r} is unknown; {nearest(key, COUNTS)}")
    described["held_out"] = tuple(described.get("held_out", ()))
    described["downloads"] = tuple(
        build(Download, entry, f"{where}: downloads[{i}]")
        for i, entry in enumerate(described.get("downloads", ()))
    )
    try:
        return Corpus(name=name, **described)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}; expected {', '.join(sorted(known))}") from error


def counts(store: Store) -> dict[str, int]:
    """Count what a store holds, by the names of `COUNTS`."""
    items = store.items
    return {
        "speakers": len({item.speaker for item in items if item.speaker}),
        "unseen": len({item.speaker for item in items if item.split == "unseen"} - {""}),
        "images": sum(item.face_count for item in items),
        "val_female": sum(item.split == "val" and item.gender == "f" for item in items),
        "val_male": sum(item.split == "val" and item.gender == "m" for item in items),
    }


def compare_counts(store: Store) -> list[str]:
    """Say what a store holds beside what the paper used, one line for each count that differs."""
    known = describe(store.corpus)
    ours = counts(store)
    lines = [
        f"{store.corpus}: {name} {ours[name]}, in the paper {count}"
        for name, count in known.paper.items()
        if ours[name] != count
    ]
    return [*lines, *_absent(store, known.held_out)]


def _absent(store: Store, held_out: Sequence[str]) -> list[str]:
    """Name the held-out speakers that the store lacks."""
    present = {item.speaker.partition("/")[2] for item in store.items}
    absent = [name for name in held_out if name not in present]
    if not absent:
        return []
    return [f"{store.corpus}: held-out speakers not present: {', '.join(absent)}"]


# A corpus from its owners' servers into a folder of originals, where the owners allow it


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
