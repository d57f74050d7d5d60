"""What a prepared store tells people: a report page, a dataset card, a summary, a preview.

The page is one HTML file beside the store, for local use: counts, durations and pitch, a contact
sheet and a few players, speakers, and whatever was not used with its reason. It holds media of the
corpus and must not be published. It stays below 2 MB however large the corpus is. The templates
lie beside this file.
"""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.corpora import counts, describe
from xfavot.data.readers import NOT_REJECTED, NOTED, READERS
from xfavot.data.store import QUARANTINE, SPLITS, Item, Store
from xfavot.errors import DataError
from xfavot.files import write_whole

CARD, PAGE = "CARD.md", "report.html"  # in a store's folder
SHEET_FACES, PREVIEW_FACES = 60, 24
SHEET_COLUMNS = 12
PLAYERS = 6
PLAYER_SECONDS = 3.0
PITCH_CLIPS = 2000  # whose pitch is read for the page
BINS = 26
LAST_PERCENTILE = 99.0  # the last bar holds what lies beyond
MODALITIES = {"av": "face and voice", "audio": "voice", "image": "face"}
WORDS = {"f": "female", "m": "male", "": "gender unknown"}
COLOURS = {"female": "#a8557f", "male": "#3f7397"}
_INTRO = """# Datasets

One card a corpus. Nothing of a corpus is part of this repository; `mini` is made by the package.
Preparing a corpus writes its card again, with the counts of what was found, into the store. This
file is written by `make cards`.
"""


@cache
def _templates() -> Any:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )


def _render(template: str, **values: object) -> str:
    return str(_templates().get_template(template).render(**values))


# What the page, the card and the summary say of a store; the templates choose the words


def read_quarantine(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Read what was not used or noted, by reason: faults before others, many before few.

    Returns:
        Rows of `source`, `reason`, `detail`, and `files`: how many files the row stands for.
    """
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if (store.path / QUARANTINE).is_file():
        with (store.path / QUARANTINE).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):  # older stores do not count files
                rows[row["reason"]].append({**row, "files": int(row.get("files") or 1)})
    return dict(sorted(rows.items(), key=lambda e: (e[0] in NOT_REJECTED, -len(e[1]))))


def _tally(items: Sequence[Item], key: Callable[[Item], str]) -> dict[str, dict[str, Any]]:
    """Count items by something: speakers, items of each split, minutes; the first one's gender."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return {
        name: {
            "speakers": len({item.speaker for item in group} - {""}),
            "gender": WORDS[group[0].gender],
            "splits": [sum(item.split == split for item in group) for split in SPLITS],
            "minutes": sum(item.sample_count for item in group) / MEL.sample_rate / 60,
        }
        for name, group in sorted(groups.items())
    }


def _facts(store: Store) -> dict[str, Any]:
    items, listed = store.items, read_quarantine(store)
    files = {reason: sum(row["files"] for row in rows) for reason, rows in listed.items()}
    genders = {item.speaker: item.gender for item in items if item.speaker}.values()
    seconds = [item.sample_count / MEL.sample_rate for item in items if item.sample_count]
    return {
        "store": store,
        "splits": SPLITS,
        "kinds": _tally(items, lambda item: f"{MODALITIES[item.kind]}, {WORDS[item.gender]}"),
        "speakers": _tally(items, lambda item: item.speaker),
        "counts": counts(store),
        "genders": Counter(genders),
        "nameless": sum(not item.speaker for item in items),
        "transcripts": sum(bool(item.transcript and item.sample_count) for item in items),
        "seconds": seconds,
        "hours": f"{sum(seconds) / 3600:.2f}",
        "percentiles": np.percentile(seconds or [0.0], [5, 50, 95]).tolist(),
        "tags": sorted({mode for i in items for mode in MODALITIES[i.kind].split(" and ")}),
        "rejects": {why: rows for why, rows in listed.items() if why not in NOT_REJECTED},
        "others": {why: rows for why, rows in listed.items() if why in NOT_REJECTED},
        "files": files,
        "unused": {why: count for why, count in files.items() if why != NOTED},
        "rejected": sum(count for why, count in files.items() if why not in NOT_REJECTED),
    }


def write_report(store: Store) -> Path:
    """Write the report page into the store's folder, from what lies there on disk.

    Raises:
        DataError: the page cannot be written.
    """
    facts = _facts(store)
    return _write(
        store.path / PAGE,
        _render(
            "report.html",
            **facts,
            media=_media([store], faces=SHEET_FACES, voices=PLAYERS),
            durations=histogram({"": facts["seconds"]}, unit="s"),
            pitch=histogram(_pitch(store), unit="Hz"),
        ),
    )


