"""Write `DATASETS.md` and `WEIGHTS.md`: cards of the corpora, and of weights that are not shipped.

python -m tools.cards
"""

from __future__ import annotations

from pathlib import Path

from xfavot.data.readers.layouts import READERS
from xfavot.data.report import card
from xfavot.weights.fetched import Weights, describe, names

HERE = Path(__file__).parent


def datasets() -> str:
    """Return the text of `DATASETS.md`: a card for each corpus."""
    introduction = (HERE / "datasets_introduction.md").read_text(encoding="utf-8")
    return "\n".join([introduction, *map(card, READERS)])


def weights() -> str:
    """Return the text of `WEIGHTS.md`: a table of all sets, then a card for each."""
    every = [describe(name) for name in names()]
    rows = [
        f"| [{known.name}](#{known.name.replace('.', '')}) | {known.size_words} | "
        f"{known.check_words} | {known.licence} |"
        for known in every
    ]
    table = ["| name | size | checked against | licence |", "| --- | --- | --- | --- |", *rows]
    introduction = (HERE / "weights_introduction.md").read_text(encoding="utf-8")
    return "\n".join([introduction, *table, "", *map(_card, every)])


def _card(known: Weights) -> str:
    size = f"{known.bytes:,} bytes" if known.bytes else known.size_words
    checksum = known.checksum or "no checksum is published"
    if known.check_words.startswith("first "):
        checksum += "... (as much as is published)"
    return f"""## {known.name}

**What it is.** {known.title}

**What for.** {known.purpose}

**Licence.** {known.licence}; see {known.terms}

**Comes** {known.source_words}

**File.** `{known.file}`, {size}; {checksum}
"""


if __name__ == "__main__":
    Path("DATASETS.md").write_text(datasets(), encoding="utf-8")
    Path("WEIGHTS.md").write_text(weights(), encoding="utf-8")
