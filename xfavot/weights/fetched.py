"""Weights that the package does not ship: what each is, where it lies, and its way there.

The table is `xfavot/presets/weights/`, one file a set; `WEIGHTS.md` shows it. What is here already
is found in one folder, ``<cache>/<name>/``, or inside an installed package that brings it. Nothing
is fetched unasked, nothing is used unchecked: against the published sha256, against the part of it
that is published, or, where nothing is, against `SHA256SUMS`, written when the set first came.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from xfavot.errors import DataError, WeightsError
from xfavot.fetch.archives import extract
from xfavot.fetch.exchange import looks_like_page
from xfavot.fetch.part import CHUNK_BYTES, alone, checksum_of, on_disk
from xfavot.fetch.progress import Log
from xfavot.fetch.remote import OFFLINE, PATIENCE, Patience, Remote, is_offline
from xfavot.fetch.remote import fetch as fetch_file
from xfavot.fetch.zenodo import record_files
from xfavot.weights.pinned import Weights, describe

CACHE = "~/.cache/xfavot/weights"  # unless named, or in the environment:
CACHE_VARIABLE = "XFAVOT_WEIGHTS"
COMMAND = "python -m xfavot.cli fetch-weights"
SUMS = "SHA256SUMS"  # in the folder of a set; `sha256sum -c` reads it
ARCHIVES = "archives"  # in the cache, until they are unpacked
LOCKS = ".locks"


def root(cache: str | PathLike[str] | None = None) -> Path:
    """Return the folder of all sets: `cache`, or what the environment names, or the usual one.

    Raises:
        WeightsError: a file is in its place.
    """
    folder = Path(cache or os.environ.get(CACHE_VARIABLE) or CACHE).expanduser()
    if folder.exists() and not folder.is_dir():
        raise WeightsError(
            f"the folder of weights is {folder}, which is a file; expected a folder or nothing "
            f"there; move the file away, or name another folder (cache, or {CACHE_VARIABLE})"
        )
    return folder


def path(
    name: str,
    cache: str | PathLike[str] | None = None,
    *,
    download: bool = False,
    on_log: Log | None = None,
) -> Path:
    """Find the weights of a set, checked.

    Args:
        name: of the set, one of `xfavot.weights.pinned.names`.
        cache: the folder of all sets; see `root`.
        download: fetch them if they are not here; never done unasked.
        on_log: receives plain lines of a download.

    Returns:
        The file; of an archive, the folder that holds what it unpacks to.

    Raises:
        ConfigError: no such set.
        WeightsError: they are not here, or not what they should be. The message says what they
            are, how large, under which licence, and how to get them.
    """
    found = here(name, cache)
    if found is not None:
        return found
    if not download:
        raise _missing(describe(name), root(cache))
    return fetch(name, cache, on_log=on_log)


def here(name: str, cache: str | PathLike[str] | None = None) -> Path | None:
    """Find the weights of a set as `path` does, or nothing.

    Raises:
        ConfigError: no such set.
        WeightsError: something else is in their place.
    """
    known, folder = describe(name), root(cache)
    with _named(known), on_disk(folder, "nothing was changed"):
        if known.holds:
            return _unpacked(known, folder / name)
        if (folder / name / known.file).is_file():
            _require_right(known, folder / name / known.file)
            return folder / name / known.file
        return _brought(known)


def fetch(
    name: str,
    cache: str | PathLike[str] | None = None,
    *,
    on_log: Log | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch the weights of a set, or find them fetched.

    Args:
        name, cache: see `path`.
        on_log: receives plain lines: what it is, its licence, progress.
        patience: how often and how long to try a server.

    Returns:
        As `path`.

    Raises:
        ConfigError: no such set.
        WeightsError: they cannot be had, or what came is something else (and is removed); what
            came of the right file before a cut is kept for the next run.
    """
    known, folder = describe(name), root(cache)
    log: Log = on_log or (lambda line: None)
    log(f"{name}: {known.title}, {known.size_words}, {known.source_words}")
    log(f"{name}: licence: {known.licence}; {known.terms}")
    with _named(known), alone(folder / LOCKS / name, log):
        found = here(name, folder)
        if found is None and not (known.url or known.record):
            raise _missing(known, folder)
        if found is None:
            place = folder / (ARCHIVES if known.holds else name)
            file = fetch_file(
                _remote(known, place, log, patience), place, on_log=log, patience=patience
            )
            _require_beginning(known, file)
            if known.holds:
                extract(file, folder / name, on_log=log)
                with on_disk(file):
                    file.unlink()
            found = here(name, folder)
    if found is None:
        raise WeightsError(
            f"weights {name}: {known.file} holds no {known.holds}; expected one; look into "
            f"{folder / name}, then remove it and run {COMMAND} {name}"
        )
    log(f"{name}: ready at {found}")
    return found


