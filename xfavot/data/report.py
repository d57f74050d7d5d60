"""What a prepared store tells people: a report page, a summary, a preview for a notebook.

The page is one HTML file beside the store, for local use: counts, durations and pitch, a contact
sheet and a few players, speakers, rejects with reasons. It holds media of the corpus and must not
be published. It stays below 2 MB however large the corpus is.
"""

from __future__ import annotations

import base64
import csv
import html
import io
import wave
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from xfavot.audio.mel import MEL
from xfavot.data.corpora import COUNTS, Corpus, counts, describe
from xfavot.data.readers import NOT_NEEDED, READERS
from xfavot.data.store import SPLITS, Item, Store
from xfavot.errors import DataError

# Look, tables and charts of the report page: HTML and inline SVG that need nothing else


WIDTH, HEIGHT = 520, 150  # units of the drawing, bars and labels
FLOOR = 128  # of the bars
BINS = 26
LAST_PERCENTILE = 99.0  # the last bar holds what lies beyond
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1.2em;"
    "color:#26313a;background:#fff}h1{font-size:1.7em;margin:0}h2{font-size:1.15em;margin:2.2em 0 "
    ".6em;border-bottom:2px solid #e3e9ec}p{margin:.3em 0}.note{color:#667}"
    "table{border-collapse:collapse;margin:.6em 0}td,th{padding:.2em .9em;text-align:right;"
    "border-bottom:1px solid #e3e9ec;font-variant-numeric:tabular-nums}th{font-weight:600;"
    "color:#556}td:first-child,th:first-child{text-align:left;padding-left:0}.left td{text-align:"
    "left;overflow-wrap:anywhere;font-size:.9em;vertical-align:top}.left th{text-align:left}"
    ".tiles{display:flex;flex-wrap:wrap;gap:.8em;margin:1.4em 0}.tiles div{background:#f1f5f7;"
    "border-radius:8px;padding:.6em 1.1em;color:#556;min-width:6em}.tiles b{display:block;"
    "font-size:1.5em;color:#26313a}.bars td:last-child{width:22em;text-align:left}.bars i{display:"
    "block;height:.8em;min-width:2px;background:#6b7f86;border-radius:2px}"
    ".charts,.players{display:flex;flex-wrap:wrap;gap:1em 2em}.chart{flex:1 1 26em;max-width:34em;"
    "margin:0}figcaption{font-size:.9em;color:#556}figcaption span{display:inline-block;width:.8em;"
    "height:.8em;border-radius:2px;margin:0 .3em 0 .8em}svg{width:100%}svg text{font-size:11px;"
    "fill:#667}svg line{stroke:#b9c4ca}img{max-width:100%;border-radius:4px}figure{margin:1em 0}"
    ".players>div{flex:1 1 20em;max-width:22em;display:flex;gap:.8em;align-items:center}"
    ".players img{width:72px}.players p{font-size:.85em;line-height:1.3;overflow-wrap:anywhere}"
    "audio{width:15em;height:32px}summary{cursor:pointer;padding:.25em 0}"
)
COLOURS = {"female": "#a8557f", "male": "#3f7397"}
PLAIN_COLOUR = "#6b7f86"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], style: str = "") -> str:
    """Return an HTML table, every cell escaped.

    Args:
        head: names of the columns.
        rows: cells; an `int` is written with commas.
        style: class of the table.
    """
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_plain(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table class="{style}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'


def tiles(numbers: Mapping[str, object]) -> str:
    """Return the large numbers at the head of the page, name under number."""
    parts = [
        f"<div><b>{html.escape(_plain(number))}</b>{html.escape(name)}</div>"
        for name, number in numbers.items()
    ]
    return f"<div class=tiles>{''.join(parts)}</div>"


def bars(counts: Sequence[tuple[str, int]]) -> str:
    """Return named bars, one under the other, as long as their counts."""
    most = max((count for _, count in counts), default=1)
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{count:,}</td>"
        f'<td><i style="width:{100 * count / most:.1f}%"></i></td></tr>'
        for name, count in counts
    )
    return f"<table class=bars>{rows}</table>"


