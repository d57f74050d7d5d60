"""Clips, labels and batches for training the F0 and the content network.

A batch is a pure function of (seed, step). F0 labels are the prepared store's (WORLD, one value a
mel frame, 0 = unvoiced); content labels are the transcripts as characters (A36, A37).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xfavot.audio.mel import MEL
from xfavot.models.content import BLANK, SYMBOLS
from xfavot.training.augment import Versions, another_recording

if TYPE_CHECKING:
    from xfavot.data.manifest import Item, Store

GAIN_DB = (-10.0, 6.0)  # random gain; a constant on the log10 magnitude mel
NOISE_LOG10 = (-3.0, -1.0)  # random noise floor against the loudest frame of the crop
NOISE_SHARE = 0.5  # of the samples get noise
TEMPO = (0.85, 1.15)  # random factor on the rate of speech
VOCAL_TRACT = (0.92, 1.08)  # random factor on the bands, as a longer or shorter vocal tract
FLOOR_LOG10 = -10.0  # log10 of the mel contract's floor
DB_PER_LOG10 = 20.0  # of a magnitude
F0_ROOMS, CONTENT_ROOMS = 0.1, 0.3  # share of the samples; few, for WORLD's tails are voiced
LONGEST_FRAMES = 1280  # 16 s; longer clips are not used for recognition

CURLY_APOSTROPHE = "\N{RIGHT SINGLE QUOTATION MARK}"
_INDEX = {symbol: index for index, symbol in enumerate(SYMBOLS)}


class Clip(NamedTuple):
    """One clip with speech, and the store that holds it."""

    store: Store
    item: Item

    def f0(self) -> Tensor:
        """Return the label (T,) Hz, 0 where unvoiced."""
        return torch.from_numpy(self.store.f0_hz(self.item))

    def log_mel(self) -> Tensor:
        """Return the log10 mel-spectrogram (80, T)."""
        return self.store.log_mel(self.item)


def clips_of(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """List the clips with speech of a split that carry a label, in the order of the stores.

    Args:
        stores: prepared stores.
        split: "train", "val" or "unseen".
        needs: "f0": F0 was estimated; "transcript": one that fits into half the frame rate.

    Returns:
        The clips; empty if there are none.
    """
    found = [
        Clip(store, item)
        for store in stores
        for item in store.items
        if item.split == split and item.frame_count > 0
    ]
    if needs == "f0":
        return [clip for clip in found if not np.isnan(clip.store.f0[clip.item.frame_start])]
    return [
        clip
        for clip in found
        if 0 < 2 * len(encode(clip.item.transcript)) < clip.item.frame_count <= LONGEST_FRAMES
    ]


def data_of(store: Store, clips: Sequence[Clip]) -> dict[str, Any]:
    """Say what of a store a network was trained on, and which speakers were left out.

    Args:
        store: one of those that the network was trained on.
        clips: those that it learnt from, of any store.

    Returns:
        manifest, clips, speakers, minutes, held_out.
    """
    used = [clip.item for clip in clips if clip.store is store]
    speakers = {item.speaker for item in used}
    others = {item.speaker for item in store.items if item.frame_count} - speakers
    seconds = sum(item.sample_count for item in used) / MEL.sample_rate
    return {
        "manifest": store.manifest_hash,
        "clips": len(used),
        "speakers": len(speakers),
        "minutes": round(seconds / 60, 1),
        "held_out": sorted(others),
    }


def generator_of(seed: int, step: int) -> torch.Generator:
    """Return the random source of one step; steps and seeds do not share streams."""
    words = np.random.SeedSequence((seed, step)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def _draw(clips: Sequence[Clip], count: int, generator: torch.Generator) -> list[Clip]:
    rows = torch.randint(len(clips), (count,), generator=generator)
    return [clips[row] for row in rows.tolist()]


def _uniform(bounds: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    low, high = bounds
    return (low + (high - low) * torch.rand(count, generator=generator)).view(-1, 1, 1)


def augment(log_mel: Tensor, generator: torch.Generator) -> Tensor:
    """Change the level of each sample, and add noise to some.

    A gain is exact on a log10 magnitude mel: it adds a constant above the floor. Noise adds in
    power with a random level and random tilt over the bands.

    Args:
        log_mel: (B, M, T) log10 mel-spectrograms, not standardised.
        generator: source of randomness.

    Returns:
        (B, M, T), new.
    """
    batch, bands, _ = log_mel.shape
    loudest = log_mel.mean(1, keepdim=True).amax(2, keepdim=True)  # (B, 1, 1)
    level = loudest + _uniform(NOISE_LOG10, batch, generator)
    tilt = torch.linspace(-0.5, 0.5, bands).view(1, -1, 1) * _uniform((-2, 2), batch, generator)
    noise = level + tilt + 0.25 * torch.randn(log_mel.shape, generator=generator)
    noisy = 0.5 * torch.logaddexp(2 * noise * np.log(10.0), 2 * log_mel * np.log(10.0))
    chosen = torch.rand(batch, 1, 1, generator=generator) < NOISE_SHARE
    log_mel = torch.where(chosen, noisy / np.log(10.0), log_mel)
    gain = _uniform(GAIN_DB, batch, generator) / DB_PER_LOG10
    return (log_mel + gain).clamp(min=FLOOR_LOG10)


def f0_batch(
    speech: Versions, *, batch_size: int, frames: int, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Draw augmented crops; a clip shorter than a crop is continued by its mirror image.

    Returns:
        Log10 mel (B, 80, frames) and F0 (B, frames) Hz, 0 where unvoiced.
    """
    generator = generator_of(seed, step)
    mels, labels = [], []
    for mel, f0 in speech.draw(batch_size, generator):
        count = len(f0)
        first = int(torch.randint(max(count - frames, 0) + 1, (), generator=generator))
        places = (first + torch.arange(frames)) % (2 * count)
        places = torch.minimum(places, 2 * count - 1 - places)
        mels.append(mel[:, places])
        labels.append(f0[places])
    heard = another_recording(torch.stack(mels), generator, rooms=F0_ROOMS)
    return augment(heard, generator), torch.stack(labels)


