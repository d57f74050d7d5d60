"""The cast of the corpus `mini` on one page: every person in several pictures, beside the voice.

Pictures are chosen by what is known of them (pose, mouth, light), so that a card shows how one
person changes. The hidden factors that drive face and voice together stand below as small bars.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from xfavot import __version__
from xfavot.convert import Panel
from xfavot.data.store import Item, Store
from xfavot.errors import DataError
from xfavot.viz.drawing import FAINT, INK, PALETTE, RULE, Drawing, levels_of, show_panel, styled

FACTORS = ("age", "size", "liveliness")
PORTRAIT, SMALL, GAP, MARGIN = 1.27, 0.4067, 0.025, 0.12  # inches
VOICE, TEXT = 0.38, 0.50  # inches: heights below the pictures
BETWEEN = 0.17  # inches between cards
COLOURS = 256  # of the file: a page for the web, not data
YOUNGEST, YEARS = 20, 55  # years at age 0, and from there to age 1


@dataclass(frozen=True, slots=True)
class Card:
    """One person: pictures by what they show, and one spoken clip."""

    speaker: str
    hidden: Mapping[str, Any]
    pictures: Mapping[str, int]  # row in the store's faces
    clip: Item


class Board:
    """A figure whose fields are placed in inches from the top left."""

    def __init__(self, width: float, height: float) -> None:
        """Make the empty figure."""
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        """Add a field whose top left corner is (x, y)."""
        left, bottom = x / self.width, 1.0 - (y + height) / self.height
        axes = self.figure.add_axes((left, bottom, width / self.width, height / self.height))
        axes.axis("off")
        return axes

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write at (x, y)."""
        self.figure.text(x / self.width, 1.0 - y / self.height, text, **style)


class Sheet(Drawing):
    """A drawing whose PNG has 256 colours, which is a quarter of the size."""

    record: Mapping[str, Any]

    def render(self, kind: str = "png") -> bytes:
        """Return the figure as the bytes of a "png" or a "pdf" file."""
        data = super().render(kind)
        if kind != "png":
            return data
        buffer = io.BytesIO()
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        palette = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)
        dithered = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        dithered.save(buffer, format="png", optimize=True)
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Sheet:
        """Write the figure and, beside it, `<name>.json` that says what is on it."""
        super().save(path)
        target = Path(path).with_suffix(".json")
        part = target.with_name(f".{target.name}.part")
        part.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        os.replace(part, target)
        return self


@styled
def people_sheet(store: Store, *, columns: int = 4, most: int = 16) -> Sheet:
    """Draw every person of a prepared store of `mini`.

    Args:
        store: prepared, with its `factors.json`.
        columns: cards a row.
        most: people shown at most, the first of the corpus.

    Returns:
        The sheet; ``save("figures/mini/contact_sheet.png")`` also writes its JSON.

    Raises:
        DataError: the store does not know the hidden factors of its people.
    """
    cards = _cards(store)[:most]
    columns = min(columns, len(cards))
    wide = PORTRAIT + GAP + SMALL
    high = PORTRAIT + GAP + VOICE + TEXT
    rows = math.ceil(len(cards) / columns)
    board = Board(
        2 * MARGIN + columns * (wide + BETWEEN) - BETWEEN,
        2 * MARGIN + rows * (high + BETWEEN) - BETWEEN,
    )
    panels = [
        Panel(label="", log_mel=store.log_mel(c.clip).numpy(), f0=store.f0_hz(c.clip))
        for c in cards
    ]
    levels = levels_of(panels)
    for index, (card, panel) in enumerate(zip(cards, panels, strict=True)):
        x = MARGIN + (index % columns) * (wide + BETWEEN)
        y = MARGIN + (index // columns) * (high + BETWEEN)
        places = [(x, y, PORTRAIT)]
        places += [(x + PORTRAIT + GAP, y + i * (SMALL + GAP), SMALL) for i in range(3)]
        for (left, top, side), row in zip(places, card.pictures.values(), strict=True):
            show_panel(board.axes(left, top, side, side), Panel(label="", face=store.faces[row]))
        show_panel(board.axes(x, y + PORTRAIT + GAP, wide, VOICE), panel, levels)
        _caption(board, card, x, y + PORTRAIT + GAP + VOICE, wide)
    sheet = Sheet(board.figure)
    sheet.record = _record(store, cards)
    return sheet


def _caption(board: Board, card: Card, x: float, y: float, wide: float) -> None:
    sex = "woman" if card.hidden["gender"] == "f" else "man"
    years = round(YOUNGEST + YEARS * float(card.hidden["age"]))
    name = card.speaker.split("/")[-1]
    board.text(x, y + 0.15, name, fontsize=7.5, weight="bold", color=INK)
    board.text(x + 0.28, y + 0.15, f"{sex}, {years}", fontsize=7.5, color=INK)
    said = f"“{card.clip.transcript}”"
    board.text(x, y + 0.28, said, fontsize=6.4, color=FAINT, style="italic")
    length = (wide - 0.2) / len(FACTORS)
    for number, factor in enumerate(FACTORS):
        left = x + number * (length + 0.1)
        board.text(left, y + 0.43, factor, fontsize=6.2, color=FAINT)
        axes = board.axes(left, y + 0.46, length, 0.045)
        axes.barh([0], [1.0], color=RULE, height=1.0)
        axes.barh([0], [float(card.hidden[factor])], color=PALETTE[number], height=1.0)
        axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))


