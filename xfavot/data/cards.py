"""Dataset cards: what a corpus is, under which terms, of whom, and what was prepared of it.

One card a corpus, in the Hub's form (YAML header, sections). `card` without a store is the part
that does not depend on the files at hand; `DATASETS.md` joins these, and a prepared store holds its
own card with its counts beside its report page.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from xfavot.audio.mel import MEL
from xfavot.data.corpora import COUNTS, Corpus, counts, describe
from xfavot.data.items import SPLITS
from xfavot.data.manifest import Store
from xfavot.data.prepare_report import read_quarantine
from xfavot.data.readers import READERS
from xfavot.errors import DataError

CARD = "CARD.md"  # in a store's folder
MODALITIES = {"av": "face and voice", "audio": "voice", "image": "face"}
GENDER_WORDS = {"f": "female", "m": "male", "": "gender unknown"}
_INTRO = """# Datasets

One card a corpus. Nothing of a corpus is part of this repository; `mini` is made by the package.
Preparing a corpus writes its card again, with the counts of what was found, into the store. This
file is written by `make cards`.
"""


def card(corpus: str, store: Store | None = None) -> str:
    """Write the card of a corpus in Markdown.

    Args:
        corpus: one of `READERS`.
        store: what was prepared of it; adds the header of the Hub and the counts.

    Raises:
        ConfigError: no such corpus.
    """
    known = describe(corpus)
    parts = [
        f"# {known.title}" if store else f"## {known.title}",
        f"**Content.** {known.content}",
        f"**Licence.** {known.licence}",
        f"**How to get it.** {known.how}",
        f"**Layout read.** `{READERS[corpus].LAYOUT}`",
        f"**Consent.** {known.consent}",
        f"**Bias and limits.** {known.bias}",
        f"**Cite.** {known.citation}",
        _beside_paper(known, store),
    ]
    if store:
        parts = [_header(known, store), *parts, *_contents(store)]
    return "\n\n".join(part for part in parts if part) + "\n"


def all_cards() -> str:
    """Join the cards of all corpora, as `DATASETS.md` holds them."""
    return "\n".join([_INTRO, *(card(corpus) for corpus in READERS)])


def write_card(store: Store) -> Path:
    """Write the card of a store into its folder.

    Raises:
        DataError: it cannot be written.
    """
    path = store.path / CARD
    part = path.with_suffix(".part")
    try:
        part.write_text(card(store.corpus, store), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}); expected free space; the store itself is whole: "
            "free some space and run again for the card"
        ) from error
    return path


def _header(known: Corpus, store: Store) -> str:
    modes = {mode for item in store.items for mode in MODALITIES[item.kind].split(" and ")}
    head = {
        "pretty_name": known.title,
        "license": "other",
        "license_name": known.licence,
        "language": ["en"],
        "tags": sorted(modes),
        "size_items": len(store.items),
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _beside_paper(known: Corpus, store: Store | None) -> str:
    """Write the paper's counts, beside those of the store if there is one."""
    if not known.paper:
        return "**In the paper.** Not used." if known.name != "mini" else ""
    if store is None:
        listed = ", ".join(f"{key} {n:,}" for key, n in known.paper.items())
        unseen = f"; unseen here: {', '.join(known.held_out)}" if known.held_out else ""
        return f"**In the paper.** {listed}{unseen}."
    ours = counts(store)
    rows = [
        [key, f"{known.paper[key]:,}", f"{ours[key]:,}"] for key in COUNTS if key in known.paper
    ]
    return "## Beside the paper\n\n" + _table(["", "paper", "prepared"], rows)


def _contents(store: Store) -> list[str]:
    items = store.items
    rows = []
    for kind, mode in MODALITIES.items():
        for gender, word in GENDER_WORDS.items():
            group = [item for item in items if (item.kind, item.gender) == (kind, gender)]
            if group:
                splits = Counter(item.split for item in group)
                speakers = len({item.speaker for item in group if item.speaker})
                rows.append([f"{mode}, {word}", speakers, *(splits[name] for name in SPLITS)])
    seconds = np.array([item.sample_count for item in items if item.sample_count]) / MEL.sample_rate
    rejects = Counter(reason for _, reason, _ in read_quarantine(store))
    spoken = sum(bool(item.transcript) for item in items)
    facts = [f"- faces: {sum(item.face_count for item in items):,}"]
    if len(seconds):
        facts += [
            f"- speech: {seconds.sum() / 3600:.2f} hours in {len(seconds):,} clips, median "
            f"{np.median(seconds):.2f} s; {spoken:,} with a transcript"
        ]
    facts += [
        f"- speakers without a gender: {len({i.speaker for i in items if not i.gender} - {''})}; "
        f"items of unknown speakers: {sum(not item.speaker for item in items):,}",
        f"- seed of the splits: {store.seed}; manifest {store.manifest_hash}",
    ]
    listed = [[reason, count] for reason, count in rejects.most_common()]
    return [
        "## Prepared",
        _table(["items", "speakers", *SPLITS], rows),
        "\n".join(facts),
        "## Left out",
        _table(["reason", "files"], listed) if listed else "Nothing.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [[str(cell) for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
