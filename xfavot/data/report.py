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
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.data.corpora import describe
from xfavot.data.readers import NOT_REJECTED, NOTED
from xfavot.data.store import QUARANTINE, SPLITS, Item, Store
from xfavot.errors import DataError, refusing
from xfavot.files import write_whole

CARD, PAGE = "CARD.md", "report.html"  # in a store's folder
SHEET_FACES, PREVIEW_FACES = 60, 24
PLAYERS = 6
PLAYER_SECONDS = 3.0
PITCH_CLIPS = 2000  # whose pitch is read for the page
LAST_PERCENTILE = 99.0  # the last bar holds what lies beyond
MODALITIES = {"av": "face and voice", "audio": "voice", "image": "face"}
WORDS = {"f": "female", "m": "male", "": "gender unknown"}


def _render(template: str, **values: object) -> str:
    import jinja2

    folder = jinja2.FileSystemLoader(Path(__file__).parent)
    escaped = jinja2.select_autoescape(["html"])
    how: dict[str, Any] = {"undefined": jinja2.StrictUndefined, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=folder, autoescape=escaped, **how)
    return environment.get_template(template).render(**values)


# What the page, the card and the summary say of a store; the templates choose the words


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
    items, listed = store.items, dict[str, list[dict[str, Any]]]()
    if (store.path / QUARANTINE).is_file():
        what, advice = f"{store.path / QUARANTINE} is damaged", "prepare the corpus anew"
        with (
            refusing((OSError, ValueError, KeyError, csv.Error), DataError, what, advice),
            (store.path / QUARANTINE).open(newline="", encoding="utf-8") as file,
        ):
            for row in csv.DictReader(file):  # older stores do not count files
                row_of = {**row, "files": int(row.get("files") or 1)}
                listed.setdefault(row["reason"], []).append(row_of)
    # faults before others, many before few
    listed = dict(sorted(listed.items(), key=lambda e: (e[0] in NOT_REJECTED, -len(e[1]))))
    seconds = [item.sample_count / MEL.sample_rate for item in items if item.sample_count]
    genders = [*{item.speaker: item.gender for item in items if item.speaker}.values()]
    return {
        "store": store,
        "splits": SPLITS,
        "kinds": _tally(items, lambda item: f"{MODALITIES[item.kind]}, {WORDS[item.gender]}"),
        "speakers": _tally(items, lambda item: item.speaker),
        "counts": {
            "speakers": len({item.speaker for item in items} - {""}),
            "unseen": len({item.speaker for item in items if item.split == "unseen"} - {""}),
            "images": sum(item.face_count for item in items),
            "val_female": sum((item.split, item.gender) == ("val", "f") for item in items),
            "val_male": sum((item.split, item.gender) == ("val", "m") for item in items),
        },
        "genders": {gender: genders.count(gender) for gender in WORDS},
        "seconds": seconds,
        "percentiles": np.percentile(seconds or [0.0], [5, 50, 95]).tolist(),
        "tags": sorted({mode for i in items for mode in MODALITIES[i.kind].split(" and ")}),
        "noted": NOTED,
        "files": {reason: sum(row["files"] for row in rows) for reason, rows in listed.items()},
        "rejects": {why: rows for why, rows in listed.items() if why not in NOT_REJECTED},
        "others": {why: rows for why, rows in listed.items() if why in NOT_REJECTED},
    }


def write_report(store: Store) -> None:
    """Write the report page and the card into the store's folder, from what lies there on disk.

    Raises:
        DataError: one cannot be written.
    """
    facts = _facts(store)
    charts = _histogram({"": facts["seconds"]}, "s"), _histogram(_pitch(store), "Hz")
    media = _media([store], SHEET_FACES, PLAYERS, headings=False)
    page = _render("report.html", media=media, charts=charts, **facts)
    advice = "the store itself is whole: free some space and run again for its report"
    with refusing(OSError, DataError, f"{store.path / PAGE} cannot be written", advice):
        write_whole(store.path / PAGE, page)
        write_whole(store.path / CARD, card(store.corpus, store))


def preview(stores: Sequence[Store]) -> str:
    """Return HTML that shows faces and voices of some stores, for a notebook.

    Args:
        stores: the stores of a mixture; together they show about `PLAYERS` voices.
    """
    return _media(stores, PREVIEW_FACES, max(1, PLAYERS // max(len(stores), 1)), headings=True)


def summary(stores: Sequence[Store]) -> str:
    """Say in plain lines what stores hold, beside the paper, and what was not used."""
    every = ((describe(store.corpus), _facts(store)) for store in stores)
    return "\n".join(_render("summary.md", page=PAGE, known=k, **facts) for k, facts in every)


def card(corpus: str, store: Store | None = None) -> str:
    """Write the card of a corpus in Markdown.

    Args:
        corpus: one of `READERS`.
        store: what was prepared of it; adds the header of the Hub and the counts.

    Raises:
        ConfigError: no such corpus.
    """
    facts = _facts(store) if store else {"store": None}
    return _render("card.md", known=describe(corpus), **facts)


# Charts, faces to look at, voices to listen to


def _pitch(store: Store) -> dict[str, list[float]]:
    """Return the median pitch, Hz, of some clips, by gender."""
    pitch: dict[str, list[float]] = {word: [] for word in WORDS.values()}
    for item in _spread(store.items, PITCH_CLIPS, "sample_count"):
        f0 = store.f0_hz(item)
        if (f0 > 0).any():
            pitch[WORDS[item.gender]].append(float(np.median(f0[f0 > 0])))
    return pitch


def _histogram(groups: Mapping[str, Sequence[float]], unit: str) -> str:
    """Draw how often values occur, the groups stacked, as SVG; nothing if there is no value."""
    import matplotlib
    from matplotlib.figure import Figure

    values = {name: np.asarray(group) for name, group in groups.items() if len(group)}
    if not values:
        return ""
    last = np.percentile(np.concatenate([*values.values()]), LAST_PERCENTILE, method="higher")
    figure = Figure(figsize=(5.2, 1.7), layout="constrained")
    axes = figure.subplots()
    shown = [group.clip(max=last) for group in values.values()]
    axes.hist(shown, bins=26, stacked=True, label=[*values])
    if any(values):
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel(unit)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": unit}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "<svg" + stream.getvalue().partition("<svg")[2]


def _media(stores: Sequence[Store], faces: int, voices: int, *, headings: bool) -> str:
    """Render some faces, and players of some voices beside a face, of each store."""
    parts = [
        {
            "heading": store.corpus if headings else "",
            "faces": [_picture(store.face(i)) for i in _spread(store.items, faces, "face_count")],
            "count": len(store.faces),
            "players": [
                (item, _picture(store.face(item)) if item.face_count else "", _sound(store, item))
                for item in _spread(store.items, voices, "sample_count")
            ],
        }
        for store in stores
    ]
    return _render("media.html", parts=parts)


def _spread(items: Sequence[Item], count: int, having: str) -> list[Item]:
    """Choose items evenly over the speakers.

    Args:
        items: all of a store.
        count: how many, at most.
        having: the number that must not be 0: "face_count" or "sample_count".
    """
    fit = sorted((i for i in items if getattr(i, having)), key=lambda item: item.speaker)
    chosen = min(count, len(fit))
    return [fit[int((i + 0.5) * len(fit) / chosen)] for i in range(chosen)]


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
