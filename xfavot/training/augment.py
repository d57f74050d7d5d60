"""Other voices, rooms and recordings made from the clips that the F0 network learns from (A36).

A clip is heard as it is, resampled (pitch, formants and tempo together) or synthesised again by
WORLD with another pitch. The label follows exactly: resampling scales F0, and a synthesis has the
F0 it was made with. Equaliser, limited band and reverberation are changes of the mel-spectrogram.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from xfavot.audio.mel import MEL, log_mel
from xfavot.data.f0 import HIGHEST_HZ, LOWEST_HZ
from xfavot.errors import DataError

if TYPE_CHECKING:
    from xfavot.training.labels import Clip

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
    try:
        import pyworld
    except ImportError as error:
        raise DataError(
            "training the F0 network needs pyworld, which is not installed; "
            'run: pip install "xfavot[data]"'
        ) from error
    signal, pitch = waveform.astype(np.float64), f0.astype(np.float64)
    times = np.arange(len(pitch)) * (MEL.hop / MEL.sample_rate)
    envelope = pyworld.cheaptrick(signal, pitch, times, MEL.sample_rate)
    noise = pyworld.d4c(signal, pitch, times, MEL.sample_rate)
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
