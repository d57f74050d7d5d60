"""What is known of each corpus: licence, consent, bias, held-out speakers, the paper's counts.

Paper: Sec. 4 (counts, excluded speakers, validation images). One file a corpus in
`xfavot/presets/corpora/`; mixtures, dataset cards, messages and downloads all read it. Where the
owners allow it, `download` brings the originals from their servers.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from xfavot import fetch, presets
from xfavot.errors import ConfigError, DataError
from xfavot.strict import build, nearest

COUNTS = ("speakers", "unseen", "images", "val_female", "val_male")
ARCHIVES = "archives"


@dataclass(frozen=True, slots=True, kw_only=True)
class Download(fetch.Remote):
    """What can be fetched of a corpus: one file (`url`), or some of a Zenodo record.

    Attributes:
        record: address of a record in Zenodo's API, which tells names, sizes and checksums.
        files: names wanted of the record; ``*``, ``?`` and ``[1-9]`` as in a shell.
        terms: where its terms of use stand.
    """

    record: str = ""
    files: tuple[str, ...] = ()
    terms: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """One corpus as `xfavot/presets/corpora/<name>.yaml` describes it.

    Attributes:
        name: as in `READERS`.
        title: its owners' name for it.
        content: what it holds.
        licence, consent, bias, citation: sentences for its card.
        how: how to get it.
        layout: how its originals lie, in words.
        folders: names, in small letters, that their folder may have; `name` is the first.
        held_out: speakers that training never sees, without the corpus's name.
        paper: counts of the paper, any of `COUNTS`.
        download: what :func:`download` can fetch; none where the owners must be asked.
    """

    name: str
    title: str
    content: str
    licence: str
    consent: str
    bias: str
    citation: str
    how: str
    layout: str
    folders: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    paper: dict[str, int] = field(default_factory=dict)
    download: Download | None = None


def describe(name: str) -> Corpus:
    """Read the description of a corpus.

    Raises:
        ConfigError: no such corpus, or its file has unknown or missing entries.
    """
    where = f"corpora/{name}.yaml"
    described = presets.load("corpora", name)
    entry = described.pop("download", None)
    for key in set(described.get("paper", ())) - set(COUNTS):
        raise ConfigError(f"{where}: paper: {key!r} is unknown; {nearest(key, COUNTS)}")
    download = build(Download, entry, f"{where}: download") if entry else None
    known = build(Corpus, {**described, "name": name}, where)
    return replace(known, folders=(name, *known.folders), download=download)


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
    entry, terms = known.download, [f"Licence: {known.licence}", f"Cite: {known.citation}"]
    if entry is None:
        start = f"{known.title} cannot be fetched by this program. To get it: {known.how}"
        return "\n".join([start, *terms])
    size = fetch.size_text(entry.bytes) if entry.bytes else "size not published"
    line = (
        f"- {', '.join(entry.files)} of {entry.record}, which tells their sizes and checksums "
        "when the download starts"
        if entry.record
        else f"- {entry.file} ({size}, {entry.checksum or 'no published checksum'}) from "
        f"{', '.join((entry.url, *entry.mirrors))}"
    )
    terms.insert(1, f"Terms: {entry.terms}")
    return "\n".join([f"{known.title} can be fetched (download True):", line, *terms])


def download(corpus: str, folder: Path | str, *, on_log: fetch.Log | None = None) -> Path:
    """Fetch and unpack a corpus, or find that done.

    Args:
        corpus: one of `READERS`.
        folder: of originals; the corpus goes below it, its archives into `archives/`.
        on_log: receives plain lines: the terms, the files, progress.

    Returns:
        ``<folder>/<corpus>``, a source for `xfavot.data.prepare.scan`.

    Raises:
        ConfigError: no such corpus.
        DataError: the corpus must be asked for, a file cannot be had, is another than published
            or may do harm, something else is in its place, the disk is full, or the program is
            offline and something is missing. What is done stays done.
    """
    log: fetch.Log = on_log or (lambda line: None)
    known = describe(corpus)
    log(offer(corpus))
    if known.download is None:
        raise DataError(
            f"{corpus} cannot be fetched; expected one that its owners let anyone fetch; "
            f"{known.how} (licence: {known.licence})"
        )
    entry, root, archives = known.download, Path(folder, corpus), Path(folder, ARCHIVES, corpus)
    with fetch.alone(archives):
        files: list[fetch.Remote] = [entry]
        if entry.record:
            files = fetch.record_files(entry.record, entry.files, archives, log)
        places = {f: root / fetch.stem(f.file) if entry.record else root for f in files}
        todo = [f for f in files if not fetch.is_unpacked(places[f])]
        size = sum(file.bytes for file in todo)
        log(f"{corpus}: {len(todo)} of {len(files)} archives to fetch, {fetch.size_text(size)}")
        free = shutil.disk_usage(archives).free
        need = size + sum(file.bytes for file in todo if not (archives / file.file).exists())
        if need > free:
            raise DataError(
                f"{corpus}: {folder} has {fetch.size_text(free)} free; expected about "
                f"{fetch.size_text(need)} for archives and files; free some or name another folder"
            )
        for file in todo:
            archive = fetch.fetch(file, archives, log)
            log(f"{archive.name}: unpacking to {places[file]}")
            fetch.unpack(archive, places[file])
    log(f"{corpus}: ready in {root}")
    return root