class ContentBatch(NamedTuple):
    """Whole clips padded to one length, and what is said in them."""

    log_mel: Tensor  # (B, 80, T), the last frame repeated as padding
    frames: Tensor  # (B,) mel frames of each clip
    targets: Tensor  # (sum of lengths,) indices into SYMBOLS
    lengths: Tensor  # (B,) characters of each clip


def _stretch(x: Tensor, places: Tensor) -> Tensor:
    """Read the last axis of x at fractional places, linearly interpolated and held at the ends."""
    places = places.clamp(0, x.shape[-1] - 1)
    low = places.long().clamp(max=max(x.shape[-1] - 2, 0))
    high = (low + 1).clamp(max=x.shape[-1] - 1)
    return torch.lerp(x[..., low], x[..., high], places - low)


def content_batch(clips: Sequence[Clip], *, batch_size: int, seed: int, step: int) -> ContentBatch:
    """Draw whole clips; vary rate of speech, vocal tract and recording at random."""
    generator = generator_of(seed, step)
    drawn = _draw(clips, batch_size, generator)
    tempi = _uniform(TEMPO, batch_size, generator).flatten().tolist()
    tracts = _uniform(VOCAL_TRACT, batch_size, generator).flatten().tolist()
    mels = []
    for clip, tempo, tract in zip(drawn, tempi, tracts, strict=True):
        mel = clip.log_mel()
        mel = _stretch(mel, torch.arange(int(mel.shape[1] / tempo)) * tempo)
        mels.append(_stretch(mel.T, torch.arange(mel.shape[0]) * tract).T)
    frames = torch.tensor([mel.shape[1] for mel in mels])
    places = torch.arange(int(frames.max()))
    padded = torch.stack([m[:, places.clamp(max=m.shape[1] - 1)] for m in mels])
    targets = [torch.tensor(encode(clip.item.transcript)) for clip in drawn]
    lengths = torch.tensor([len(target) for target in targets])
    heard = augment(another_recording(padded, generator, rooms=CONTENT_ROOMS), generator)
    return ContentBatch(heard, frames, torch.cat(targets), lengths)


def encode(transcript: str) -> list[int]:
    """Spell a transcript as indices into SYMBOLS; accents fall away, other signs part words.

    >>> encode("Bin  blue!")
    [3, 10, 15, 1, 3, 13, 22, 6]
    """
    plain = unicodedata.normalize("NFKD", transcript.lower().replace(CURLY_APOSTROPHE, "'"))
    kept = "".join(
        sign if sign in _INDEX else " " for sign in plain if not unicodedata.combining(sign)
    )
    return [_INDEX[sign] for sign in " ".join(kept.split())]


def spell(indices: Sequence[int]) -> str:
    """Write indices into SYMBOLS as text.

    >>> spell(encode("Bin  blue!"))
    'bin blue'
    """
    return "".join(SYMBOLS[index] for index in indices)


def decode(log_probabilities: Tensor) -> str:
    """Read the likeliest path of (T, V) CTC log-probabilities: merge repeats, drop blanks."""
    path = torch.unique_consecutive(log_probabilities.argmax(-1)).tolist()
    return spell([index for index in path if index != BLANK]).strip()
