"""Supervised training of the F0 (JDC) and the content (CTC) network (A28, A36, A37).

Lineage (dossier, section 7): 0.1 SmoothL1 of F0 in Hz plus cross-entropy of silence, here that of
the classes of pitch plus that of voicing; CTC plus an attention decoder, here CTC alone. Clips,
labels and batches come first, then the measures, then the loop, which also trains the vocoder;
what is kept on disk is `pretrain.py`'s business.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.f0 import HIGHEST_HZ, LOWEST_HZ
from xfavot.audio.mel import MEL, Standardiser, log_mel
from xfavot.config import ModelConfig
from xfavot.data.store import Store
from xfavot.errors import DataError, TrainingError, WeightsError, import_optional
from xfavot.models.content import BLANK, SYMBOLS, ContentNetwork
from xfavot.models.f0 import PITCH_CLASSES, F0Network, F0Output, class_of, track

if TYPE_CHECKING:
    from xfavot.data.store import Item, Store


# Other voices, rooms and recordings made from the clips that the F0 network learns from (A36)


VERSIONS = 5  # of a clip: as it is, resampled and synthesised twice each
AS_IT_IS = 0.4  # share of the draws
CHANGED_CLIPS = 600  # of a corpus at most, evenly spread; a large one is varied enough
RESAMPLED = (0.75, 1.35)  # factor on every frequency
SHIFT_OCTAVES = 0.7  # of the synthesised pitch, up or down at most
INTONATION = (0.6, 1.6)  # exponent on the pitch about its median

CURVES = 4  # cosines over the bands that make up an equaliser
CURVE_LOG10 = 0.2  # standard deviation of each; 4 dB
BAND_SHARE = 0.3  # of the crops lose one or both ends of the band
LOW_BANDS, HIGH_BANDS = (0.0, 8.0), (52.0, 80.0)  # where the ends lie, of 80 bands
SLOPE_LOG10 = 0.5  # a band; 10 dB
ROOM_SECONDS = (0.1, 0.5)  # reverberation time
ROOM_LOG10 = (-2.5, -1.0)  # power of the first echo against the sound
ROOM_FRAMES = 40

Wave = NDArray[np.float32]
Speech = tuple[Tensor, Tensor]  # log10 mel (80, T) and F0 (T,) Hz, 0 where unvoiced


class Versions:
    """Versions of clips, made when they are first asked for and kept.

    Every corpus is drawn equally often, and every second of its speech alike. What is drawn is a
    function of the generator, a version one of seed, clip and number.

    Args:
        clips: with F0.
        seed: of the changes.
    """

    def __init__(self, clips: Sequence[Clip], *, seed: int) -> None:
        """Sort the clips by corpus; nothing is computed yet."""
        self.clips, self.seed = clips, seed
        names = [clip.store.corpus for clip in clips]
        self.corpora = [
            [row for row, corpus in enumerate(names) if corpus == name]
            for name in dict.fromkeys(names)
        ]
        self.changed = {
            row for rows in self.corpora for row in rows[:: -(-len(rows) // CHANGED_CLIPS)]
        }
        self._frames = [
            torch.tensor([float(clips[row].item.frame_count) for row in rows])
            for rows in self.corpora
        ]
        self._made: dict[tuple[int, int], Speech] = {}

    def draw(self, count: int, generator: torch.Generator) -> list[Speech]:
        """Draw versions of clips: log10 mel (80, T) and F0 (T,) each."""
        drawn = []
        for corpus in torch.randint(len(self.corpora), (count,), generator=generator).tolist():
            rows = self.corpora[corpus]
            row = rows[int(torch.multinomial(self._frames[corpus], 1, generator=generator))]
            version = int(torch.randint(1, VERSIONS, (), generator=generator))
            keep = float(torch.rand((), generator=generator)) < AS_IT_IS or row not in self.changed
            drawn.append(self.version(row, 0 if keep else version))
        return drawn

    def version(self, row: int, number: int) -> Speech:
        """Return a version of a clip; 0 is the clip itself, odd numbers are resampled."""
        clip = self.clips[row]
        if number == 0:
            return clip.log_mel(), clip.f0()
        if (row, number) not in self._made:
            draws = np.random.default_rng((self.seed, row, number))
            wave, f0 = clip.store.waveform(clip.item), clip.f0().numpy()
            change = resampled if number % 2 else synthesised
            wave, f0 = change(wave, f0, draws)
            mel = log_mel(torch.from_numpy(wave))[:, : len(f0)]
            self._made[row, number] = mel.half(), torch.from_numpy(f0)
        mel, label = self._made[row, number]
        return mel.float(), label


def resampled(waveform: Wave, f0: Wave, draws: np.random.Generator) -> tuple[Wave, Wave]:
    """Raise or lower every frequency by one random factor; the tempo follows.

    Args:
        waveform: (N,) at 24 kHz.
        f0: (N // 300 + 1,) Hz, 0 where unvoiced.
        draws: source of randomness.

    Returns:
        Both, of another length.
    """
    low, high = np.log2(RESAMPLED)
    samples = round(len(waveform) / 2.0 ** draws.uniform(low, high))
    spectrum = np.fft.rfft(waveform)
    kept = spectrum[: samples // 2 + 1]
    new = np.fft.irfft(kept, n=samples) * (samples / len(waveform))
    factor = len(waveform) / samples
    place = np.minimum(np.arange(samples // MEL.hop + 1) * factor, len(f0) - 1)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(f0) - 1)
    near = f0[np.rint(place).astype(int)]
    between = f0[before] + (place - before) * (f0[after] - f0[before])
    label = np.where((f0[before] > 0) & (f0[after] > 0), between, near) * factor
    return new.astype(np.float32), label.astype(np.float32)


def synthesised(waveform: Wave, f0: Wave, draws: np.random.Generator) -> tuple[Wave, Wave]:
    """Analyse with WORLD and synthesise with another pitch and a livelier or flatter intonation.

    Args:
        waveform, f0, draws: as in :func:`resampled`.

    Returns:
        Both; as long as the label, at most a frame of samples longer than before.

    Raises:
        DataError: pyworld is not installed.
    """
    pyworld = import_optional("pyworld", extra="data", purpose="training the F0 network")
    signal, pitch = waveform.astype(np.float64), f0.astype(np.float64)
    times = np.arange(len(pitch)) * (MEL.hop / MEL.sample_rate)
    # by itself CheapTrick takes what lies below 70.5 Hz for unvoiced
    envelope = pyworld.cheaptrick(signal, pitch, times, MEL.sample_rate, f0_floor=LOWEST_HZ)
    size = 2 * (envelope.shape[1] - 1)
    noise = pyworld.d4c(signal, pitch, times, MEL.sample_rate, fft_size=size)
    voiced = pitch > 0
    middle = np.median(pitch[voiced]) if voiced.any() else LOWEST_HZ
    shift = 2.0 ** draws.uniform(-SHIFT_OCTAVES, SHIFT_OCTAVES)
    height = np.where(voiced, pitch, middle) / middle
    other = middle * shift * height ** draws.uniform(*INTONATION)
    label = np.where(voiced, other.clip(LOWEST_HZ, HIGHEST_HZ), 0.0)
    period = 1000.0 * MEL.hop / MEL.sample_rate  # ms
    new = pyworld.synthesize(label, envelope, noise, MEL.sample_rate, period)
    return new.astype(np.float32), label.astype(np.float32)


def another_recording(log_mel: Tensor, generator: torch.Generator, *, rooms: float) -> Tensor:
    """Let some reverberate, filter all, and take an end of the band from some.

    Args:
        log_mel: (B, M, T) log10 mel-spectrograms, not standardised.
        generator: source of randomness.
        rooms: share of the spectrograms that reverberate.

    Returns:
        (B, M, T), new.
    """
    batch, bands, _ = log_mel.shape
    place = (torch.arange(bands) + 0.5) / bands  # (M,)
    order = torch.arange(1, CURVES + 1).view(-1, 1)
    cosines = torch.cos(math.pi * order * place)  # (curves, M)
    curve = CURVE_LOG10 * torch.randn(batch, CURVES, generator=generator) @ cosines  # (B, M)
    ends = torch.rand(2, batch, 1, generator=generator)
    low = LOW_BANDS[0] + (LOW_BANDS[1] - LOW_BANDS[0]) * ends[0]
    high = HIGH_BANDS[0] + (HIGH_BANDS[1] - HIGH_BANDS[0]) * ends[1]
    band = torch.arange(bands)
    outside = (low - band).clamp(min=0) + (band - high).clamp(min=0)  # (B, M)
    limited = torch.rand(batch, 1, generator=generator) < BAND_SHARE
    curve = curve - SLOPE_LOG10 * outside * limited
    return _reverberated(log_mel, generator, rooms) + curve.unsqueeze(2)


def _reverberated(log_mel: Tensor, generator: torch.Generator, rooms: float) -> Tensor:
    """Add decaying echoes in power, to some."""
    batch = log_mel.shape[0]
    seconds, first, chosen = torch.rand(3, batch, 1, generator=generator)
    seconds = ROOM_SECONDS[0] + (ROOM_SECONDS[1] - ROOM_SECONDS[0]) * seconds
    first = 10.0 ** (ROOM_LOG10[0] + (ROOM_LOG10[1] - ROOM_LOG10[0]) * first)
    delay = torch.arange(ROOM_FRAMES) * (MEL.hop / MEL.sample_rate)
    echoes = first * 10.0 ** (-6.0 * delay / seconds) * (chosen < rooms)  # (B, K)
    echoes[:, 0] = 1.0
    power = torch.pow(100.0, log_mel).transpose(0, 1)  # (M, B, T)
    padded = functional.pad(power, (ROOM_FRAMES - 1, 0))
    heard = functional.conv1d(padded, echoes.flip(1).unsqueeze(1), groups=batch)
    return 0.5 * heard.clamp(min=MEL.floor**2).log10().transpose(0, 1)


# Clips, labels and batches for training the F0 and the content network


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


# How well the F0 and the content network do on clips that they were not trained on (A36, A37)


GROSS_ERROR = 0.2  # relative pitch error that counts as gross
HELD_OUT = ("val", "unseen")
HELD_OUT_CLIPS = 200  # measured at most, evenly spread over the split


def edit_distance(said: str, heard: str) -> int:
    """Count the fewest insertions, deletions and substitutions of characters (Levenshtein).

    >>> edit_distance("place", "lake")
    2
    """
    return int(Levenshtein.distance(said, heard))


@dataclass(slots=True)
class PitchScore:
    """Sums over frames from which the measures of pitch and voicing follow."""

    clips: int = 0
    frames: int = 0
    wrong_voicing: int = 0
    both_voiced: int = 0
    gross: int = 0
    pairs: list[Tensor] = field(default_factory=list)

    def add(self, f0: Tensor, pitch: Tensor) -> None:
        """Count the frames of one clip: label and track (T,) Hz, 0 where unvoiced."""
        voiced, said = f0 > 0, pitch > 0
        both = voiced & said
        self.frames += f0.numel()
        self.wrong_voicing += int((voiced != said).sum())
        self.both_voiced += int(both.sum())
        self.gross += int(((pitch - f0).abs() > GROSS_ERROR * f0)[both].sum())
        self.pairs.append(torch.stack((f0[both], pitch[both])))

    def measures(self) -> dict[str, float]:
        """Return gross pitch error, voicing error (shares) and correlation of F0 in Hz."""
        found = {"voicing_error": self.wrong_voicing / max(self.frames, 1)}
        pairs = torch.cat([torch.zeros(2, 0), *self.pairs], dim=1).double()
        if self.both_voiced > 1 and bool((pairs.std(dim=1) > 0).all()):
            found["gross_pitch_error"] = self.gross / self.both_voiced
            found["f0_correlation"] = float(torch.corrcoef(pairs)[0, 1])
        return found


def held_out(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """List at most 200 clips of a split that carry a label, evenly spread over it."""
    found = clips_of(stores, split, needs=needs)
    return found[:: -(-len(found) // HELD_OUT_CLIPS)] if found else []


@torch.no_grad()
def f0_measures(
    network: F0Network, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, float]:
    """Measure an F0 network against WORLD on clips not trained on, whole clips one by one.

    Returns:
        For each held-out split that has clips, and per sex: `val/gross_pitch_error` (share of
        frames voiced in both that are more than 20 % off), `val/voicing_error` (share of frames),
        `val/f0_correlation` (frames voiced in both), `val/f/...`, `val/m/...`, `val/clips`; with
        several stores also per corpus, `val/vctk/...` and `val/vctk/f/...`.
    """
    device = next(network.parameters()).device
    found: dict[str, float] = {}
    for split in HELD_OUT:
        scores: dict[str, PitchScore] = {}
        for clip in _of_each(stores, split, needs="f0"):
            x = standardiser.standardise(clip.log_mel())[None, None].to(device)
            pitch = track(network(x))[0].cpu()
            wholes = _groups(split, clip, stores)
            sexes = [f"{whole}/{clip.item.gender}" for whole in wholes if clip.item.gender]
            for group in (*wholes, *sexes):
                score = scores.setdefault(group, PitchScore())
                score.add(clip.f0(), pitch)
                score.clips += 1
        found |= _flat({group: score.measures() for group, score in scores.items()})
        found |= {f"{group}/clips": float(score.clips) for group, score in scores.items()}
    return found


@torch.no_grad()
def content_measures(
    network: ContentNetwork, stores: Sequence[Store], standardiser: Standardiser
) -> dict[str, float]:
    """Measure the character error of a content network on clips not trained on (greedy CTC).

    Returns:
        For each held-out split that has transcripts: `val/character_error` (edits per character of
        the transcripts) and `val/clips`; with several stores also per corpus, `val/mini/...`.
    """
    device = next(network.parameters()).device
    found: dict[str, float] = {}
    for split in HELD_OUT:
        sums: dict[str, list[int]] = {}
        for clip in _of_each(stores, split, needs="transcript"):
            x = standardiser.standardise(clip.log_mel())[None, None].to(device)
            said = spell(encode(clip.item.transcript))
            edits = edit_distance(said, decode(network(x)[0].cpu()))
            for group in _groups(split, clip, stores):
                counts = sums.setdefault(group, [0, 0, 0])
                sums[group] = [a + b for a, b in zip(counts, (edits, len(said), 1), strict=True)]
        for group, (wrong, characters, clips) in sums.items():
            found[f"{group}/character_error"] = wrong / characters
            found[f"{group}/clips"] = float(clips)
    return found


def _of_each(stores: Sequence[Store], split: str, *, needs: str) -> list[Clip]:
    """At most 200 clips of every store."""
    return [clip for store in stores for clip in held_out([store], split, needs=needs)]


def _groups(split: str, clip: Clip, stores: Sequence[Store]) -> tuple[str, ...]:
    """Where a clip counts: in its split, and in its corpus's share if there are several."""
    return (split, f"{split}/{clip.store.corpus}") if len(stores) > 1 else (split,)


def in_words(metrics: Mapping[str, float]) -> str:
    """Say measures in one line."""
    shown = [
        f"{name} {value:.0f}" if name.endswith("clips") else f"{name} {value:.3f}"
        for name, value in metrics.items()
    ]
    return ", ".join(shown) or "no clip held out to measure it on"


def _flat(groups: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {f"{group}/{name}": value for group, m in groups.items() for name, value in m.items()}


@torch.no_grad()
def example_tracks(
    clip: Clip, network: F0Network | None, standardiser: Standardiser
) -> dict[str, NDArray[np.float32]]:
    """Return the F0 of one clip in Hz, 0 where unvoiced: WORLD's, and the network's if given."""
    tracks = {"WORLD": clip.f0().numpy()}
    if network is not None:
        out = network(standardiser.standardise(clip.log_mel())[None, None])
        tracks["network"] = track(out)[0].numpy()
    return tracks


@torch.no_grad()
def example_transcripts(
    clips: Iterable[Clip], network: ContentNetwork | None, standardiser: Standardiser
) -> str:
    """Return one line a clip: what is said, and what the network hears if given."""
    lines = []
    for clip in clips:
        line = f"{clip.item.id}: {spell(encode(clip.item.transcript))}"
        if network is not None:
            heard = decode(network(standardiser.standardise(clip.log_mel())[None, None])[0])
            line += f" | heard: {heard}"
        lines.append(line)
    return "\n".join(lines) or "no transcript"


LINES = 20  # records of progress a training
WARMUP_SHARE = 0.1  # of the steps, linear
FINAL_SHARE = 0.02  # of the rate, reached along a cosine
WEIGHT_DECAY = 1.0e-4
GRADIENT_NORM = 5.0
VOICING_WEIGHT = 2.0  # beside the cross-entropy of the pitch
CLASS_BLUR = 1.0  # standard deviation, in classes, of the pitch asked for
LEAP = 0.15  # change of F0 between two frames that is taken for a mistake of WORLD's
CONTENT_SHAPES = {256: (6, 0.2), 128: (4, 0.1), 64: (3, 0.05)}  # least width: depth, dropout
SMALLEST_SHAPE = (1, 0.0)

Log = Callable[[Mapping[str, Any]], None]
N = TypeVar("N", F0Network, ContentNetwork)


def train_f0(
    stores: Sequence[Store],
    *,
    model: ModelConfig,
    standardiser: Standardiser,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> tuple[F0Network, dict[str, float]]:
    """Train the F0 network on WORLD's labels in the stores' train split.

    Args:
        stores: prepared stores; those without speech do not count.
        model: widths; crops have `model.mel_frames` frames.
        standardiser: mel statistics of the run.
        steps: length.
        batch_size: crops a step.
        lr: peak learning rate.
        seed: of the initial weights and the batches.
        device: where to train.
        on_log: called about 20 times with network, step, steps, loss, pitch, voicing.

    Returns:
        The network, frozen and in evaluation mode, and :func:`f0_measures`.

    Raises:
        DataError: no training clip has speech.
        TrainingError: the loss is not finite.
    """
    clips = clips_of(stores, "train", needs="f0")
    if not clips:
        raise DataError(_no_clips("F0", stores, "speech"))

    speech = Versions(clips, seed=seed)

    def loss(network: F0Network, step: int) -> dict[str, Tensor]:
        log_mel, f0 = f0_batch(
            speech, batch_size=batch_size, frames=model.mel_frames, seed=seed, step=step
        )
        x = standardiser.standardise(log_mel).unsqueeze(1).to(device)
        return f0_loss(network(x), f0.to(device))

    with _own_randomness(seed, device):
        network = F0Network.from_config(model).to(device)
        cast(Any, network).to(memory_format=torch.channels_last)  # a fifth faster; not in the stubs
        _train("f0", network, loss, steps=steps, lr=lr, on_log=on_log)
    return network, f0_measures(network, stores, standardiser)


def f0_loss(out: F0Output, f0: Tensor) -> dict[str, Tensor]:
    """Cross-entropy of the pitch over voiced frames, and of voicing.

    Frames whose F0 leaps are left out of the first: there WORLD itself is in doubt.

    Args:
        out: of the network.
        f0: (B, T) Hz, 0 where unvoiced.

    Returns:
        loss, pitch, voicing: scalars.
    """
    voiced = f0 > 0
    leap = (f0[:, 1:] - f0[:, :-1]).abs() > LEAP * f0[:, 1:].minimum(f0[:, :-1])
    leap &= voiced[:, 1:] & voiced[:, :-1]
    beside = functional.pad(leap, (1, 0)) | functional.pad(leap, (0, 1))
    sure = voiced & ~beside
    number = torch.arange(PITCH_CLASSES, device=f0.device)
    off = (number - class_of(f0).unsqueeze(-1)) / CLASS_BLUR
    wanted = (-0.5 * off.square()).softmax(-1)  # (B, T, classes)
    cross = -(wanted * out.classes.log_softmax(-1)).sum(-1)
    pitch = (cross * sure).sum() / sure.sum().clamp(min=1)
    voicing = functional.binary_cross_entropy_with_logits(out.voicing, voiced.to(f0.dtype))
    return {"loss": pitch + VOICING_WEIGHT * voicing, "pitch": pitch, "voicing": voicing}


def train_content(
    stores: Sequence[Store],
    *,
    model: ModelConfig,
    standardiser: Standardiser,
    steps: int,
    batch_size: int,
    lr: float,
    seed: int,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> tuple[ContentNetwork, dict[str, float]]:
    """Train the content network on the transcripts of the stores' train split.

    Args:
        stores: prepared stores; clips without a transcript do not count.
        model: widths.
        standardiser: mel statistics of the run.
        steps: length.
        batch_size: clips a step.
        lr: peak learning rate.
        seed: of the initial weights, the batches and the dropout.
        device: where to train.
        on_log: called about 20 times with network, step, steps, loss.

    Returns:
        The network, frozen and in evaluation mode, and :func:`content_measures`.

    Raises:
        WeightsError: no training clip has a transcript.
        TrainingError: the loss is not finite.
    """
    clips = clips_of(stores, "train", needs="transcript")
    if not clips:
        raise WeightsError(_no_clips("content", stores, "a transcript"))

    def loss(network: ContentNetwork, step: int) -> dict[str, Tensor]:
        batch = content_batch(clips, batch_size=batch_size, seed=seed, step=step)
        x = standardiser.standardise(batch.log_mel).unsqueeze(1).to(device)
        ctc = functional.ctc_loss(
            network(x).transpose(0, 1),  # (T', B, V)
            batch.targets,
            (batch.frames + 1) // 2,
            batch.lengths,
            blank=BLANK,
            zero_infinity=True,
        )
        return {"loss": ctc}

    with _own_randomness(seed, device):
        depth, dropout = content_shape(model)
        network = ContentNetwork.from_config(model, depth=depth, dropout=dropout).to(device)
        _train("content", network, loss, steps=steps, lr=lr, on_log=on_log)
    return network, content_measures(network, stores, standardiser)


def content_shape(model: ModelConfig) -> tuple[int, float]:
    """Return depth and dropout of the content network for a run's widths.

    The lineage's six blocks and dropout of 0.2 are for width 256; narrow networks underfit with so
    much dropout and do not need so many blocks.
    """
    fitting = (v for width, v in CONTENT_SHAPES.items() if model.content_width >= width)
    return next(fitting, SMALLEST_SHAPE)


def rate(step: int, *, steps: int, lr: float) -> float:
    """Return the learning rate of a step (from 1): a linear rise, then a cosine fall."""
    rise = max(1, round(WARMUP_SHARE * steps))
    if step <= rise:
        return lr * step / rise
    done = (step - rise) / max(1, steps - rise)
    return lr * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))


def optimise(
    name: str,
    network: nn.Module,
    losses: Callable[[int], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    steps: range,
    lr: float,
    lines: int,
    on_log: Log | None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Minimise ``losses(step)["loss"]``, the one loop of all supervised trainings.

    Args:
        name: of the network, for records and messages.
        network: what is trained.
        losses: terms of a step, "loss" among them.
        optimizer: of the network.
        steps: numbers of the steps to come, up to the last one.
        lr: peak learning rate.
        lines: how many records a whole training makes.
        on_log: receives them: network, step, steps and terms.

    Yields:
        The number of each step that is done, and its terms where a record is due, else none.

    Raises:
        TrainingError: the loss is not finite.
    """
    last = steps.stop - 1
    for step in steps:
        optimizer.param_groups[0]["lr"] = rate(step, steps=last, lr=lr)
        terms = losses(step)
        if not bool(torch.isfinite(terms["loss"])):
            raise TrainingError(
                f"{name} network: the loss is {terms['loss'].detach():g} at step {step}; expected "
                f"a finite number; lower pretrain.{name}_lr"
            )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(terms["loss"])
        nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_NORM)
        optimizer.step()
        due = step % max(1, last // lines) == 0 or step == last
        values = {key: float(value.detach()) for key, value in terms.items()} if due else {}
        if due and on_log is not None:
            on_log({"network": name, "step": step, "steps": last, **values})
        yield step, values


def _train(
    name: str,
    network: N,
    losses: Callable[[N, int], dict[str, Tensor]],
    *,
    steps: int,
    lr: float,
    on_log: Log | None,
) -> None:
    """Train one of the two networks from its first step on, then freeze it."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
    numbers, terms = range(1, steps + 1), partial(losses, network)
    settings: dict[str, Any] = {"steps": numbers, "lr": lr, "lines": LINES, "on_log": on_log}
    for _ in optimise(name, network, terms, optimizer, **settings):
        pass
    network.requires_grad_(False).eval()


@contextmanager
def _own_randomness(seed: int, device: torch.device | str) -> Iterator[None]:
    """Seed weights and dropout inside, and leave the caller's random state as it was."""
    index = torch.device(device)
    devices = [index] if index.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _no_clips(network: str, stores: Sequence[Store], what: str) -> str:
    corpora = ", ".join(store.corpus for store in stores) or "no store"
    return (
        f"the {network} network has no training clip with {what} in {corpora}; expected at least "
        f"one; prepare mini into the same data root with "
        "papermill notebooks/prepare_data.ipynb out.ipynb -p dataset mini"
    )
