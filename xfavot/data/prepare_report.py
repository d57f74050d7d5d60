"""What preparing tells people: lines of progress with an estimate, and a report page.

The page is one HTML file beside the store, for local use: counts by speaker and split, rejects with
reasons, durations, a contact sheet and a few players. It holds media of the corpus and must not be
published.
"""

from __future__ import annotations

import base64
import html
import io
import time
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.items import SPLITS, Item
from xfavot.data.readers import Clip, Reject
from xfavot.data.stage import load_staged

LINE_SECONDS = 5.0  # between two lines of progress
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


class Progress:
    """Counts clips and writes a line now and then, with the rate and the time left."""

    def __init__(
        self,
        name: str,
        total: int,
        log: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock.

        Args:
            name: what is counted, the first word of a line.
            total: how many there are.
            log: receives the lines.
            clock: seconds.
        """
        self._name, self._total, self._log, self._clock = name, total, log, clock
        self._done = self._rejected = 0
        self._start = self._last = clock()

    def step(self, *, rejected: bool) -> None:
        """Count one clip."""
        self._done += 1
        self._rejected += rejected
        now = self._clock()
        if now - self._last >= LINE_SECONDS or self._done == self._total:
            self._last = now
            rate = self._done / max(now - self._start, 1e-6)
            left = (self._total - self._done) / rate
            self._log(
                f"{self._name}: {self._done} of {self._total} clips, {rate:.1f} a second, "
                f"{clock_text(left)} left, {self._rejected} rejected"
            )


def clock_text(seconds: float) -> str:
    """Write seconds as minutes and seconds, or hours too."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def report_page(
    corpus: str, items: Sequence[Item], clips: Sequence[Clip], rejects: Sequence[Reject], *,
    staging: Path,
) -> str:  # fmt: skip
    """Write the report of one corpus.

    Args:
        corpus: its name.
        items: rows of the store.
        clips: the same clips, in the same order.
        rejects: what could not be used.
        staging: folder of the staging files, from which pictures and sounds are taken.

    Returns:
        A whole HTML page.
    """
    title = html.escape(f"Prepared corpus {corpus}")
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>",
        f"<style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{len(items)} items accepted, {len(rejects)} rejected. This page holds media of the "
        "corpus: keep it to yourself.</p>",
        _counts(items),
        _durations(items),
        _sheet(items, clips, staging),
        _players(items, clips, staging),
        _rejects(rejects),
        _speakers(items),
    ]
    return "\n".join(part for part in parts if part) + "</html>\n"


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


def _sheet(items: Sequence[Item], clips: Sequence[Clip], staging: Path) -> str:
    faces = [
        load_staged(staging, clips[row])["faces"][0]
        for row in _spread(items, SHEET_FACES, faces=True)
    ]
    if not faces:
        return ""
    stream = io.BytesIO()
    _image(contact_sheet(faces)).save(stream, "JPEG", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    return (
        f"<h2>Faces</h2><figure><img alt='contact sheet' src='data:image/jpeg;base64,{data}'>"
        f"<figcaption>{len(faces)} of {sum(item.face_count for item in items)} faces, speakers in "
        "turn.</figcaption></figure>"
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


def _image(pixels: NDArray[np.uint8]):  # type: ignore[no-untyped-def]  # noqa: ANN202
    from PIL import Image

    return Image.fromarray(pixels)


def _players(items: Sequence[Item], clips: Sequence[Clip], staging: Path) -> str:
    parts = []
    for row in _spread(items, PLAYERS, faces=False):
        item = items[row]
        samples = load_staged(staging, clips[row])["audio"]
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(MEL.sample_rate)
            file.writeframes(samples[: int(PLAYER_SECONDS * MEL.sample_rate)].tobytes())
        data = base64.b64encode(stream.getvalue()).decode()
        text = html.escape(f"{item.id} {item.transcript}")
        parts.append(f"<p>{text}<br><audio controls src='data:audio/wav;base64,{data}'></audio>")
    return "<h2>Voices</h2>" + "".join(parts) if parts else ""


def _rejects(rejects: Sequence[Reject]) -> str:
    if not rejects:
        return "<h2>Rejected</h2><p>Nothing.</p>"
    counts = Counter(reject.reason for reject in rejects)
    rows = [[str(r.source), r.reason, r.detail] for r in rejects[:LISTED_REJECTS]]
    more = len(rejects) - len(rows)
    return (
        "<h2>Rejected</h2>"
        + _table(["reason", "count"], counts.most_common())
        + _table(["source", "reason", "detail"], rows, "left")
        + (f"<p>{more} more in quarantine.csv.</p>" if more else "")
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
