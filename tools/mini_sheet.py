"""The cast of the corpus `mini` on one page: every person in several pictures, beside the voice.

Pictures are chosen by what is known of them (pose, mouth, light), so that a card shows how one
person changes. The hidden factors that drive face and voice together stand below as small bars.

    python -m tools.mini_sheet data/mini figures/mini/contact_sheet.png
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tools.mini_quality import known_factors
from xfavot import __version__
from xfavot.data.store import Item, Store
from xfavot.files import write_whole

FACTORS = {"age": "#0072B2", "size": "#D55E00", "liveliness": "#009E73"}
INK, FAINT, RULE = "#222222", "#6f6f6f", "#d9d9d9"
COLUMNS, MOST = 4, 16  # cards a row, people shown at most
PORTRAIT, SMALL, GAP, MARGIN = 1.27, 0.4067, 0.025, 0.12  # inches
VOICE, TEXT = 0.38, 0.50  # inches: heights below the pictures
BETWEEN = 0.17  # inches between cards
WIDE, HIGH = PORTRAIT + GAP + SMALL, PORTRAIT + GAP + VOICE + TEXT  # of a card
DPI = 160
COLOURS = 256  # of the file: a page for the web, not data
YOUNGEST, YEARS = 20, 55  # years at age 0, and from there to age 1


def people_sheet(store: Store, path: Path) -> dict[str, Any]:
    """Draw every person of a prepared store of `mini` into a PNG, and say beside it what is shown.

    Args:
        store: prepared, with its `factors.json`.
        path: of the picture; what is on it goes into a JSON of the same name.

    Returns:
        What the JSON holds.

    Raises:
        DataError: the store does not know the hidden factors of its people.
    """
    people, faces = known_factors(store)
    cast = sorted(people)[:MOST]
    columns = min(COLUMNS, len(cast))
    width = 2 * MARGIN + columns * (WIDE + BETWEEN) - BETWEEN
    height = 2 * MARGIN + -(-len(cast) // columns) * (HIGH + BETWEEN) - BETWEEN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    shown: dict[str, Any] = {}
    for index, speaker in enumerate(cast):
        owner = {
            item.face_start + i: item
            for item in store.items
            if item.speaker == speaker
            for i in range(item.face_count)
        }
        pictures = _choose([(row, faces[row]) for row in owner])
        clip, hidden = owner[pictures["portrait"]], people[speaker]
        x = MARGIN + (index % columns) * (WIDE + BETWEEN)
        y = MARGIN + (index // columns) * (HIGH + BETWEEN)
        _card(figure, (x, y), store, list(pictures.values()), clip, hidden)
        shown[speaker] = {"clip": clip.id, "pictures": pictures, "gender": hidden["gender"]}
        shown[speaker] |= {factor: hidden[factor] for factor in FACTORS}
    record = {
        "schema": 1,
        "item": "mini/contact_sheet",
        "dataset": store.corpus,
        "data": store.manifest_hash,
        "seed": store.seed,
        "xfavot": __version__,
        "speakers": len(cast),
        "shown": shown,
        "command": "python -m tools.mini_sheet",
    }
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    picture = Image.open(drawn).convert("RGB")
    palette = picture.quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE)
    dithered = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    dithered.save(small, "PNG", optimize=True)
    write_whole(path, small.getvalue())
    write_whole(path.with_suffix(".json"), json.dumps(record, indent=1) + "\n")
    return record


def _card(
    figure: Figure,
    corner: tuple[float, float],
    store: Store,
    rows: Sequence[int],
    clip: Item,
    hidden: Mapping[str, Any],
) -> None:
    """Draw one person, `corner` inches right of and below the figure's upper left corner."""
    width, height = figure.get_size_inches()

    def axes(x: float, y: float, wide: float, high: float) -> Any:
        left, top = corner[0] + x, corner[1] + y
        place = (left / width, 1 - (top + high) / height, wide / width, high / height)
        made = figure.add_axes(place)
        made.set_axis_off()
        return made

    def text(x: float, y: float, words: str, size: float, **look: Any) -> None:
        place = ((corner[0] + x) / width, 1 - (corner[1] + PORTRAIT + GAP + VOICE + y) / height)
        figure.text(*place, words, fontsize=size, **look)

    axes(0, 0, PORTRAIT, PORTRAIT).imshow(store.faces[rows[0]])
    for number, row in enumerate(rows[1:]):
        axes(PORTRAIT + GAP, number * (SMALL + GAP), SMALL, SMALL).imshow(store.faces[row])
    voice = axes(0, PORTRAIT + GAP, WIDE, VOICE)
    voice.imshow(store.log_mel(clip).numpy(), origin="lower", aspect="auto", cmap="magma")
    f0 = store.f0_hz(clip)
    pitch = voice.twinx()
    pitch.plot(np.where(f0 > 0, f0, np.nan), color="#7DF9FF", linewidth=0.8)
    pitch.set(yscale="log", ylim=(60, 500))
    pitch.set_axis_off()
    sex = "woman" if hidden["gender"] == "f" else "man"
    text(0, 0.15, clip.speaker.split("/")[-1], 7.5, weight="bold", color=INK)
    text(0.28, 0.15, f"{sex}, {round(YOUNGEST + YEARS * hidden['age'])}", 7.5, color=INK)
    text(0, 0.28, f"“{clip.transcript}”", 6.4, color=FAINT, style="italic")
    length = (WIDE - 0.2) / len(FACTORS)
    for number, (factor, colour) in enumerate(FACTORS.items()):
        left = number * (length + 0.1)
        text(left, 0.43, factor, 6.2, color=FAINT)
        bar = axes(left, PORTRAIT + GAP + VOICE + 0.46, length, 0.045)
        bar.barh([0, 0], [1.0, hidden[factor]], color=[RULE, colour], height=1.0)
        bar.set(xlim=(0, 1), ylim=(-0.5, 0.5))


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


if __name__ == "__main__":
    people_sheet(Store.open(Path(sys.argv[1])), Path(sys.argv[2]))