def _cards(store: Store) -> list[Card]:
    file = store.path / "factors.json"
    known = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    people: dict[str, dict[str, Any]] = known.get("people", {})
    faces: list[dict[str, Any]] = known.get("faces", [])
    if not people or len(faces) != len(store.faces):
        raise DataError(
            f"{store.path}: factors.json tells of {len(people)} people and {len(faces)} of "
            f"{len(store.faces)} faces; expected a prepared store of `mini`; prepare it again"
        )
    cards = []
    for speaker, hidden in sorted(people.items()):
        clips = [item for item in store.items if item.speaker == speaker]
        owner = {c.face_start + i: c for c in clips for i in range(c.face_count)}
        pictures = _choose([(row, faces[row]) for row in owner])
        cards.append(Card(speaker, hidden, pictures, owner[pictures["portrait"]]))
    return cards


def _choose(pictures: Sequence[tuple[int, Mapping[str, Any]]]) -> dict[str, int]:
    """Four different pictures: a portrait, turned left, turned right, speaking in strong light."""
    left = [(row, face) for row, face in pictures if not face["blink"]]
    left = left if len(left) >= 4 else list(pictures)
    worth: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "portrait": lambda f: 1 - abs(f["yaw"]) - abs(f["pitch"]) - abs(f["gaze_x"]) + f["smile"],
        "turned left": lambda f: -f["yaw"] - 0.5 * abs(f["pitch"]),
        "turned right": lambda f: f["yaw"] - 0.5 * abs(f["pitch"]),
        "speaking": lambda f: 2 * f["mouth"] + abs(f["light"]) / 65 * f["light_strength"],
    }
    chosen: dict[str, int] = {}
    for name, score in worth.items():
        best = max(left, key=lambda pair: (score(pair[1]), -pair[0]))
        chosen[name] = best[0]
        left = [pair for pair in left if pair[0] != best[0]] or left
    return chosen


def _record(store: Store, cards: Sequence[Card]) -> dict[str, Any]:
    return {
        "schema": 1,
        "item": "mini/contact_sheet",
        "dataset": store.corpus,
        "data": store.manifest_hash,
        "seed": store.seed,
        "xfavot": __version__,
        "speakers": len(cards),
        "shown": {
            card.speaker: {
                "clip": card.clip.id,
                "pictures": dict(card.pictures),
                **{factor: card.hidden[factor] for factor in ("gender", *FACTORS)},
            }
            for card in cards
        },
        "colours": COLOURS,
        "command": "viz.mini_sheet.people_sheet(store).save('figures/mini/contact_sheet.png')",
    }
