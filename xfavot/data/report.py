"""What a prepared store tells people: a report page, a dataset card, a summary, a preview.

The page is one HTML file beside the store, for local use: counts, durations and pitch, a contact
sheet and a few players, speakers, rejects with reasons. It holds media of the corpus and must not
be published. It stays below 2 MB however large the corpus is. The templates lie beside this file.
"""

from __future__ import annotations

import base64
import csv
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from xfavot.audio.mel import MEL
from xfavot.data.corpora import counts, describe
from xfavot.data.readers import NOT_REJECTED, READERS
from xfavot.data.store import SPLITS, Item, Store
from xfavot.errors import DataError
from xfavot.files import write_whole

CARD = "CARD.md"  # in a store's folder
SHEET_FACES, PREVIEW_FACES = 60, 24
SHEET_COLUMNS = 12
PLAYERS = 6
PLAYER_SECONDS = 3.0
LISTED_REJECTS = 20  # of one reason
LISTED_SPEAKERS = 1000
LEAST_BARS = 3  # fewer need no chart
PITCH_CLIPS = 2000  # whose pitch is read for the page
BINS = 26
LAST_PERCENTILE = 99.0  # the last bar holds what lies beyond
MODALITIES = {"av": "face and voice", "audio": "voice", "image": "face"}
WORDS = {"f": "female", "m": "male", "": "gender unknown"}
COLOURS = {"female": "#a8557f", "male": "#3f7397"}
PLAIN_COLOUR, RULE = "#6b7f86", "#b9c4ca"
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


def _write(path: Path, text: str) -> Path:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}); expected free space; the store itself is "
            f"whole: free some space and run again for {path.name}"
        ) from error
    return path


# The page


def write_report(store: Store) -> Path:
    """Write the report page into the store's folder, from what lies there on disk.

    Args:
        store: the store.

    Returns:
        The page.

    Raises:
        DataError: the page cannot be written.
    """
    items = store.items
    left_out: list[tuple[str, str]] = []
    rejects: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for source, reason, detail in read_quarantine(store):
        (left_out if reason in NOT_REJECTED else rejects[reason]).append((source, detail))
    rejected = sum(map(len, rejects.values()))
    speakers, clips = _speakers(items)
    several = len({count for group in clips.values() for count in group}) > LEAST_BARS
    seconds, pitch = _voices(store)
    tiles = {
        "items": len(items),
        "speakers": len({item.speaker for item in items if item.speaker}),
        "faces": len(store.faces),
        "hours of speech": f"{sum(seconds) / 3600:.2f}",
        "files rejected": rejected,
    }
    page = _render(
        "report.html",
        store=store,
        title=f"Prepared corpus {store.corpus}",
        tiles={name: f"{n:,}" if isinstance(n, int) else n for name, n in tiles.items()},
        splits=list(SPLITS),
        counts=_counts(items),
        media=_media([store], faces=SHEET_FACES, voices=PLAYERS),
        durations=histogram({"": seconds}, unit="s"),
        durations_text=_spoken(seconds),
        pitch=histogram(pitch, unit="Hz"),
        speakers=speakers,
        clips=histogram(clips if several else {}, unit="clips"),
        most_speakers=LISTED_SPEAKERS,
        rejects=dict(sorted(rejects.items(), key=lambda entry: -len(entry[1]))),
        rejected=rejected,
        most_rejects=LISTED_REJECTS,
        left_out=left_out,
    )
    return _write(store.path / "report.html", page)


def preview(stores: Sequence[Store]) -> str:
    """Return HTML that shows faces and voices of some stores, for a notebook.

    Args:
        stores: the stores of a mixture; together they show at most `PLAYERS` voices.
    """
    share = max(1, PLAYERS // max(len(stores), 1))
    return _media(stores, faces=PREVIEW_FACES, voices=share, headings=True)


def summary(stores: Sequence[Store]) -> str:
    """Say in plain lines what some stores hold and what was rejected, read from disk.

    Args:
        stores: the stores of a mixture.
    """
    lines = []
    for store in stores:
        items = store.items
        splits = Counter(item.split for item in items)
        genders = Counter({item.speaker: item.gender for item in items if item.speaker}.values())
        rejects = [reason for _, reason, _ in read_quarantine(store) if reason not in NOT_REJECTED]
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(rejects).most_common())
        hours = sum(item.sample_count for item in items) / MEL.sample_rate / 3600
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


def _counts(items: Sequence[Item]) -> list[list[object]]:
    """Count speakers and items by kind and gender: what, speakers, items of each split."""
    groups: dict[tuple[str, str], list[Item]] = {(k, g): [] for k in MODALITIES for g in WORDS}
    for item in items:
        groups[item.kind, item.gender].append(item)
    rows: list[list[object]] = []
    for (kind, gender), group in groups.items():
        splits = Counter(item.split for item in group)
        speakers = len({item.speaker for item in group} - {""})
        what = f"{MODALITIES[kind]}, {WORDS[gender]}"
        rows += [[what, speakers, *(splits[name] for name in SPLITS)]] if group else []
    return rows


def _speakers(items: Sequence[Item]) -> tuple[list[list[object]], dict[str, list[int]]]:
    """Return a row a speaker, and how many clips each has, by gender."""
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        groups[item.speaker].append(item)
    rows: list[list[object]] = []
    clips: dict[str, list[int]] = {word: [] for word in WORDS.values()}
    for name, group in sorted(groups.items()):
        splits = Counter(item.split for item in group)
        minutes = sum(item.sample_count for item in group) / MEL.sample_rate / 60
        gender = WORDS[group[0].gender] if name else ""
        each = (splits[split] for split in SPLITS)
        rows.append([name or "(unknown)", gender, *each, f"{minutes:.1f}"])
        if name:
            clips[gender].append(len(group))
    return rows, clips


