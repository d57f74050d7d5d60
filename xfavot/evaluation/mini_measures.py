"""What can be measured in a voice and in a picture of `mini` without being told who it is.

Plain signals with a physical meaning, none of them learnt. The places of eyes, nose and mouth come
from the store's landmarks; everything else is read from the pixels. A measure that a sample does
not allow (no voiced frame, say) is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from xfavot.audio.mel import MEL, hz_to_mel, mel_to_hz
from xfavot.data.items import Item
from xfavot.data.manifest import Store

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

FRAMES_PER_S = MEL.sample_rate / MEL.hop
QUIET = 1.75  # log10 magnitude below the loudest frames, where speech ends: 35 dB
OCTAVE_ERROR = 0.75  # octaves from the median, where a pitch track is held
TREMBLING_HZ = (4.2, 6.4)  # of a tremor; the melody of a sentence is slower
ENVELOPE_HZ = (400.0, 6500.0)  # where formants are compared
MOST_SHIFT = 14  # steps of the envelope's grid, a third of an octave up or down
VOICE = ("pitch", "melody", "tremor", "rate", "tilt", "breath", "level")  # of a clip
VOICE_OF_SPEAKER = (*VOICE, "formants")
FACE = (
    *("shoulder width", "face width", "hair greyness", "forehead lines", "folds at the mouth"),
    *("cheek redness", "brow height", "clothes colour", "beard", "hair at the neck"),
    *("mouth opening", "nostrils aside", "nostrils down", "side light", "high light"),
    *("background", "gaze"),
)


def samples(
    store: Store, speakers: Sequence[str]
) -> tuple[Array, Array, NDArray[np.int64], list[int]]:
    """Measure every picture and every clip.

    Returns:
        (n, 17) of every picture, (n, 7) of the clip that it belongs to, (n,) number of the speaker,
        and the rows of the pictures in the store.
    """
    code = {name: number for number, name in enumerate(speakers)}
    pictures, clips, owner, rows = [], [], [], []
    for item in store.items:
        spoken = voice(store, item)
        for number in range(item.face_count):
            row = item.face_start + number
            pictures.append(face(store.face(item, number), store.landmarks[row]))
            clips.append(spoken)
            owner.append(code[item.speaker])
            rows.append(row)
    return np.array(pictures), np.array(clips), np.array(owner), rows


def by_speaker(x: Array, owner: NDArray[np.int64]) -> Array:
    """(K, ...) medians over the samples of each speaker."""
    return np.stack([np.nanmedian(x[owner == code], axis=0) for code in range(owner.max() + 1)])


def voice(store: Store, item: Item) -> Array:
    """Measure one spoken clip.

    Returns:
        One number for each of :data:`VOICE`: log2 of the median pitch in Hz; deviation around it,
        semitones; log10 share of trembling in the track; words a second; slope above 1 kHz, dB an
        octave; level above 5 kHz over that below, dB; level, dB.
    """
    log_mel = store.log_mel(item).numpy().astype(np.float64)  # (80, T)
    f0 = np.nan_to_num(store.f0_hz(item).astype(np.float64))
    frames = log_mel.mean(axis=0)
    spoken = np.flatnonzero(frames > np.percentile(frames, 95) - QUIET)
    voiced = np.flatnonzero(f0 > 0)
    if len(spoken) < 2 or len(voiced) < 20 or not item.transcript.split():
        return np.full(len(VOICE), np.nan)
    octaves = np.log2(f0[voiced])
    middle = float(np.median(octaves))
    melody = np.clip(octaves - middle, -OCTAVE_ERROR, OCTAVE_ERROR)
    seconds = (spoken[-1] - spoken[0] + 1) / FRAMES_PER_S
    hz = band_hz()
    decibel = 10 * np.log10((10 ** (2 * log_mel[:, voiced])).mean(axis=1))  # (80,)
    slope = np.polyfit(np.log2(hz[hz > 1000]), decibel[hz > 1000], 1)[0]
    hiss = decibel[hz > 5000].mean() - decibel[(hz > 300) & (hz <= 5000)].mean()
    level = 20 * np.log10(np.mean(10 ** log_mel[:, spoken]))
    return np.array([middle, 12 * melody.std(), _trembling(voiced, melody),
                     len(item.transcript.split()) / seconds, slope, hiss, level])  # fmt: skip


def band_hz() -> Array:
    """Centre of every mel band, (80,), in Hz."""
    low, high = hz_to_mel(torch.tensor([MEL.fmin, MEL.fmax], dtype=torch.float64)).tolist()
    mels = torch.linspace(low, high, MEL.n_mels + 2, dtype=torch.float64)
    return np.asarray(mel_to_hz(mels)[1:-1].numpy(), dtype=np.float64)


def _trembling(voiced: NDArray[np.int64], melody: Array) -> float:
    """Log10 share of the variance of a pitch track that lies at the rate of a tremor."""
    trembling, total = 1e-7, 1e-6
    for run in np.split(np.arange(len(voiced)), np.flatnonzero(np.diff(voiced) > 1) + 1):
        if len(run) < 24:  # 0.3 s
            continue
        track = melody[run] - np.poly1d(np.polyfit(run - run[0], melody[run], 3))(run - run[0])
        power = np.abs(np.fft.rfft(track * np.hanning(len(run)))) ** 2
        hz = np.fft.rfftfreq(len(run), 1 / FRAMES_PER_S)
        trembling += float(power[(hz > TREMBLING_HZ[0]) & (hz < TREMBLING_HZ[1])].sum())
        total += float(power.sum())
    return float(np.log10(trembling / total))


def spectrum(store: Store, speaker: str) -> Array:
    """Mean log10 mel of the voiced frames of a speaker, (80,)."""
    parts = [store.log_mel(item).numpy()[:, np.nan_to_num(store.f0_hz(item)) > 0]
             for item in store.items if item.speaker == speaker]  # fmt: skip
    return np.asarray(np.concatenate(parts, axis=1).mean(axis=1), dtype=np.float64)


def formant_shift(spectra: Array) -> Array:
    """How far the formants of each voice lie above those of all voices together.

    Args:
        spectra: (K, 80), mean log10 mel of the voiced frames of each speaker.

    Returns:
        (K,) octaves: the shift along the logarithm of frequency under which the envelope, without
        its slope, is most like the mean envelope of the others.
    """
    from scipy.fft import dct

    grid = np.linspace(np.log2(ENVELOPE_HZ[0]), np.log2(ENVELOPE_HZ[1]), 120)
    cepstra = dct(spectra, norm="ortho", axis=1)
    cepstra[:, 22:] = 0.0  # the envelope without harmonics
    smooth = dct(cepstra, type=3, norm="ortho", axis=1)
    envelopes = np.stack([np.interp(grid, np.log2(band_hz()), row) for row in smooth])
    envelopes -= np.stack([np.poly1d(np.polyfit(grid, row, 2))(grid) for row in envelopes])
    total = envelopes.sum(axis=0)
    best = [_best_shift(row, total - row) for row in envelopes]
    return np.asarray(np.array(best) * (grid[1] - grid[0]))


def _best_shift(row: Array, others: Array) -> int:
    likeness = {
        k: np.corrcoef(row[max(0, k) : len(row) + min(0, k)],
                       others[max(0, -k) : len(row) + min(0, -k)])[0, 1]
        for k in range(-MOST_SHIFT, MOST_SHIFT + 1)
    }  # fmt: skip
    return max(likeness, key=lambda k: float(likeness[k]))


class _Picture:
    """One picture with places in units of the face: eyes at (-1, 0) and (1, 0), mouth at (0, 1)."""

    def __init__(self, pixels: NDArray[np.uint8], landmarks: NDArray[Any]) -> None:
        self.rgb = pixels.astype(np.float64)
        self.grey = self.rgb @ np.array([0.299, 0.587, 0.114])
        self.marks = landmarks.astype(np.float64)
        self.eyes = self.marks[:2].mean(axis=0)
        self.down = self.marks[3:5].mean(axis=0) - self.eyes
        self.unit = float(np.linalg.norm(self.down))  # pixels from eyes to mouth
        self.right = np.array([self.down[1], -self.down[0]]) / 2

    def box(self, across: float, below: float, wide: float, high: float) -> Any:
        """Index of the pixels around a place, at least two each way; half sizes in units."""
        middle = self.eyes + across * self.right + below * self.down
        half = np.array([wide, high]) * self.unit
        size = len(self.grey)
        left, top = np.clip(middle - half, 0, size - 2).astype(int)
        right, bottom = np.clip(middle + half + 1, 2, size).astype(int)
        return np.s_[top : max(bottom, top + 2), left : max(right, left + 2)]

    def darkest(self, box: Any) -> Array:
        """Place of the darkest tenth of a box, right of and below the eyes, in units."""
        patch = self.grey[box]
        weight = np.clip(np.percentile(patch, 10) - patch, 0, None) + 1e-6
        x, y = (np.average(np.arange(n), weights=weight.sum(axis=axis))
                for n, axis in ((patch.shape[1], 0), (patch.shape[0], 1)))  # fmt: skip
        place = np.array([box[1].start + x, box[0].start + y]) - self.eyes
        return np.array([(place @ axis) / (axis @ axis) for axis in (self.right, self.down)])

    def colour(self, box: Any) -> Array:
        """Median colour of a box, (3,)."""
        return np.asarray(np.median(self.rgb[box].reshape(-1, 3), axis=0))


def face(pixels: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> Array:
    """Measure one picture.

    Args:
        pixels: (128, 128, 3).
        landmarks: (5, 2) pixels: eyes, nose, corners of the mouth.

    Returns:
        One number for each of :data:`FACE`: lengths in units of eyes to mouth, the rest as shares
        or logarithms of brightness.
    """
    picture = _Picture(pixels, landmarks)
    grey, unit = picture.grey, picture.unit
    cheeks = [picture.colour(picture.box(side, 0.55, 0.14, 0.10)) for side in (-1.0, 1.0)]
    skin = (cheeks[0] + cheeks[1]) / 2
    forehead, chin = picture.box(0.0, -0.60, 0.30, 0.10), picture.box(0.0, 1.45, 0.20, 0.06)
    x, y = (picture.eyes + 0.5 * picture.down).astype(int)
    hair = picture.colour(picture.box(0.0, -1.2, 0.5, 0.10))
    brows = grey[picture.box(0.0, -0.32, 0.72, 0.18)]
    dark = np.clip(np.median(brows) - brows, 0, None).sum(axis=1) ** 2 + 1e-6
    cloth = picture.colour(np.s_[-5:, 26:102])
    folds = [_roughness(grey[picture.box(s * 0.85, 0.75, 0.14, 0.20)], 1) for s in (-1, 1)]
    nostrils = picture.darkest(picture.box(0.0, 0.60, 0.42, 0.14))
    corners = np.concatenate([grey[:14, :14].ravel(), grey[:14, -14:].ravel()])
    return np.array([
        _shoulders(picture.rgb) / unit,
        _run(_alike(picture.rgb[y], skin), x) / unit,
        (hair.min() / max(1.0, hair.max())) * hair.mean() / 255,
        _roughness(grey[forehead], 0),
        np.mean(folds),
        _redness(skin) - _redness(picture.colour(forehead)),
        -np.average(np.arange(len(dark)), weights=dark) / unit,
        1 - cloth.min() / max(1.0, cloth.max()),
        np.abs(np.log((picture.colour(chin) + 12) / (skin + 12))).mean(),
        _beside_the_neck(picture),
        grey[picture.box(0.0, 1.05, 0.10, 0.20)].std() / max(1.0, skin.mean()),
        *nostrils,
        np.log((cheeks[1].mean() + 1) / (cheeks[0].mean() + 1)),
        np.log((grey[forehead].mean() + 1) / (picture.colour(chin).mean() + 1)),
        np.median(corners) / 255,
        _gaze(picture),
    ])  # fmt: skip


def _redness(colour: Array) -> float:
    return float((colour[0] - colour[1]) / max(1.0, colour[0]))


def _roughness(patch: Array, axis: int) -> float:
    """Log of the mean second difference along an axis over the mean brightness."""
    size = np.abs(np.diff(patch, n=2, axis=axis)).mean()
    return float(np.log((size + 0.1) / max(1.0, patch.mean())))


def _alike(row: Array, colour: Array) -> Bools:
    """Which pixels (n, 3) have about the hue of a colour, brighter or darker."""
    ratio = np.log((row + 12) / (colour + 12))
    mean = ratio.mean(axis=1, keepdims=True)
    return np.asarray((np.abs(ratio - mean).max(axis=1) < 0.12) & (np.abs(mean[:, 0]) < 0.7))


def _run(row: Bools, start: int) -> float:
    """Number of true values from a place outwards to both sides; gaps of two are bridged."""
    total = 0
    for side in (row[start:], row[:start][::-1]):
        good = np.flatnonzero(side)
        ends = np.flatnonzero(np.diff(good, prepend=-1) > 3)
        total += int(ends[0]) if len(ends) else len(good)
    return float(total)


def _shoulders(rgb: Array) -> float:
    """Width of what is more like the clothes than like the wall, just above the lower edge."""
    total = 0.0
    for way in (-1, 1):
        half = rgb[120:124, ::way][:, 64:]  # (4, 64, 3), from the middle outwards
        wall = np.median(rgb[88:100, ::way][:, -4:].reshape(-1, 3), axis=0)
        cloth = np.median(rgb[124:, ::way][:, 72:84].reshape(-1, 3), axis=0)
        near = np.linalg.norm(half - cloth, axis=2) < np.linalg.norm(half - wall, axis=2)
        total += float(np.mean([np.flatnonzero(row).max(initial=0) for row in near]))
    return total


def _beside_the_neck(picture: _Picture) -> float:
    """How unlike the wall the picture is at both sides of the neck; hair that hangs covers it."""
    found = []
    for way in (-1, 1):
        place = picture.colour(picture.box(way * 1.55, 1.12, 0.06, 0.06))
        wall = np.median(picture.rgb[88:100, ::way][:, -4:].reshape(-1, 3), axis=0)
        found.append(np.abs(np.log((place + 12) / (wall + 12))).mean())
    return float(np.mean(found))


def _gaze(picture: _Picture) -> float:
    """Place of the dark of the eyes, right of the middle, in units."""
    offsets = []
    for x, y in picture.marks[:2].astype(int):
        patch = picture.grey[max(0, y - 3) : y + 4, max(0, x - 5) : x + 6]
        dark = np.clip(np.percentile(patch, 40) - patch, 0, None).sum(axis=0) + 1e-6
        offsets.append(np.average(np.arange(patch.shape[1]) - 5, weights=dark))
    return float(np.mean(offsets) / picture.unit)