def folded(summary: str, content: str, *, unfolded: bool = False) -> str:
    """Return content that opens at a click on its summary, which is escaped."""
    state = " open" if unfolded else ""
    return f"<details{state}><summary>{html.escape(summary)}</summary>{content}</details>"


def histogram(groups: Mapping[str, ArrayLike], *, title: str, unit: str = "") -> str:
    """Draw how often values occur, the groups stacked.

    Args:
        groups: values by name, drawn from the floor up; `COLOURS` has the names.
        title: what is counted, over the drawing.
        unit: of the values.

    Returns:
        A figure, or nothing if there is no value. The last bar holds everything above the 99th
        percentile.
    """
    values = {name: np.asarray(group, dtype=float) for name, group in groups.items()}
    together = np.concatenate([np.zeros(0), *values.values()])
    if not len(together):
        return ""
    whole = bool((together == together.round()).all())
    high = float(np.percentile(together, LAST_PERCENTILE, method="higher"))
    step = _round_step((high - together.min()) / BINS, whole=whole)
    first = int(np.floor(together.min() / step + 1e-9))
    edges = step * np.arange(first, int(np.floor(high / step)) + 2)
    values = {name: group.clip(max=high) for name, group in values.items()}
    counts = {name: np.histogram(group, edges)[0] for name, group in values.items()}
    total = np.sum(list(counts.values()), axis=0)
    bar = WIDTH / len(total)
    shapes, base = [], np.zeros(len(total))
    for name, part in counts.items():
        colour = COLOURS.get(name, PLAIN_COLOUR)
        for place, count in enumerate(part):
            if count:
                tall = (FLOOR - 16) * count / total.max()
                base[place] += tall
                span = f"{edges[place]:g} to {edges[place + 1]:g} {unit}".strip()
                shapes.append(
                    f'<rect x="{place * bar + 0.5:.1f}" y="{FLOOR - base[place]:.1f}" '
                    f'width="{bar - 1:.1f}" height="{tall:.1f}" fill="{colour}">'
                    f"<title>{html.escape(f'{span}: {count:,} {name}'.strip())}</title></rect>"
                )
    more = " and more" if together.max() >= edges[-1] else ""
    last = f"{edges[-2] if whole else edges[-1]:g}{more}"
    middle = len(total) // 2
    marks = [(0.0, "start", f"{edges[0]:g}"), (WIDTH, "end", last)]
    if middle:
        marks.append((middle * bar, "middle", f"{edges[middle]:g} {unit}"))
    ticks = "".join(
        f'<text x="{x:.0f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{html.escape(text)}</text>'
        for x, anchor, text in marks
    )
    ticks += f'<text x="0" y="10">{total.max():,}</text>'
    legend = "".join(
        f'<span style="background:{COLOURS.get(name, PLAIN_COLOUR)}"></span>{html.escape(name)} '
        for name in counts
        if name
    )
    return (
        f"<figure class=chart><figcaption>{html.escape(title)} {legend}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f'{"".join(shapes)}<line x1="0" x2="{WIDTH}" y1="{FLOOR}" y2="{FLOOR}"/>{ticks}</svg>'
        "</figure>"
    )


def _round_step(least: float, *, whole: bool) -> float:
    """Return 1, 2 or 5 times a power of ten, at least `least`; of whole numbers at least 1."""
    least = max(least, 1.0 if whole else 1e-3)
    power = 10.0 ** np.floor(np.log10(least))
    return float(next(k * power for k in (1, 2, 5, 10) if k * power >= least * (1 - 1e-9)))


