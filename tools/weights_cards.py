"""Write `WEIGHTS.md`, the cards of the weights that the package does not ship.

python -m tools.weights_cards
"""

from __future__ import annotations

from pathlib import Path

from xfavot.weights.fetched import Weights, describe, names

INTRODUCTION = Path(__file__).with_name("weights_introduction.md")


def all_cards() -> str:
    """Return the text: a table of all sets, then a card for each."""
    every = [describe(name) for name in names()]
    rows = [
        f"| [{known.name}](#{known.name.replace('.', '')}) | {known.size_words} | "
        f"{known.check_words} | {known.licence} |"
        for known in every
    ]
    table = ["| name | size | checked against | licence |", "| --- | --- | --- | --- |", *rows]
    introduction = INTRODUCTION.read_text(encoding="utf-8")
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
    Path("WEIGHTS.md").write_text(all_cards(), encoding="utf-8")
