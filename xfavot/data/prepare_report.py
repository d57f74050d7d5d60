"""What a prepared store tells people: a report page, a summary, a preview for a notebook.

The page is one HTML file beside the store, for local use: counts by speaker and split, rejects with
reasons, durations, a contact sheet and a few players. It holds media of the corpus and must not be
published.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import wave
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.items import SPLITS, Item
from xfavot.data.manifest import Store
from xfavot.errors import DataError

SHEET_FACES = 60
SHEET_COLUMNS = 12
PLAYERS = 6
PLAYER_SECONDS = 5.0
LISTED_REJECTS = 500
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;"
    "color:#222}table{border-collapse:collapse;margin:1em 0}td,th{padding:.15em .8em;text-align:"
    "right;border-bottom:1px solid #ddd}td:first-child,th:first-child{text-align:left}"
    ".left td{text-align:left;overflow-wrap:anywhere}img{max-width:100%}figure{margin:1em 0}"
)


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
    rejects = read_quarantine(store)
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{len(store.items)} items accepted, {len(rejects)} files rejected. This page holds "
        "media of the corpus: keep it to yourself.</p>",
        _counts(store.items),
        _durations(store.items),
        _sheet(store, SHEET_FACES),
        _players(store, PLAYERS),
        _rejects(rejects),
        _speakers(store.items),
    ]
    part = path.with_suffix(".part")
    try:
        part.write_text("\n".join(text for text in parts if text) + "</html>\n", "utf-8")
        part.replace(path)
    except OSError as error:
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
        sheet, voices = _sheet(store, 2 * SHEET_COLUMNS), _players(store, share)
        parts.append(f"<h3>{html.escape(store.corpus)}</h3>{sheet}{voices}")
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
        rejects = read_quarantine(store)
        reasons = ", ".join(
            f"{count} {reason}" for reason, count in Counter(r[1] for r in rejects).most_common()
        )
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


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], style: str = "") -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table class="{style}"><tr>{cells}</tr>{body}</table>'


def _counts(items: Sequence[Item]) -> str:
    rows = []
    for kind in ("av", "audio", "image"):
        for gender, word in (("f", "female"), ("m", "male"), ("", "gender unknown")):
            group = [item for item in items if (item.kind, item.gender) == (kind, gender)]
            if group:
                counts = Counter(item.split for item in group)
                speakers = len({item.speaker for item in group if item.speaker})
                rows.append([f"{kind}, {word}", speakers, *(counts[name] for name in SPLITS)])
    return "<h2>Items</h2>" + _table(["", "speakers", *SPLITS], rows)


def _durations(items: Sequence[Item]) -> str:
    seconds = np.array([item.sample_count / MEL.sample_rate for item in items if item.sample_count])
    if not len(seconds):
        return ""
    low, middle, high = np.percentile(seconds, [5, 50, 95])
    row = [len(seconds), f"{seconds.sum() / 3600:.2f}", *(f"{s:.2f}" for s in (low, middle, high))]
    head = ["voices", "hours", "5 % below, s", "median, s", "95 % below, s"]
    return "<h2>Durations</h2>" + _table(head, [row])


def _spread(items: Sequence[Item], count: int, *, faces: bool) -> list[int]:
    """Choose rows evenly over those that have a face (or a voice), speakers in turn."""
    rows = [i for i, item in enumerate(items) if (item.face_count if faces else item.sample_count)]
    turn: Counter[str] = Counter()
    order = []
    for row in rows:
        order.append((turn[items[row].speaker], row))
        turn[items[row].speaker] += 1
    ranked = [row for _, row in sorted(order)]
    if len(turn) == 1 and len(ranked) > count:
        ranked = [ranked[int((i + 0.5) * len(ranked) / count)] for i in range(count)]
    return ranked[:count]


def _sheet(store: Store, count: int) -> str:
    rows = _spread(store.items, count, faces=True)
    if not rows:
        return ""
    from PIL import Image

    stream = io.BytesIO()
    faces = [store.face(store.items[row]) for row in rows]
    Image.fromarray(contact_sheet(faces)).save(stream, "JPEG", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f"<figure><img alt='contact sheet' src='data:image/jpeg;base64,{data}'><figcaption>"
        f"{len(faces)} of {len(store.faces)} faces, speakers in turn</figcaption></figure>"
    )


def contact_sheet(faces: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay faces of one size out in rows of `SHEET_COLUMNS`.

    Args:
        faces: each (H, W, 3) uint8.

    Returns:
        (rows H, columns W, 3) uint8, white where there is none.
    """
    height, width = faces[0].shape[:2]
    columns = min(SHEET_COLUMNS, len(faces))
    rows = -(-len(faces) // columns)
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, face in enumerate(faces):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = face
    return sheet


def _players(store: Store, count: int) -> str:
    parts = []
    for row in _spread(store.items, count, faces=False):
        item = store.items[row]
        length = min(item.sample_count, int(PLAYER_SECONDS * MEL.sample_rate))
        samples = store.audio[item.sample_start : item.sample_start + length]
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(MEL.sample_rate)
            file.writeframes(np.ascontiguousarray(samples, "<i2").tobytes())
        data = base64.b64encode(stream.getvalue()).decode()
        text = html.escape(f"{item.id} {item.transcript}")
        parts.append(
            f"<p>{text}<br><audio controls src='data:audio/wav;base64,{data}'></audio></p>"
        )
    return "".join(parts)


def _rejects(rejects: Sequence[tuple[str, str, str]]) -> str:
    if not rejects:
        return "<h2>Rejected</h2><p>Nothing.</p>"
    counts = Counter(reason for _, reason, _ in rejects)
    more = len(rejects) - LISTED_REJECTS
    return (
        "<h2>Rejected</h2>"
        + _table(["reason", "count"], counts.most_common())
        + _table(["source", "reason", "detail"], rejects[:LISTED_REJECTS], "left")
        + (f"<p>{more} more in quarantine.csv.</p>" if more > 0 else "")
    )


def _speakers(items: Sequence[Item]) -> str:
    names = sorted({item.speaker for item in items})
    counts = Counter((item.speaker, item.split) for item in items)
    genders = {item.speaker: item.gender for item in items}
    seconds: Counter[str] = Counter()
    for item in items:
        seconds[item.speaker] += item.sample_count
    rows = [
        [
            name or "(unknown)",
            genders[name] if name else "",
            *(counts[name, split] for split in SPLITS),
            f"{seconds[name] / MEL.sample_rate / 60:.1f}",
        ]
        for name in names
    ]
    return "<h2>Speakers</h2>" + _table(["speaker", "gender", *SPLITS, "minutes"], rows)