def _voices(store: Store) -> tuple[list[float], dict[str, list[float]]]:
    """Return the seconds of every clip and the median pitch, Hz, of some, by gender."""
    voices = [item for item in store.items if item.sample_count]
    few = np.linspace(0, len(voices) - 1, min(PITCH_CLIPS, len(voices))).astype(int)
    pitch: dict[str, list[float]] = {word: [] for word in WORDS.values()}
    for item in (voices[i] for i in few):
        f0 = store.f0_hz(item)
        if (f0 > 0).any():
            pitch[WORDS[item.gender]].append(float(np.median(f0[f0 > 0])))
    return [item.sample_count / MEL.sample_rate for item in voices], pitch


def _spoken(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    low, middle, high = np.percentile(seconds, [5, 50, 95])
    return f"median {middle:.2f} s, 5 % below {low:.2f} s, 5 % above {high:.2f} s"


# Charts, faces to look at, voices to listen to


def histogram(groups: Mapping[str, ArrayLike], *, unit: str) -> str:
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
    from matplotlib.ticker import MaxNLocator

    values = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    values = {name: group for name, group in values.items() if len(group)}
    if not values:
        return ""
    edges = bins(np.concatenate([*values.values()]))
    figure = Figure(figsize=(5.2, 1.7), layout="constrained")
    axes = figure.subplots()
    axes.hist(
        [group.clip(max=edges[-1]) for group in values.values()],
        edges.tolist(),
        stacked=True,
        rwidth=0.92,
        color=[COLOURS.get(name, PLAIN_COLOUR) for name in values],
        label=list(values),
    )
    if any(values):
        axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1))
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(labelsize=8, color=RULE)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": unit}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", metadata=nothing)
    drawing = stream.getvalue()
    return drawing[drawing.index("<svg") :]


def bins(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of bins up to the 99th percentile; whole numbers have bins of their own."""
    low, high = values.min(), np.percentile(values, LAST_PERCENTILE, method="higher")
    if (values == values.round()).all():
        step = np.ceil((high - low + 1) / BINS)
        return np.arange(low, high + step + 0.5, step)
    return np.histogram_bin_edges(values.clip(max=high), BINS)


def _media(stores: Sequence[Store], *, faces: int, voices: int, headings: bool = False) -> str:
    """Render a contact sheet of some faces, and players of some voices beside a face, a store."""
    parts = []
    for store in stores:
        shown = [store.face(item) for item in _spread(store.items, faces, faces=True)]
        part = {
            "heading": store.corpus if headings else "",
            "sheet": _picture(contact_sheet(shown)) if shown else "",
            "shown": len(shown),
            "faces": len(store.faces),
            "players": [
                {
                    "id": item.id,
                    "words": item.transcript,
                    "face": _picture(store.face(item)) if item.face_count else "",
                    "voice": _sound(store, item),
                }
                for item in _spread(store.items, voices, faces=False)
            ],
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
    height, width, _ = faces[0].shape
    columns = min(SHEET_COLUMNS, len(faces))
    rows = -(-len(faces) // columns)
    cells = np.full((rows * columns, height, width, 3), 255, np.uint8)
    cells[: len(faces)] = faces
    grid = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, 3)


def _spread(items: Sequence[Item], count: int, *, faces: bool) -> list[Item]:
    """Choose items evenly over the speakers (of one speaker, evenly over the items).

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


# Dataset cards: what a corpus is, under which terms, of whom, and what was prepared of it


def card(corpus: str, store: Store | None = None) -> str:
    """Write the card of a corpus in Markdown.

    Args:
        corpus: one of `READERS`.
        store: what was prepared of it; adds the header of the Hub and the counts.

    Raises:
        ConfigError: no such corpus.
    """
    known = describe(corpus)
    prepared = _prepared(store) if store else {}
    return _render("card.md", known=known, layout=READERS[corpus].layout, store=store, **prepared)


def all_cards() -> str:
    """Join the cards of all corpora, as `DATASETS.md` holds them."""
    return "\n".join([_INTRO, *(card(corpus) for corpus in READERS)])


def write_card(store: Store) -> Path:
    """Write the card of a store into its folder.

    Raises:
        DataError: it cannot be written.
    """
    return _write(store.path / CARD, card(store.corpus, store))


def _prepared(store: Store) -> dict[str, object]:
    """Return what the card says of a store."""
    items, known = store.items, describe(store.corpus)
    seconds = [item.sample_count / MEL.sample_rate for item in items if item.sample_count]
    spoken = sum(bool(item.transcript) for item in items)
    head = {
        "pretty_name": known.title,
        "license": "other",
        "license_name": known.licence,
        "language": ["en"],
        "tags": sorted({mode for i in items for mode in MODALITIES[i.kind].split(" and ")}),
        "size_items": len(items),
    }
    hours = ""
    if seconds:
        hours = (
            f"{sum(seconds) / 3600:.2f} hours in {len(seconds):,} clips, median "
            f"{np.median(seconds):.2f} s; {spoken:,} with a transcript"
        )
    return {
        "header": yaml.safe_dump(head, sort_keys=False, allow_unicode=True),
        "ours": counts(store),
        "splits": SPLITS,
        "rows": _counts(items),
        "hours": hours,
        "unknown": len({item.speaker for item in items if not item.gender} - {""}),
        "nameless": f"{sum(not item.speaker for item in items):,}",
        "left_out": Counter(reason for _, reason, _ in read_quarantine(store)).most_common(),
    }
