"""What is known of each corpus: licence, consent, bias, held-out speakers, the paper's counts.

Paper: Sec. 4 (counts, excluded speakers, validation images). One file a corpus in
`xfavot/presets/corpora/`; mixtures, dataset cards, messages and downloads all read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from xfavot import presets
from xfavot.data.manifest import Store
from xfavot.errors import ConfigError
from xfavot.strict import build, nearest, require

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