def preview(stores: Sequence[Store]) -> str:
    """Return HTML that shows faces and voices of some stores, for a notebook.

    Args:
        stores: the stores of a mixture; together they show at most `PLAYERS` voices.
    """
    share = max(1, PLAYERS // max(len(stores), 1))
    return _media(stores, faces=PREVIEW_FACES, voices=share, headings=True)


def summary(stores: Sequence[Store]) -> str:
    """Say in plain lines what the stores of a mixture hold and what was not used."""
    return "\n".join(_render("summary.md", page=PAGE, **_facts(store)) for store in stores)


def card(corpus: str, store: Store | None = None) -> str:
    """Write the card of a corpus in Markdown.

    Args:
        corpus: one of `READERS`.
        store: what was prepared of it; adds the header of the Hub and the counts.

    Raises:
        ConfigError: no such corpus.
    """
    facts = _facts(store) if store else {"store": None}
    return _render("card.md", known=describe(corpus), layout=READERS[corpus].layout, **facts)


def all_cards() -> str:
    """Join the cards of all corpora, as `DATASETS.md` holds them."""
    return "\n".join([_INTRO, *(card(corpus) for corpus in READERS)])


def write_card(store: Store) -> Path:
    """Write the card of a store into its folder.

    Raises:
        DataError: it cannot be written.
    """
    return _write(store.path / CARD, card(store.corpus, store))


def _write(path: Path, text: str) -> Path:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}); expected free space; the store itself is "
            f"whole: free some space and run again for {path.name}"
        ) from error
    return path


# Charts, faces to look at, voices to listen to


def _pitch(store: Store) -> dict[str, list[float]]:
    """Return the median pitch, Hz, of some clips, by gender."""
    voices = [item for item in store.items if item.sample_count]
    few = np.linspace(0, len(voices) - 1, min(PITCH_CLIPS, len(voices))).astype(int)
    pitch: dict[str, list[float]] = {word: [] for word in WORDS.values()}
    for item in (voices[i] for i in few):
        f0 = store.f0_hz(item)
        if (f0 > 0).any():
            pitch[WORDS[item.gender]].append(float(np.median(f0[f0 > 0])))
    return pitch


def histogram(groups: Mapping[str, Sequence[float]], *, unit: str) -> str:
    """Draw how often values occur, the groups stacked, as SVG.

    Args:
        groups: values by name, drawn from the floor up; `COLOURS` has the names.
        unit: of the values.

    Returns:
        The drawing, or nothing if there is no value. The last bar holds everything above the 99th
        percentile.
    """
    import matplotlib
    from matplotlib.figure import Figure

    values = {name: np.asarray(group) for name, group in groups.items() if len(group)}
    if not values:
        return ""
    last = np.percentile(np.concatenate([*values.values()]), LAST_PERCENTILE, method="higher")
    figure = Figure(figsize=(5.2, 1.7), layout="constrained")
    axes = figure.subplots()
    shown = [group.clip(max=last) for group in values.values()]
    colours = [COLOURS.get(name, "#6b7f86") for name in values]
    axes.hist(shown, bins=BINS, stacked=True, color=colours, label=[*values])
    if any(values):
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    axes.set_xlabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": unit}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "<svg" + stream.getvalue().partition("<svg")[2]


def _media(stores: Sequence[Store], *, faces: int, voices: int, headings: bool = False) -> str:
    """Render a contact sheet of some faces, and players of some voices beside a face, a store."""
    parts = []
    for store in stores:
        shown = [store.face(item) for item in _spread(store.items, faces, "face_count")]
        players = [
            {
                "id": item.id,
                "words": item.transcript,
                "face": _picture(store.face(item)) if item.face_count else "",
                "voice": _sound(store, item),
            }
            for item in _spread(store.items, voices, "sample_count")
        ]
        part = {
            "heading": store.corpus if headings else "",
            "sheet": _picture(contact_sheet(shown)) if shown else "",
            "shown": len(shown),
            "faces": len(store.faces),
            "players": players,
        }
        parts.append(part)
    return _render("media.html", parts=parts)


def contact_sheet(faces: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Lay faces of one size out in rows of `SHEET_COLUMNS`.

    Args:
        faces: each (H, W, 3) uint8.

    Returns:
        (rows H, columns W, 3) uint8, white where there is none.
    """
    columns = min(SHEET_COLUMNS, len(faces))
    white = [np.full_like(faces[0], 255)] * (-len(faces) % columns)
    cells = [*faces, *white]
    rows = [np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)]
    return np.vstack(rows)


def _spread(items: Sequence[Item], count: int, having: str) -> list[Item]:
    """Choose items evenly over the speakers (of one speaker, evenly over the items).

    Args:
        items: all of a store.
        count: how many, at most.
        having: the number that must not be 0: "face_count" or "sample_count".
    """
    turns: Counter[str] = Counter()
    ranked: list[tuple[int, int]] = []
    for row, item in enumerate(items):
        if getattr(item, having):
            ranked.append((turns[item.speaker], row))
            turns[item.speaker] += 1
    rows = [row for _, row in sorted(ranked)]
    if len(turns) > 1:
        rows = rows[: max(count, len(turns))]  # the first of each speaker before a second
    many = min(count, len(rows))
    return [items[rows[int((i + 0.5) * len(rows) / many)]] for i in range(many)]


def _picture(pixels: NDArray[np.uint8]) -> str:
    """Return a picture as the address of its own data."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _sound(store: Store, item: Item) -> str:
    """Return the first seconds of a voice as the address of its own data."""
    import soundfile

    length = min(item.sample_count, int(PLAYER_SECONDS * MEL.sample_rate))
    samples = np.asarray(store.audio[item.sample_start : item.sample_start + length])
    stream = io.BytesIO()
    soundfile.write(stream, samples, MEL.sample_rate, format="WAV", subtype="PCM_16")
    return f"data:audio/wav;base64,{base64.b64encode(stream.getvalue()).decode()}"