def _plain(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


# Faces to look at and voices to listen to, a few of a store, for the report page and a preview


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


# Dataset cards: what a corpus is, under which terms, of whom, and what was prepared of it


CARD = "CARD.md"  # in a store's folder
MODALITIES = {"av": "face and voice", "audio": "voice", "image": "face"}
GENDER_WORDS = {"f": "female", "m": "male", "": "gender unknown"}
_INTRO = """# Datasets

One card a corpus. Nothing of a corpus is part of this repository; `mini` is made by the package.
Preparing a corpus writes its card again, with the counts of what was found, into the store. This
file is written by `make cards`.
"""


def card(corpus: str, store: Store | None = None) -> str:
    """Write the card of a corpus in Markdown.

    Args:
        corpus: one of `READERS`.
        store: what was prepared of it; adds the header of the Hub and the counts.

    Raises:
        ConfigError: no such corpus.
    """
    known = describe(corpus)
    parts = [
        f"# {known.title}" if store else f"## {known.title}",
        f"**Content.** {known.content}",
        f"**Licence.** {known.licence}",
        f"**How to get it.** {known.how}",
        f"**Layout read.** `{READERS[corpus].layout}`",
        f"**Consent.** {known.consent}",
        f"**Bias and limits.** {known.bias}",
        f"**Cite.** {known.citation}",
        _beside_paper(known, store),
    ]
    if store:
        parts = [_header(known, store), *parts, *_contents(store)]
    return "\n\n".join(part for part in parts if part) + "\n"


def all_cards() -> str:
    """Join the cards of all corpora, as `DATASETS.md` holds them."""
    return "\n".join([_INTRO, *(card(corpus) for corpus in READERS)])


def write_card(store: Store) -> Path:
    """Write the card of a store into its folder.

    Raises:
        DataError: it cannot be written.
    """
    path = store.path / CARD
    part = path.with_suffix(".part")
    try:
        part.write_text(card(store.corpus, store), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error}); expected free space; the store itself is whole: "
            "free some space and run again for the card"
        ) from error
    return path


def _header(known: Corpus, store: Store) -> str:
    modes = {mode for item in store.items for mode in MODALITIES[item.kind].split(" and ")}
    head = {
        "pretty_name": known.title,
        "license": "other",
        "license_name": known.licence,
        "language": ["en"],
        "tags": sorted(modes),
        "size_items": len(store.items),
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _beside_paper(known: Corpus, store: Store | None) -> str:
    """Write the paper's counts, beside those of the store if there is one."""
    if not known.paper:
        return "**In the paper.** Not used." if known.name != "mini" else ""
    if store is None:
        listed = ", ".join(f"{key} {n:,}" for key, n in known.paper.items())
        unseen = f"; unseen here: {', '.join(known.held_out)}" if known.held_out else ""
        return f"**In the paper.** {listed}{unseen}."
    ours = counts(store)
    rows = [
        [key, f"{known.paper[key]:,}", f"{ours[key]:,}"] for key in COUNTS if key in known.paper
    ]
    return "## Beside the paper\n\n" + _table(["", "paper", "prepared"], rows)


def _contents(store: Store) -> list[str]:
    items = store.items
    rows = []
    for kind, mode in MODALITIES.items():
        for gender, word in GENDER_WORDS.items():
            group = [item for item in items if (item.kind, item.gender) == (kind, gender)]
            if group:
                splits = Counter(item.split for item in group)
                speakers = len({item.speaker for item in group if item.speaker})
                rows.append([f"{mode}, {word}", speakers, *(splits[name] for name in SPLITS)])
    seconds = np.array([item.sample_count for item in items if item.sample_count]) / MEL.sample_rate
    rejects = Counter(reason for _, reason, _ in read_quarantine(store))
    spoken = sum(bool(item.transcript) for item in items)
    facts = [f"- faces: {sum(item.face_count for item in items):,}"]
    if len(seconds):
        facts += [
            f"- speech: {seconds.sum() / 3600:.2f} hours in {len(seconds):,} clips, median "
            f"{np.median(seconds):.2f} s; {spoken:,} with a transcript"
        ]
    facts += [
        f"- speakers without a gender: {len({i.speaker for i in items if not i.gender} - {''})}; "
        f"items of unknown speakers: {sum(not item.speaker for item in items):,}",
        f"- seed of the splits: {store.seed}; manifest {store.manifest_hash}",
    ]
    listed = [[reason, count] for reason, count in rejects.most_common()]
    return [
        "## Prepared",
        _table(["items", "speakers", *SPLITS], rows),
        "\n".join(facts),
        "## Left out",
        _table(["reason", "files"], listed) if listed else "Nothing.",
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [[str(cell) for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
