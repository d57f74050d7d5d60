"""Copy synthesis: how much a vocoder changes a voice when nothing else does.

The mel-spectrogram of a recording goes through the vocoder, and what comes out is held against the
recording: its mel, its pitch by WORLD, its speaker by Resemblyzer's embedding. Converted speech
cannot sound better than that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.audio.f0 import world_f0
from xfavot.audio.mel import log_mel
from xfavot.audio.vocoder import Vocoder
from xfavot.data.store import GENDERS, Store
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation.voice_networks import SpeakerEncoder
from xfavot.training.speech import DB_PER_LOG10, Clip, clips_of, pitch_measures

UNSEEN_FIRST = ("unseen", "val", "train")  # the order in which a split is looked for
HEARD_DECADES = 3.0  # 60 dB: fainter values of a mel do not count
CENTS_AN_OCTAVE = 1200.0
SHORTEST_FRAMES = 33  # 0.4 s
LONGEST_FRAMES = 1200  # 15 s
ORIGINAL = "recording"

Wave = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """One clip and its copies.

    Args:
        clip: the clip with its store.
        sounds: (N,) at 24 kHz by name: the recording first, then each vocoder's.
    """

    clip: Clip
    sounds: dict[str, Wave]

    @property
    def label(self) -> str:
        """Corpus, speaker and gender."""
        item = self.clip.item
        return f"{item.corpus} {item.speaker.rpartition('/')[2]} ({item.gender or '?'})"


def copies(
    vocoders: Sequence[Vocoder], stores: Sequence[Store], *, clips: int = 6
) -> tuple[Copy, ...]:
    """Send some clips of every corpus through every vocoder.

    Args:
        vocoders: each under a name of its own.
        stores: prepared stores; those without speech do not count.
        clips: of a corpus at most; of speakers left out of training if there are any, else of
            sentences left out; women and men in turn, evenly spread, 0.4 to 15 s long.

    Raises:
        DataError: no store has such a clip.
    """
    if not vocoders:
        return ()
    chosen = [clip for store in stores for clip in _choose(store, clips)]
    if not chosen:
        raise DataError(
            f"copy synthesis: {len(stores)} stores without a clip of 0.4 to 15 s with F0; expected "
            "one at least; prepare a corpus with speech"
        )
    made = []
    for clip in chosen:
        wave, mel = clip.store.waveform(clip.item), clip.log_mel()
        sounds = {each.name: each(mel, length=len(wave)) for each in vocoders}
        made.append(Copy(clip, {ORIGINAL: wave, **sounds}))
    return tuple(made)


def _choose(store: Store, count: int) -> list[Clip]:
    """Clips of the first split that has any, women and men in turn."""
    for split in UNSEEN_FIRST:
        found = [
            clip
            for clip in clips_of([store], split, needs="f0")
            if SHORTEST_FRAMES <= clip.item.frame_count <= LONGEST_FRAMES
        ]
        groups = [[c for c in found if c.item.gender == gender] for gender in (*GENDERS, "")]
        each = -(-count // max(sum(map(bool, groups)), 1))
        spread = [group[:: max(1, len(group) // each)][:each] for group in groups]
        turns = [clip for clip in chain(*zip_longest(*spread)) if clip is not None]
        if turns:
            return turns[:count]
    return []


def measure(
    made: Iterable[Copy], *, on_log: Callable[[str], None] = lambda line: None, seed: int = 0
) -> list[dict[str, Any]]:
    """Hold copies against their recordings.

    Args:
        made: what :func:`copies` returned.
        on_log: receives what cannot be measured.
        seed: of the vocoders, for the rows.

    Returns:
        Tidy rows, per vocoder and corpus: `log_mel_db` (mean absolute distance of the mels within
        60 dB of the clip's loudest value), `voicing_error` (share of frames), `gross_pitch_error`
        (share of the frames voiced in both that are more than 20 % off), `f0_cents` (median
        absolute error of the frames voiced in both), `speaker_similarity` (cosine, mean); n counts
        clips. F0 is WORLD's of both sounds. What has no value (no frame voiced in both) is left
        out.
    """
    groups: dict[tuple[str, str, str], list[tuple[Copy, Wave]]] = {}
    for copy in made:
        for name, sound in list(copy.sounds.items())[1:]:
            key = (name, copy.clip.item.corpus, copy.clip.item.split)
            groups.setdefault(key, []).append((copy, sound))
    try:
        encoder = SpeakerEncoder() if groups else None
    except WeightsError as error:
        encoder = None
        on_log(f"speaker similarity is not available: {error}")
    rows = []
    for (system, corpus, split), members in groups.items():
        shared = {"system": system, "task": f"copy synthesis, {split}", "dataset": corpus}
        counted = {"ci_low": None, "ci_high": None, "n": len(members), "seed": seed}
        for metric, value in _values(members, encoder).items():
            rows.append({**shared, "metric": metric, "value": value, **counted})
    return rows


def _values(
    members: Sequence[tuple[Copy, Wave]], encoder: SpeakerEncoder | None
) -> dict[str, float]:
    tracks, distances, likeness = [], [], []
    for copy, sound in members:
        wave = copy.sounds[ORIGINAL]
        distances.append(mel_distance_db(torch.from_numpy(wave), torch.from_numpy(sound)))
        tracks.append((copy.clip.f0(), torch.from_numpy(world_f0(sound))))
        with suppress(DataError):  # no voice is left in one of them
            if encoder is not None:
                one, other = (encoder.embed(x) for x in (wave, sound))
                likeness.append(float(one @ other))
    values = {"log_mel_db": float(np.mean(distances)), **pitch_measures(tracks)}
    values.pop("f0_correlation", None)
    octaves = torch.cat([(hz / f0).log2().abs()[(f0 > 0) & (hz > 0)] for f0, hz in tracks])
    if len(octaves):
        values["f0_cents"] = CENTS_AN_OCTAVE * float(octaves.median())
    if likeness:
        values["speaker_similarity"] = float(np.mean(likeness))
    return values


def mel_distance_db(wave: Tensor, sound: Tensor) -> float:
    """Return the mean distance of two sounds' mels, (N,) each, where the first one's is heard."""
    wanted, got = log_mel(wave), log_mel(sound)
    heard = wanted > wanted.max() - HEARD_DECADES
    return DB_PER_LOG10 * float((got - wanted)[heard].abs().mean())