def _remote(known: Weights, place: Path, log: Log, patience: Patience) -> Remote:
    """Say what to fetch; a record is asked for it unless the file lies there."""
    if known.url or (place / known.file).exists():
        return Remote(
            url=known.url or known.record,
            name=known.file,
            size=known.bytes,
            checksum=known.checksum,
            mirrors=known.mirrors,
        )
    listing = Remote(url=known.record, name=f"record-{known.name}.json")
    file = fetch_file(listing, place, on_log=log, patience=patience)
    with on_disk(file):
        text = file.read_bytes().decode("utf-8", errors="replace")
        file.unlink()  # asked for again by the next call
    offered = {remote.name: remote for remote in record_files(known.record, text)}
    if known.file not in offered:
        raise DataError(
            f"{known.record} lists {', '.join(offered)}; expected {known.file}; fetch it by hand "
            f"and put it at {place / known.file}"
        )
    return offered[known.file]


def _require_beginning(known: Weights, file: Path) -> None:
    """Remove a file that came with another checksum than the part that is published."""
    if known.begins and not (came := checksum_of(file, "sha256")).startswith(known.begins):
        with on_disk(file):
            file.unlink()
        raise DataError(
            f"{known.url} sent a file of {came}; expected {known.begins}...; it was removed; try "
            f"again, or fetch {known.file} elsewhere and put it at {file}"
        )


def _unpacked(known: Weights, folder: Path) -> Path | None:
    """Return the folder inside that of a set which holds what an archive is wanted for."""
    held = sorted(folder.rglob(known.holds), key=lambda file: (len(file.parts), file))
    if not held:
        return None
    _require_as_first(known, folder, [file for file in folder.rglob("*") if file.is_file()])
    return held[0].parent


def _brought(known: Weights) -> Path | None:
    """Return the file inside an installed package, if it is the published one."""
    spec = find_spec(known.package) if known.package else None
    file = Path(spec.origin).parent / known.inside if spec and spec.origin else None
    if file is None or not file.is_file():
        return None
    checksum = _sha256(file)
    if checksum == known.checksum:
        return file
    if known.url:
        return None  # can be fetched
    raise DataError(
        f"{file} is {checksum}; expected {known.checksum}; another version of {known.package} is "
        f"installed: {known.install}, in the versions of constraints.txt"
    )


def _require_right(known: Weights, file: Path) -> None:
    """Refuse a file that is not the published one, as far as that is known."""
    with file.open("rb") as stream:
        page = looks_like_page(stream.read(200))
    size, checksum = file.stat().st_size, _checksum(file)
    wanted = known.checksum or known.begins
    if page or (known.bytes and size != known.bytes) or not checksum.startswith(wanted):
        expected = f"{known.bytes} bytes" if known.bytes else "weights"
        raise DataError(
            f"{file} is {'a web page' if page else f'{size} bytes of {checksum}'}; expected "
            f"{expected}{f' of {wanted}' if wanted else ''}; remove it and run {COMMAND} "
            f"{known.name}"
        )
    if not known.checksum:
        _require_as_first(known, file.parent, [file])


def _require_as_first(known: Weights, folder: Path, files: list[Path]) -> None:
    """Refuse files that are not those that first came; write down what comes first."""
    seen = {
        file.relative_to(folder).as_posix(): _checksum(file).partition(":")[2]
        for file in sorted(files)
        if file.name != SUMS and not file.name.startswith(".")
    }
    sums = folder / SUMS
    if not sums.exists():
        if os.access(folder, os.W_OK):
            draft = sums.with_name(f".{SUMS}.{os.getpid()}")
            draft.write_text("".join(f"{seen[name]}  {name}\n" for name in seen), encoding="utf-8")
            draft.replace(sums)
        return
    lines = (line.partition("  ") for line in sums.read_text(encoding="utf-8").splitlines())
    first = {name: digits for digits, _, name in lines}
    changed = sorted(name for name, digits in first.items() if seen.get(name) != digits)
    if changed:
        raise DataError(
            f"{folder}: {', '.join(changed)} are not what first came, which {sums} tells; expected "
            f"the same bytes; remove the folder and run {COMMAND} {known.name}"
        )


def _checksum(file: Path) -> str:
    """Return the sha256 of a file; its record is used where one can be written beside it."""
    return checksum_of(file, "sha256") if os.access(file.parent, os.W_OK) else _sha256(file)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


@contextmanager
def _named(known: Weights) -> Iterator[None]:
    """Raise what goes wrong inside the block as a `WeightsError` that names the set."""
    try:
        yield
    except DataError as error:
        raise WeightsError(f"weights {known.name} ({known.title}): {error}") from error


def _missing(known: Weights, cache: Path) -> WeightsError:
    """Return the error for a set that is not here."""
    place = cache / (ARCHIVES if known.holds else known.name) / known.file
    by_hand = f"get {known.file} from {known.url or known.terms} elsewhere and put it at {place}"
    if known.holds:
        by_hand += f", then run {COMMAND} {known.name}"
    way = f"run {COMMAND} {known.name}, or pass download=True"
    if is_offline():
        way = f"{OFFLINE} forbids connections: unset it and {way}"
    steps = [f"run {known.install}"] if known.package else []
    steps += [way, by_hand] if known.url or known.record else []
    return WeightsError(
        f"weights {known.name} ({known.title}) are not here, and nothing is fetched unasked; "
        f"expected {known.file} ({known.size_words}; licence: {known.licence}) in "
        f"{cache / known.name}; {', or '.join(steps)}"
    )
