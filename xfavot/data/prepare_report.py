"""What a prepared store tells people: a report page, a summary, a preview for a notebook.

The page is one HTML file beside the store, for local use: counts, durations and pitch, a contact
sheet and a few players, speakers, rejects with reasons. It holds media of the corpus and must not
be published. It stays below 2 MB however large the corpus is.
"""

from __future__ import annotations

import csv
import html
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xfavot.audio.mel import MEL
from xfavot.data.items import SPLITS, Item
from xfavot.data.manifest import Store
from xfavot.data.prepare_charts import STYLE, bars, folded, histogram, table, tiles
from xfavot.data.prepare_gallery import players, sheet
from xfavot.data.readers import NOT_NEEDED
from xfavot.errors import DataError

SHEET_FACES, PREVIEW_FACES = 60, 24
PLAYERS = 6
LISTED_REJECTS = 20  # of one reason
LISTED_SPEAKERS = 1000
UNFOLDED_SPEAKERS = 20
LEAST_BARS = 3  # fewer need no chart
PITCH_CLIPS = 2000  # whose pitch is read for the page
KIND_WORDS = {"av": "face and voice", "audio": "voice", "image": "face"}
WORDS = {"f": "female", "m": "male", "": "gender unknown"}


def write_report(store: Store) -> Path:
    """Write the report page into the store's folder, from what lies there on disk.

    Args:
        store: the store.

    Returns:
        The page.

    Raises:
        DataError: the page cannot be written.
    """
    path = store.path / "report.html"
    title = html.escape(f"Prepared corpus {store.corpus}")
    items, listed = store.items, read_quarantine(store)
    rejects = [reject for reject in listed if reject[1] != NOT_NEEDED]
    left_out = [reject for reject in listed if reject[1] == NOT_NEEDED]
    hours = sum(item.sample_count for item in items) / MEL.sample_rate / 3600
    numbers = {
        "items": len(items),
        "speakers": len({item.speaker for item in items if item.speaker}),
        "faces": len(store.faces),
        "hours of speech": f"{hours:.2f}",
        "files rejected": len(rejects),
    }
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        '<meta name=viewport content="width=device-width">',
        f"<style>{STYLE}</style><h1>{title}</h1>",
        f"<p>{len(items):,} items accepted, {len(rejects):,} files rejected.</p>",
        "<p class=note>This page holds media of the corpus: keep it to yourself.</p>",
        tiles({name: number for name, number in numbers.items() if number != "0.00"}),
        _counts(items),
        _faces(store),
        _voices(store),
        _speakers(items),
        _rejects(rejects),
        _left_out(left_out),
        f"<p class=note>Manifest {store.manifest_hash}, seed {store.seed}.</p>",
    ]
    part = path.with_suffix(".part")
    try:
        part.write_text("\n".join(text for text in parts if text) + "</html>\n", "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error}); expected free space; the store itself is "
            "whole: free some space and run again for the page"
        ) from error
    return path


def preview(stores: Sequence[Store]) -> str:
    """Return HTML that shows faces and voices of some stores, for a notebook.

    Args:
        stores: the stores of a mixture; together they show at most `PLAYERS` voices.
    """
    share = max(1, PLAYERS // max(len(stores), 1))
    parts = []
    for store in stores:
        shown = sheet(store, PREVIEW_FACES) + players(store, share)
        parts.append(f"<h3>{html.escape(store.corpus)}</h3>{shown}")
    return "".join(parts)


def summary(stores: Sequence[Store]) -> str:
    """Say in plain lines what some stores hold and what was rejected, read from disk.

    Args:
        stores: the stores of a mixture.
    """
    lines = []
    for store in stores:
        items = store.items
        splits = Counter(item.split for item in items)
        speakers = {item.speaker: item.gender for item in items if item.speaker}
        genders = Counter(speakers.values())
        hours = sum(item.sample_count for item in items) / MEL.sample_rate / 3600
        rejects = [reason for _, reason, _ in read_quarantine(store) if reason != NOT_NEEDED]
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(rejects).most_common())
        lines += [
            f"{store.corpus}: {len(items)} accepted, {len(rejects)} rejected"
            + (f" ({reasons})" if reasons else ""),
            f"  items: {', '.join(f'{splits[name]} {name}' for name in SPLITS)}",
            f"  speakers: {genders['f']} women, {genders['m']} men, {genders['']} of unknown "
            f"gender; {sum(not item.speaker for item in items)} items of unknown speakers",
            f"  {sum(item.face_count for item in items)} faces, {hours:.2f} hours of speech",
            f"  report: {store.path / 'report.html'}",
        ]
    return "\n".join(lines)


