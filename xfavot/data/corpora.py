"""What is known of each corpus: licence, consent, bias, held-out speakers, the paper's counts.

Paper: Sec. 4 (counts, excluded speakers, validation images). One file a corpus in
`xfavot/presets/corpora/`; mixtures, dataset cards, messages and downloads all read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from xfavot import presets
from xfavot.data.manifest import Store
from xfavot.errors import ConfigError
from xfavot.strict import nearest

COUNTS = ("speakers", "unseen", "images", "val_female", "val_male")


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
    downloads: tuple[Mapping[str, Any], ...] = ()


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
    for key in ("held_out", "downloads"):
        described[key] = tuple(described.get(key, ()))
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
