"""Weights that the package does not ship: what each is, where it lies, and its way there.

The table is `xfavot/presets/weights/`, one file a set; `WEIGHTS.md` shows it. What is here already
is found in one folder, ``<cache>/<name>/``, or inside an installed package that brings it. Nothing
is fetched unasked, nothing is used unchecked: against the published sha256, against the part of it
that is published, or, where nothing is, against `SHA256SUMS`, written when the set first came.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

from xfavot import fetch, presets
from xfavot.errors import DataError, WeightsError
from xfavot.files import whole, write_whole
from xfavot.strict import build, require

CACHE = "~/.cache/xfavot/weights"  # unless named, or in the environment:
CACHE_VARIABLE = "XFAVOT_WEIGHTS"
COMMAND = "python -m xfavot.cli fetch-weights"
SUMS = "SHA256SUMS"  # in the folder of a set; `sha256sum -c` reads it
ARCHIVES = "archives"  # in the cache, until they are unpacked


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights(fetch.Remote):
    """One set of weights as `xfavot/presets/weights/<name>.yaml` describes it.

    Sizes and checksums are those of the files at the addresses, or of public records of them; what
    nobody publishes stays empty.

    Attributes:
        name: of the set.
        title, purpose: what it is and what it is for.
        licence, terms: of the weights, and where that stands.
        record: in place of `url`, a record in Zenodo's API, which tells size and checksum.
        holds: of an archive, a pattern of the file in it whose folder is wanted.
        package, inside, install: the Python package that brings the file, where in it, and how to
            install it.
        parts: in place of `package`, packages that bring it in pieces, in order, each at `inside`,
            in which "{number}" counts them from 1.
    """

    name: str
    title: str
    purpose: str
    licence: str
    terms: str
    file: str
    record: str = ""
    holds: str = ""
    package: str = ""
    parts: tuple[str, ...] = ()
    inside: str = ""
    install: str = ""

    def __post_init__(self) -> None:
        """Require one way to the file."""
        one_way = bool(self.url or self.inside) != bool(self.record)
        wanted = "url, record, or package with inside"
        require(one_way, f"weights/{self.name}.yaml", self.url, wanted, "name one way to the file")

    @property
    def size_words(self) -> str:
        """How large it is."""
        return fetch.size_text(self.bytes) if self.bytes else "size not published"

    @property
    def source_words(self) -> str:
        """Where it comes from."""
        ways = [f"with the package {self.package} ({self.install})"] if self.package else []
        ways += [f"from {self.url or self.record}"] if self.url or self.record else []
        pieces = f"in {len(self.parts)} pieces with packages ({self.install})"
        ways += [pieces] if self.parts else []
        return ", or ".join(ways)

    @property
    def check_words(self) -> str:
        """What the file is held against."""
        if self.checksum:
            digits = len(self.checksum.partition(":")[2])
            return "sha256" if digits == 64 else f"first {digits} digits of the sha256"
        return "its record, then the first that came" if self.record else "the first that came"


def names() -> tuple[str, ...]:
    """List the sets."""
    return presets.names("weights")


def describe(name: str) -> Weights:
    """Read the description of a set.

    Raises:
        ConfigError: no such set, or its file has unknown, missing or contradictory entries.
    """
    given = {**presets.load("weights", name), "name": name}
    return build(Weights, given, f"weights/{name}.yaml")


def root(cache: str | PathLike[str] | None = None) -> Path:
    """Return the folder of all sets: `cache`, or what the environment names, or the usual one."""
    return Path(cache or os.environ.get(CACHE_VARIABLE) or CACHE).expanduser()


def path(
    name: str,
    cache: str | PathLike[str] | None = None,
    *,
    download: bool = False,
    on_log: fetch.Log | None = None,
) -> Path:
    """Find the weights of a set, checked.

    Args:
        name: of the set, one of :func:`names`.
        cache: the folder of all sets; see :func:`root`.
        download: fetch them if they are not here; never done unasked. What came before a cut is
            kept for the next run.
        on_log: receives plain lines of a download: what it is, its licence, progress.

    Returns:
        The file; of an archive, the folder that holds what it unpacks to.

    Raises:
        ConfigError: no such set.
        WeightsError: they are not here and cannot be had, or not what they should be. The message
            says what they are, how large, under which licence, and how to get them.
    """
    known, folder = describe(name), root(cache)
    log: fetch.Log = on_log or (lambda line: None)
    if download:
        log(f"{name}: {known.title}, {known.size_words}, {known.source_words}")
        log(f"{name}: licence: {known.licence}; {known.terms}")
        with _named(known), fetch.alone(folder):
            there = here(name, folder) or _joined(known, folder)
            if there is None and (known.url or known.record):
                _fetch(known, folder, log)
    found = here(name, folder) or _joined(known, folder)
    if found is None:
        raise WeightsError(_absent(known, folder))
    log(f"{name}: ready at {found}")
    return found


def here(name: str, cache: str | PathLike[str] | None = None) -> Path | None:
    """Find the weights of a set as `path` does, or nothing.

    Raises:
        ConfigError: no such set.
        WeightsError: something else is in their place.
    """
    known, folder = describe(name), root(cache) / name
    with _named(known):
        if known.holds:
            held = sorted(folder.rglob(known.holds), key=lambda file: (len(file.parts), file))
            if held:
                _require_as_first(known, folder, folder.rglob("*"))
            return held[0].parent if held else None
        file = folder / known.file
        if not file.is_file():
            return _brought(known)
        if fault := fetch.fault_of(file, known):
            raise DataError(f"{file} {fault}; remove it and run {COMMAND} {name}")
        if known.check_words != "sha256":
            _require_as_first(known, folder, [file])
        return file


def _fetch(known: Weights, cache: Path, log: fetch.Log) -> None:
    """Bring a set into its folder of the cache."""
    place = cache / (ARCHIVES if known.holds else known.name)
    remote: fetch.Remote = known
    if known.record and not (place / known.file).exists():
        (remote,) = fetch.record_files(known.record, (known.file,), place, log)
    file = fetch.fetch(remote, place, log)
    if known.holds:
        fetch.unpack(file, cache / known.name)
        if here(known.name, cache) is None:
            raise DataError(
                f"{file} holds no {known.holds}; expected one; look into it, then remove it and "
                f"{cache / known.name} and run {COMMAND} {known.name}"
            )
        file.unlink()


def _brought(known: Weights) -> Path | None:
    """Return the file inside an installed package, if it is the published one."""
    spec = find_spec(known.package) if known.package else None
    file = Path(spec.origin).parent / known.inside if spec and spec.origin else None
    if file is None or not file.is_file():
        return None
    fault = fetch.fault_of(file, known)
    if fault and not known.url:  # else the right one can be fetched
        raise DataError(
            f"{file} {fault}; another version of {known.package} is installed: {known.install}, in "
            "the versions of constraints.txt"
        )
    return None if fault else file


def _joined(known: Weights, cache: Path) -> Path | None:
    """Put a file together of the pieces that installed packages bring, if all of them are here."""
    specs = [find_spec(name) for name in known.parts]
    pieces = [
        Path(spec.origin).parent / known.inside.format(number=number)
        for number, spec in enumerate(specs, 1)
        if spec and spec.origin
    ]
    if not pieces or len(pieces) < len(specs) or not all(map(Path.is_file, pieces)):
        return None
    with _named(known), whole(cache / known.name / known.file) as draft:
        with draft.open("wb") as file:
            file.writelines(piece.read_bytes() for piece in pieces)
        if fault := fetch.fault_of(draft, known):
            raise DataError(f"{', '.join(known.parts)} join to what {fault}; install them anew")
    return here(known.name, cache)


def _require_as_first(known: Weights, folder: Path, files: Iterable[Path]) -> None:
    """Refuse files that are not those that first came; write down what comes first."""
    sums = folder / SUMS
    named = {file.relative_to(folder).as_posix(): file for file in files if file.is_file()}
    seen = [
        f"{fetch.checksum_of(named[name]).partition(':')[2]}  {name}\n"
        for name in sorted(named)
        if named[name] != sums and not named[name].name.startswith(".")
    ]
    if not sums.exists() and os.access(folder, os.W_OK):
        write_whole(sums, "".join(seen))
    first = sums.read_text(encoding="utf-8").splitlines(keepends=True) if sums.exists() else []
    if changed := [line.split()[1] for line in first if line not in seen]:
        raise DataError(
            f"{', '.join(changed)} are not what first came, which {sums} tells; remove {folder} "
            f"and run {COMMAND} {known.name}"
        )


@contextmanager
def _named(known: Weights) -> Iterator[None]:
    """Raise what goes wrong inside the block as a `WeightsError` that names the set."""
    try:
        yield
    except (DataError, OSError) as error:
        raise WeightsError(f"weights {known.name} ({known.title}): {error}") from error


def _absent(known: Weights, cache: Path) -> str:
    """Say that a set is not here, and how to get it."""
    place = cache / (ARCHIVES if known.holds else known.name) / known.file
    steps = [f"run {known.install}"] if known.package else []
    if known.url or known.record:
        unset = f"{fetch.OFFLINE} forbids connections: unset it and "
        offline = unset if fetch.is_offline() else ""
        steps += [
            f"{offline}run {COMMAND} {known.name}, or pass download=True",
            f"get {known.file} from {known.url or known.terms} elsewhere, put it at {place} and "
            f"run {COMMAND} {known.name}",
        ]
    steps += [f"run {known.install}, which brings it in pieces"] if known.parts else []
    return (
        f"weights {known.name} ({known.title}) are not here, and nothing is fetched unasked; "
        f"expected {known.file} ({known.size_words}; licence: {known.licence}) in "
        f"{cache / known.name}; {', or '.join(steps)}"
    )


def listing(cache: str | PathLike[str] | None = None) -> str:
    """Write one line a set: whether it is here, its size, how it is checked, its licence.

    Args:
        cache: see :func:`root`.
    """
    folder, wrong = root(cache), []
    form = "{:<34} {:<18} {:>18}  {:<44} {}".format
    lines = [f"weights in {folder}", form("name", "here", "size", "checked against", "licence")]
    for known in map(describe, names()):
        try:
            found = here(known.name, folder)
            inside = found is not None and not found.is_relative_to(folder)
            state = f"in {known.package}" if inside else "yes" if found else "no"
        except WeightsError as error:
            state = "wrong"
            wrong.append(str(error))
        lines.append(form(known.name, state, known.size_words, known.check_words, known.licence))
    return "\n".join([*lines, *wrong])
