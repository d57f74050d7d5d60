"""Faces to look at and voices to listen to, a few of a store, for the report page and a preview."""

from __future__ import annotations

import base64
import html
import io
import wave
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.items import Item
from xfavot.data.manifest import Store

SHEET_COLUMNS = 12
PLAYER_SECONDS = 3.0


def sheet(store: Store, count: int) -> str:
    """Return a contact sheet of some faces of a store, or nothing if it has none.

    Args:
        store: the store.
        count: how many faces, at most.
    """
    rows = _spread(store.items, count, faces=True)
    if not rows:
        return ""
    faces = [store.face(store.items[row]) for row in rows]
    return (
        f"<figure>{_picture(contact_sheet(faces), 'contact sheet')}<figcaption>"
        f"{len(faces)} of {len(store.faces):,} faces, spread over the speakers"
        "</figcaption></figure>"
    )


def players(store: Store, count: int) -> str:
    """Return players of the first seconds of some voices, each beside a face of its clip.

    Args:
        store: the store.
        count: how many voices, at most.
    """
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
        face = _picture(store.face(item), "") if item.face_count else ""
        name, words = html.escape(item.id), html.escape(item.transcript)
        parts.append(
            f"<div>{face}<div><p><b>{name}</b> {words}</p><audio controls "
            f"src='data:audio/wav;base64,{data}'></audio></div></div>"
        )
    return "".join(parts)


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


def _spread(items: Sequence[Item], count: int, *, faces: bool) -> list[int]:
    """Choose rows evenly over the speakers (of one speaker, evenly over the rows).

    Args:
        items: all of a store.
        count: how many, at most.
        faces: only those that have a face; otherwise, a voice.
    """
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for row, item in enumerate(items):
        if item.face_count if faces else item.sample_count:
            ranked.append((turns[item.speaker], row))
            turns[item.speaker] += 1
    rows = [row for _, row in sorted(ranked)]
    if len(turns) > count:
        rows = rows[: len(turns)]  # the first of each speaker
    elif len(turns) > 1:
        rows = rows[:count]
    many = min(count, len(rows))
    return [rows[int((i + 0.5) * len(rows) / many)] for i in range(many)]


def _picture(pixels: NDArray[np.uint8], name: str) -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    data = base64.b64encode(stream.getvalue()).decode()
    return f"<img alt='{name}' src='data:image/jpeg;base64,{data}'>"
