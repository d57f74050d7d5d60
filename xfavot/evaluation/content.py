"""What a converted voice keeps of its source: the words and the melody. For information.

The two networks that read them are those that L_sc and L_f0 were trained with, so they are kind to
the model; whole utterances are converted, as people would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from xfavot.convert.windows import pad_frames
from xfavot.evaluation.rows import Row, row
from xfavot.models.content import SYMBOLS
from xfavot.training.checkpoint import LoadedModel
from xfavot.training.labels import decode, encode
from xfavot.training.measures import edit_distance

MOST_CLIPS = 16
REFERENCES = 4  # a clip
LEAST_VOICED = 10  # frames voiced in source and output


@dataclass(slots=True)
class Heard:
    """Sums over clips."""

    edits: int = 0
    source_edits: int = 0
    characters: int = 0
    source_characters: int = 0
    correlations: list[float] | None = None
    clips: int = 0


def kept(
    model: LoadedModel,
    task: str,
    guidance: str,
    clips: Sequence[Tensor],
    transcripts: Sequence[str],
    style: Tensor,
) -> list[Row]:
    """Measure character error and the correlation of pitch.

    Args:
        model: the checkpoint.
        task, guidance: names for the rows.
        clips: whole source clips (80, T), log10.
        transcripts: of the clips; those without one do not count for the words.
        style: (R, S) of the references; each clip meets some of them in turn.

    Returns:
        Rows without goals.
    """
    heard = Heard(correlations=[])
    chosen = range(0, len(clips), -(-len(clips) // MOST_CLIPS))
    for number, index in enumerate(chosen):
        at = (torch.arange(REFERENCES) * len(style) // REFERENCES + number) % len(style)
        _hear(model, clips[index].to(style.device), transcripts[index], style[at], heard)
    rows = []
    if heard.characters:
        rows.append(
            row(task, guidance, "character error", heard.edits / heard.characters, heard.clips)
        )
        error = heard.source_edits / heard.source_characters
        rows.append(row(task, guidance, "character error of the sources", error, len(chosen)))
    if heard.correlations:
        mean = sum(heard.correlations) / len(heard.correlations)
        rows.append(
            row(task, guidance, "correlation of log pitch", mean, len(heard.correlations),
                chance=0.0)
        )  # fmt: skip
    return rows


def _hear(model: LoadedModel, clip: Tensor, transcript: str, style: Tensor, heard: Heard) -> None:
    """Convert one clip after some styles (R, S) and add what is heard."""
    x = pad_frames(model.standardiser.standardise(clip))[None, None]  # (1, 1, 80, T)
    features = model.f0.features(x)
    count = len(style)
    outputs = model.nets.G_A(x.expand(count, -1, -1, -1), style, features.expand(count, -1, -1, -1))
    said = "".join(SYMBOLS[code] for code in encode(transcript))
    heard.clips += count
    if said:
        heard.source_edits += edit_distance(said, decode(model.content(x)[0].cpu()))
        heard.source_characters += len(said)
        for probabilities in model.content(outputs).cpu():
            heard.edits += edit_distance(said, decode(probabilities))
            heard.characters += len(said)
    source, made = model.f0(x), model.f0(outputs)
    for voicing, pitch in zip(made.voicing, made.pitch, strict=True):
        both = (voicing > 0) & (source.voicing[0] > 0)
        pair = torch.stack([pitch[both], source.pitch[0][both]]).log2()
        if int(both.sum()) >= LEAST_VOICED and bool((pair.std(1) > 0).all()):
            assert heard.correlations is not None
            heard.correlations.append(float(torch.corrcoef(pair)[0, 1]))
