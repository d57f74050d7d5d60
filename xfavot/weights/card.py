"""The sets of weights as people read them: the listing of a cache, and `WEIGHTS.md`."""

from __future__ import annotations

from os import PathLike

from xfavot.errors import WeightsError
from xfavot.fetch.remote import OFFLINE
from xfavot.weights.fetched import CACHE, CACHE_VARIABLE, COMMAND, here
from xfavot.weights.fetched import root as cache_root
from xfavot.weights.pinned import Weights, describe, names

_INTRO = f"""# Weights

What the vocoders and the metrics need beyond this repository. Nothing of it is part of the package
and nothing is fetched unasked.

    {COMMAND} --list             what there is, and what is here
    {COMMAND} nisqa alexnet      fetch some
    {COMMAND} all --cache DIR    fetch all, into another folder

They go into `{CACHE}`, or the folder that `--cache` or the variable
`{CACHE_VARIABLE}` names, one folder a set; a file put there by hand is checked and used as one that
was fetched. With `{OFFLINE}=1` no connection is made. Where no sha256 is published, the one
that first came is kept in `SHA256SUMS` beside the file, and every later use is checked against it.
Some of the licences forbid commercial use. This file is written by `make cards`.
"""


def listing(cache: str | PathLike[str] | None = None) -> str:
    """Write one line a set: whether it is here, its size, how it is checked, its licence.

    Args:
        cache: see `xfavot.weights.fetched.root`.

    Raises:
        WeightsError: the cache is a file.
    """
    folder = cache_root(cache)
    rows = [("name", "here", "size", "checked against", "licence")]
    wrong = []
    for known in map(describe, names()):
        try:
            found = here(known.name, folder)
            state = "no" if found is None else f"in {known.package}"
            state = "yes" if found and found.is_relative_to(folder) else state
        except WeightsError as error:
            state = "wrong"
            wrong.append(str(error))
        rows.append((known.name, state, known.size_words, _check(known), known.licence))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([f"weights in {folder}", *lines, *wrong])


def all_cards() -> str:
    """Write `WEIGHTS.md`: a table of all sets, then a card for each."""
    every = [describe(name) for name in names()]
    rows = [
        f"| [{known.name}](#{_anchor(known)}) | {known.size_words} | "
        f"{_check(known)} | {known.licence} |"
        for known in every
    ]
    table = ["| name | size | checked against | licence |", "| --- | --- | --- | --- |", *rows]
    return "\n".join([_INTRO, *table, "", *map(_card, every)])


def _anchor(known: Weights) -> str:
    """Return the anchor that Markdown viewers give the heading of a set."""
    return known.name.replace(".", "")


def _card(known: Weights) -> str:
    size = f"{known.bytes:,} bytes" if known.bytes else known.told or known.size_words
    parts = [
        f"## {known.name}",
        f"**What it is.** {known.title}",
        f"**What for.** {known.purpose}",
        f"**Licence.** {known.licence}; see {known.terms}",
        f"**Comes** {known.source_words}",
        f"**File.** `{known.file}`, {size}; "
        f"{known.checksum or known.begins or 'no checksum is published'}"
        f"{'... (as much as is published)' if known.begins else ''}",
    ]
    return "\n\n".join(parts) + "\n"


def _check(known: Weights) -> str:
    """Say what the file is held against."""
    if known.checksum:
        return "sha256"
    if known.begins:
        return f"first {len(known.begins.partition(':')[2])} digits of the sha256"
    return "its record, then the first that came" if known.record else "the first that came"