def read_quarantine(store: Store) -> list[tuple[str, str, str]]:
    """Read source, reason and detail of every file that was rejected."""
    path = store.path / "quarantine.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return [(row["source"], row["reason"], row["detail"]) for row in csv.DictReader(stream)]


def _counts(items: Sequence[Item]) -> str:
    rows: list[list[object]] = []
    for kind, what in KIND_WORDS.items():
        for gender, word in WORDS.items():
            group = [item for item in items if (item.kind, item.gender) == (kind, gender)]
            if group:
                counts = Counter(item.split for item in group)
                speakers = len({item.speaker for item in group if item.speaker})
                rows.append([f"{what}, {word}", speakers, *(counts[name] for name in SPLITS)])
    return "<h2>Items</h2>" + table(["", "speakers", *SPLITS], rows)


def _voices(store: Store) -> str:
    """Durations, pitch and a few players."""
    voices = [item for item in store.items if item.sample_count]
    if not voices:
        return ""
    seconds = np.array([item.sample_count for item in voices]) / MEL.sample_rate
    low, middle, high = np.percentile(seconds, [5, 50, 95])
    few = [voices[i] for i in np.linspace(0, len(voices) - 1, PITCH_CLIPS).astype(int)]
    pitch: dict[str, list[float]] = defaultdict(list)
    for item in few if len(voices) > PITCH_CLIPS else voices:
        f0 = store.f0_hz(item)
        if (f0 > 0).any():
            pitch[WORDS[item.gender]].append(float(np.median(f0[f0 > 0])))
    said = f"median {middle:.2f} s, 5 % below {low:.2f} s, 5 % above {high:.2f} s"
    charts = [
        histogram({"": seconds}, title=f"Durations: {said}", unit="s"),
        histogram(pitch, title="Median pitch of a clip:", unit="Hz"),
    ]
    return (
        f"<h2>Voices</h2><div class=charts>{''.join(charts)}</div>"
        f"<div class=players>{players(store, PLAYERS)}</div>"
    )


def _faces(store: Store) -> str:
    return f"<h2>Faces</h2>{sheet(store, SHEET_FACES)}" if len(store.faces) else ""


def _speakers(items: Sequence[Item]) -> str:
    counts = Counter((item.speaker, item.split) for item in items)
    genders = {item.speaker: WORDS[item.gender] for item in items if item.speaker}
    samples: Counter[str] = Counter()
    for item in items:
        samples[item.speaker] += item.sample_count
    rows = [
        [
            name or "(unknown)",
            genders.get(name, ""),
            *(counts[name, split] for split in SPLITS),
            f"{samples[name] / MEL.sample_rate / 60:.1f}",
        ]
        for name in sorted(samples)
    ]
    listed = table(["speaker", "gender", *SPLITS, "minutes"], rows[:LISTED_SPEAKERS])
    if len(rows) > LISTED_SPEAKERS:
        listed += f"<p>{len(rows) - LISTED_SPEAKERS:,} more in manifest.csv.</p>"
    if len(rows) <= UNFOLDED_SPEAKERS:
        return f"<h2>Speakers</h2>{listed}"
    each: dict[str, list[int]] = defaultdict(list)
    for name, gender in genders.items():
        each[gender].append(sum(counts[name, split] for split in SPLITS))
    several = len({count for group in each.values() for count in group}) > LEAST_BARS
    chart = histogram(each, title="Clips of a speaker:", unit="clips") if several else ""
    return f"<h2>Speakers</h2>{chart}{folded(f'All {len(rows):,} speakers', listed)}"


def _rejects(rejects: Sequence[tuple[str, str, str]]) -> str:
    if not rejects:
        return "<h2>Rejected</h2><p>Nothing.</p>"
    classes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, reason, detail in rejects:
        classes[reason].append((source, detail))
    counts = Counter({reason: len(files) for reason, files in classes.items()}).most_common()
    parts = []
    for reason, count in counts:
        shown = table(["file", "why"], classes[reason][:LISTED_REJECTS], "left")
        if count > LISTED_REJECTS:
            shown += f"<p>{count - LISTED_REJECTS:,} more in quarantine.csv.</p>"
        few = len(rejects) <= LISTED_REJECTS
        parts.append(folded(f"{reason}: {count:,}", shown, unfolded=few))
    return f"<h2>Rejected</h2>{bars(counts)}{''.join(parts)}"


def _left_out(notes: Sequence[tuple[str, str, str]]) -> str:
    if not notes:
        return ""
    rows = [(source, detail) for source, _, detail in notes]
    return "<h2>Left out on purpose</h2>" + table(["folder", "what"], rows, "left")
