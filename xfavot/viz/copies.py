"""What a vocoder does to recordings: losses of its training, measures, spectrograms, players.

Everything takes an empty list too, and says then that no vocoder was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot.audio.mel import MEL
from xfavot.evaluation.copy_synthesis import Copy
from xfavot.report.tidy import rounded
from xfavot.viz import figures
from xfavot.viz.drawing import FAINT, SPECTROGRAM, Board, Drawing, styled
from xfavot.viz.widgets import MOST_PLAYERS, Html, players

TRANSFORM, WINDOW, STEP = 1024, 720, 120  # samples: fine enough in time to show the pulses
LEVELS_DB = (-75.0, 10.0)  # of a bin, drawn as black and as white
SHOWN_SECONDS = 1.2
SIZE = (2.9, 1.5)  # inches of a spectrogram
GAP, LEFT, TOP = 0.12, 0.5, 0.55
UNITS = {
    "log_mel_db": "log mel (dB)",
    "voicing_error": "voicing error (share)",
    "gross_pitch_error": "gross pitch error (share)",
    "f0_cents": "F0 error (cents)",
    "speaker_similarity": "speaker similarity",
}
NOTHING = "no vocoder was trained in this run"


def losses(records: Sequence[Mapping[str, float]]) -> Drawing | Html:
    """Draw the records of a vocoder's training over the steps."""
    return figures.curves(records, columns=3) if records else _nothing()


def table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Lay measures of copy synthesis out: one line a corpus and vocoder.

    Args:
        rows: tidy, what :func:`xfavot.evaluation.copy_synthesis.measure` returned.
    """
    if not rows:
        return _nothing()
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["dataset"], row["system"])
        start = {"corpus": key[0], "split": row["task"].rpartition(" ")[2], "vocoder": key[1]}
        line = lines.setdefault(key, {**start, "clips": row["n"]})
        line[row["metric"]] = row["value"]
    heads = ["corpus", "split", "vocoder", "clips", *(m for m in UNITS if any(m in x for x in
             lines.values()))]  # fmt: skip
    cells = [[rounded(lines[key].get(head)) for head in heads] for key in sorted(lines)]
    above = "".join(f"<th>{escape(UNITS.get(head, head))}</th>" for head in heads)
    left = " style='text-align:left'"
    below = (
        "".join(f"<td{left * (i < 3)}>{escape(cell)}</td>" for i, cell in enumerate(line))
        for line in cells
    )
    body = "".join(f"<tr>{line}</tr>" for line in below)
    text = "\n".join(", ".join(line) for line in (heads, *cells))
    return Html(f"<table><tr>{above}</tr>{body}</table>", log=text)


def spectrograms(made: Sequence[Copy], *, rows: int = 4) -> Drawing | Html:
    """Draw recordings beside their copies, 1.2 s of each, up to 12 kHz.

    Args:
        made: what :func:`xfavot.evaluation.copy_synthesis.copies` returned.
        rows: clips, spread evenly over the corpora.
    """
    return _sheet(_spread(made, rows)) if made else _nothing()


def sounds(made: Sequence[Copy]) -> Html:
    """Show players of recordings and copies, at their own level, six in all."""
    if not made:
        return _nothing()
    chosen = _spread(made, max(1, MOST_PLAYERS // len(made[0].sounds)))
    heard = [(f"{copy.label}: {name}", wave) for copy in chosen for name, wave in
             copy.sounds.items()]  # fmt: skip
    return players([wave for _, wave in heard], [label for label, _ in heard])


def _nothing() -> Html:
    return Html(f"<p>{NOTHING}</p>", log=NOTHING)


def _spread(made: Sequence[Copy], count: int) -> list[Copy]:
    """Take copies from every corpus in turn, women and men in turn."""
    queues: dict[str, list[Copy]] = {}
    for copy in made:
        queues.setdefault(copy.clip.item.corpus, []).append(copy)
    turns = [queue[i] for i in range(len(made)) for queue in queues.values() if i < len(queue)]
    return turns[:count]


@styled
def _sheet(chosen: Sequence[Copy]) -> Drawing:
    names = list(chosen[0].sounds)
    width, height = SIZE
    board = Board(LEFT + len(names) * (width + GAP), TOP + len(chosen) * (height + 2.5 * GAP) + GAP)
    for row, copy in enumerate(chosen):
        y = TOP + row * (height + 2.5 * GAP)
        board.text(LEFT, y - 0.06, copy.label, fontsize=7, color=FAINT)
        start = _loudest(copy.sounds[names[0]])
        for column, name in enumerate(names):
            axes = board.axes(LEFT + column * (width + GAP), y, width, height)
            part = copy.sounds[name][start : start + round(SHOWN_SECONDS * MEL.sample_rate)]
            seconds = len(part) / MEL.sample_rate
            axes.imshow(
                _decibels(part), origin="lower", aspect="auto", cmap=SPECTROGRAM,
                vmin=LEVELS_DB[0], vmax=LEVELS_DB[1],
                extent=(0, seconds, 0, MEL.sample_rate / 2000), interpolation="nearest",
            )  # fmt: skip
            if column == 0:
                axes.set(yticks=[0, 4, 8, 12], ylabel="kHz")
            if row == 0:
                axes.set_title(name, pad=16, fontsize=8.5)
            if row == len(chosen) - 1:
                axes.set_xticks([0.0, 0.4, 0.8])
                axes.set_xlabel("time (s)")
    return Drawing(board.figure)


def _loudest(wave: NDArray[np.float32]) -> int:
    """Return where the part of 1.2 s with the most energy starts."""
    size = round(SHOWN_SECONDS * MEL.sample_rate)
    energy = np.concatenate([[0.0], np.cumsum(np.square(wave, dtype=np.float64))])
    return int((energy[size:] - energy[:-size]).argmax()) if len(wave) > size else 0


def _decibels(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F, T) magnitudes in dB; a sine of full scale has about 50."""
    window = torch.hann_window(WINDOW)
    x = torch.nn.functional.pad(torch.from_numpy(wave), (0, max(0, TRANSFORM - len(wave))))
    spectrum = torch.stft(x, TRANSFORM, STEP, WINDOW, window, return_complex=True).abs()
    return np.asarray((20 * (spectrum + 1e-6).log10()).numpy())
