"""The source-filter network as a vocoder: long clips in pieces, its weights on disk.

The network's sound is steered a little towards the spectrogram asked for: twice, its magnitudes are
scaled band by band and its phase is kept, as in one iteration of Griffin-Lim. Below 3 kHz voiced
frames get less noise than the network predicts: in training a pulse a little beside that of the
recording looked wrong, and noise did not.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio import mel
from xfavot.audio.mel import MEL, Standardiser, Vocoder, hz_to_mel, pieces, require_contract
from xfavot.weights import recorded

# What drives a source-filter vocoder: a train of pulses at F0, and the phase of its filter

PITCH_DEFAULT_HZ = 150.0  # of a clip without a voiced frame
PULSE_LEVEL_HZ = 1024.0  # pulses of amplitude f0 / this have a mel-spectrogram of about 1
HIGHEST_PARTIAL_HZ = 11_800.0
LIFTER = 72  # samples (3 ms) of the cepstrum that count for the phase, fading
TINY_SINE = 1e-7


class Melody(NamedTuple):
    """A pitch without gaps, and where it is heard."""

    pitch: Tensor  # (B, T) Hz, positive
    voiced: Tensor  # (B, T) bool


def melody(f0: Tensor) -> Melody:
    """Fill the unvoiced frames: logarithmic interpolation inside, held at both ends.

    Args:
        f0: (B, T) Hz, 0 where unvoiced.

    Returns:
        Pitch, :data:`PITCH_DEFAULT_HZ` for a clip without a voiced frame, and voicing.
    """
    frames = f0.shape[1]
    place = torch.arange(frames, device=f0.device).expand_as(f0)
    voiced = f0 > 0
    before = torch.where(voiced, place, -1).cummax(1).values
    after = torch.where(voiced, place, frames).flip(1).cummin(1).values.flip(1)
    first = torch.where(before < 0, after, before).clamp(max=frames - 1)
    after = torch.where(after == frames, before, after).clamp(min=0)
    log = torch.where(voiced, f0, PITCH_DEFAULT_HZ).log2()
    share = (place - first) / (after - first).clamp(min=1)
    return Melody(torch.lerp(log.gather(1, first), log.gather(1, after), share).exp2(), voiced)


def cycles_at_frames(pitch: Tensor) -> Tensor:
    """Count the periods from the first frame to every frame.

    Args:
        pitch: (B, T) Hz, positive; linear between frames, 300 samples apart.

    Returns:
        (B, T) float64; what a sum over samples gives, so that a long clip can be made in pieces.
    """
    pitch = pitch.double()
    last, here = pitch[:, :-1], pitch[:, 1:]
    steps = (MEL.hop * last + (here - last) * (MEL.hop + 1) / 2) / MEL.sample_rate
    return functional.pad(steps.cumsum(1), (1, 0))


def phases(pitch: Tensor, first_cycle: Tensor) -> tuple[Tensor, Tensor]:
    """Give every sample its pitch and its place within a period, added up in float64.

    Args:
        pitch: (B, T) Hz, positive.
        first_cycle: (B,) phase of the first frame, in cycles.

    Returns:
        (B, (T - 1) * 300 + 1) float64, from the first frame to the last: Hz, and radians within
        [-pi, pi].
    """
    size, known = (pitch.shape[1] - 1) * MEL.hop + 1, pitch.double().unsqueeze(1)
    dense = functional.interpolate(known, size, mode="linear", align_corners=True)[:, 0]  # (B, N)
    turned = functional.pad((dense[:, 1:] / MEL.sample_rate).cumsum(1), (1, 0))
    cycles = first_cycle.double().unsqueeze(1) + turned
    return dense, 2 * math.pi * (cycles - cycles.round())


def pulses(dense: Tensor, phase: Tensor) -> Tensor:
    """Sum all cosine partials of a pitch below :data:`HIGHEST_PARTIAL_HZ`.

    The sum is Dirichlet's kernel in closed form; its last partial fades in and out, so that nothing
    clicks when the number of partials changes.

    Args:
        dense, phase: (B, N) as :func:`phases` returns them.

    Returns:
        (B, N) float32 of a flat spectrum; a partial has amplitude pitch / 1024.
    """
    count = HIGHEST_PARTIAL_HZ / dense
    whole = count.floor()
    sine = (phase / 2).sin()
    peak = sine.abs() < TINY_SINE
    kernel = ((whole + 0.5) * phase).sin() / (2 * torch.where(peak, 1.0, sine)) - 0.5
    kernel = torch.where(peak, whole, kernel) + (count - whole) * ((whole + 1) * phase).cos()
    return (kernel * dense / PULSE_LEVEL_HZ).float()


def minimum_phase(log_magnitude: Tensor) -> Tensor:
    """Return the phase that goes with a smoothed magnitude in a causal filter of least delay.

    The mel-spectrogram shows the partials of high voices; were they not smoothed away, the phase at
    a partial would turn with every frame, and the pitch would tremble.

    Args:
        log_magnitude: (..., K) natural logarithm at the bins of a transform of 2 (K - 1) samples.

    Returns:
        (..., K) radians.
    """
    size = 2 * (log_magnitude.shape[-1] - 1)
    cepstrum = torch.fft.irfft(log_magnitude, n=size)
    fade = torch.hann_window(2 * LIFTER, device=cepstrum.device)[LIFTER + 1 :]
    causal = functional.pad(2 * fade * cepstrum[..., 1:LIFTER], (1, size - LIFTER))
    phase: Tensor = torch.fft.rfft(causal).imag
    return phase


# A small vocoder: pulses and noise, shaped in every frame by filters that a network predicts


KNOTS = 128  # places on Slaney's scale, 0 to 12 kHz, where the filters are predicted
KERNEL = 7  # frames
EXPANSION = 3  # of the channels inside a block
LAYER_SCALE = 0.3  # first weight of a block's residual
MOST_DECADES = 4.0  # a filter lies within this factor of the mel-spectrogram's own envelope
PITCH_LOW_HZ = 60.0  # WORLD's range
PITCH_OCTAVES = math.log2(600.0 / PITCH_LOW_HZ)
PITCH_CLASSES = 120  # of 33 cents
PITCH_NEIGHBOURS = 3  # classes either side of the likeliest that are averaged
PITCH_MIDDLE_LOG2 = math.log2(180.0)  # Hz; centre of the filter network's pitch input
NOISE_LEVEL = 0.625  # standard deviation of white noise whose mel-spectrogram is about 1
WINDOW = 600  # samples of a Hann window, two hops: neighbouring filters cross-fade
FFT = 1280  # samples; leaves a filter 14 ms to ring on either side
MARGIN = (FFT - WINDOW) // 2
EDGE = 3  # frames of pitch more on either side, which cover half of FFT

SWINGS = (0, 1, -1)  # noise that is even, strongest at the pulses, strongest between them
SWING_LEVEL = math.sqrt(8 / 35)  # of (1 + cos)^2 for unit power


class Filters(NamedTuple):
    """What shapes a frame, (B, T, KNOTS) each; magnitudes are natural logarithms."""

    pulses: Tensor
    turn: Tensor  # radians more than the phase of least delay
    noises: tuple[Tensor, ...]  # of each of SWINGS


class ConvBlock(nn.Module):
    """ConvNeXt block over time: depthwise convolution, layer norm, two linear layers."""

    def __init__(self, width: int) -> None:
        """Build the layers; see the class."""
        super().__init__()
        self.mix = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, EXPANSION * width)
        self.narrow = nn.Linear(EXPANSION * width, width)
        self.scale = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, T, C)."""
        h = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        out: Tensor = x + self.scale * self.narrow(functional.gelu(self.widen(h)))
        return out


class FrameStack(nn.Module):
    """Blocks between a convolution and a linear layer, all at the frame rate."""

    def __init__(self, inputs: int, outputs: int, *, width: int, depth: int) -> None:
        """Build the layers; the outputs start near zero."""
        super().__init__()
        self.stem = nn.Conv1d(inputs, width, KERNEL, padding=KERNEL // 2)
        self.blocks = nn.Sequential(*(ConvBlock(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, T, outputs)."""
        out: Tensor = self.head(self.norm(self.blocks(self.stem(x).transpose(1, 2))))
        return out


class SourceFilterNetwork(nn.Module):
    """Log mel-spectrogram to waveform: find F0, predict the filters of every frame, render.

    Args:
        standardiser: statistics per band, part of the weights; left out, they wait for loaded ones.
        width, depth: channels and blocks of the stack that predicts the filters.
        pitch_width, pitch_depth: of the stack that finds F0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        standardiser: Standardiser | None = None,
        width: int = 192,
        depth: int = 6,
        pitch_width: int = 128,
        pitch_depth: int = 4,
    ) -> None:
        """Build the layers; see the class."""
        super().__init__()
        own, pitch = {"width": width, "depth": depth}, {"width": pitch_width, "depth": pitch_depth}
        self.sizes = own | {f"pitch_{name}": size for name, size in pitch.items()}
        known = standardiser or Standardiser.neutral()
        self.register_buffer("mean", known.mean.clone())
        self.register_buffer("std", known.std.clone())
        self.shape = FrameStack(MEL.n_mels + 2, (2 + len(SWINGS)) * KNOTS, **own)
        self.pitch = FrameStack(MEL.n_mels, PITCH_CLASSES + 1, **pitch)

    def pitch_logits(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Score pitch and voicing.

        Args:
            log_mel: (B, 80, T) log10, not standardised.

        Returns:
            Logits of the classes of pitch (B, T, 120), 60 to 600 Hz, and of being voiced (B, T).
        """
        scores = self.pitch(self._standardise(log_mel))
        return scores[..., :-1], scores[..., -1]

    def find_f0(self, log_mel: Tensor) -> Tensor:
        """Find F0, (B, T) Hz, 0 where unvoiced, in (B, 80, T) log10 mels."""
        logits, voicing = self.pitch_logits(log_mel)
        classes = torch.arange(PITCH_CLASSES, device=logits.device)
        near = (classes - logits.argmax(-1, keepdim=True)).abs() <= PITCH_NEIGHBOURS
        share = logits.softmax(-1) * near
        place = (share * classes).sum(-1) / share.sum(-1)
        pitch = PITCH_LOW_HZ * torch.exp2(place * (PITCH_OCTAVES / (PITCH_CLASSES - 1)))
        return pitch * (voicing > 0)

    def filters(self, log_mel: Tensor, tune: Melody) -> Filters:
        """Predict the filters of every frame.

        Args:
            log_mel: (B, 80, T) log10, not standardised.
            tune: pitch and voicing.

        Returns:
            Those of the pulses and of the noises, near the mel-spectrogram's own envelope.
        """
        height = (tune.pitch.log2() - PITCH_MIDDLE_LOG2).unsqueeze(1)
        voiced = tune.voiced.to(log_mel.dtype).unsqueeze(1)
        change = self.shape(torch.cat((self._standardise(log_mel), height, voiced), dim=1))
        to_knots, _ = _interpolations(log_mel.device)
        envelope = log_mel.transpose(1, 2) @ to_knots.T  # (B, T, knots) log10
        *gains, turn = change.chunk(2 + len(SWINGS), dim=2)
        voice, *noises = (
            (envelope + MOST_DECADES * torch.tanh(gain / MOST_DECADES)) * math.log(10.0)
            for gain in gains
        )
        return Filters(voice, math.pi * torch.tanh(turn), tuple(noises))

    def render(
        self, filters: Filters, pitch: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Filter fresh pulses and fresh noise.

        Args:
            filters: as :meth:`filters` returns them.
            pitch: (B, T) Hz, positive.
            generator: source of the noise and of the pulses' first phase, on the CPU.

        Returns:
            (B, (T - 1) * 300).
        """
        first_cycle = torch.rand(len(pitch), generator=generator)
        noise = torch.randn(len(pitch), noise_samples(pitch.shape[1]), generator=generator)
        drawn = (x.to(pitch.device) for x in (first_cycle, noise))
        return self.synthesise(filters, pitch, *drawn)

    def synthesise(
        self, filters: Filters, pitch: Tensor, first_cycle: Tensor, noise: Tensor
    ) -> Tensor:
        """Filter pulses and the noise given.

        Args:
            filters: as :meth:`filters` returns them.
            pitch: (B, T) Hz, positive.
            first_cycle: (B,) phase of the pulses at the first frame, in cycles.
            noise: (B, noise_samples(T)), white, of unit deviation.

        Returns:
            (B, (T - 1) * 300).
        """
        half, samples, before = FFT // 2, (pitch.shape[1] - 1) * MEL.hop, EDGE * MEL.hop
        wider = functional.pad(pitch.unsqueeze(1), (EDGE, EDGE), mode="replicate")[:, 0]
        known = phases(wider, first_cycle - before * pitch[:, 0] / MEL.sample_rate)
        used = slice(before - half, before + samples + half)  # N + FFT samples
        dense, phase = (x[:, used] for x in known)
        window = functional.pad(torch.hann_window(WINDOW, device=pitch.device), (MARGIN, MARGIN))

        def spectra(x: Tensor) -> Tensor:
            found: Tensor = torch.fft.rfft(x.unfold(1, FFT, MEL.hop) * window)  # (B, T, 641)
            return found

        to_bins = _interpolations(pitch.device)[1].T
        log = filters.pulses @ to_bins
        response = torch.polar(log.exp(), minimum_phase(log) + filters.turn @ to_bins)
        made = spectra(pulses(dense, phase)) * response
        near = phase.cos().float()
        for swing, breath in zip(SWINGS, filters.noises, strict=True):
            level = SWING_LEVEL * (1 + swing * near).square() if swing else 1.0
            made = made + spectra(NOISE_LEVEL * level * noise) * (breath @ to_bins).exp()
        out = _overlap_add(torch.fft.irfft(made, n=FFT))
        windows = _overlap_add(window.expand(1, pitch.shape[1], -1))
        inside = slice(half, half + samples)  # before the division: outside, windows are 0
        return out[:, inside] / windows[:, inside]

    def _standardise(self, log_mel: Tensor) -> Tensor:
        return (log_mel - self.mean[:, None]) / self.std[:, None]


def noise_samples(frames: int) -> int:
    """Return how much noise :meth:`SourceFilterNetwork.synthesise` filters, with its margins."""
    return (frames - 1) * MEL.hop + FFT


def _overlap_add(frames: Tensor) -> Tensor:
    """(B, T, 1280) to (B, (T - 1) * 300 + 1280)."""
    size = (1, (frames.shape[1] - 1) * MEL.hop + FFT)
    return functional.fold(frames.transpose(1, 2), size, (1, FFT), stride=(1, MEL.hop))[:, 0, 0]


def _knots() -> Tensor:
    """Return the places of the filters' knots in mels, (KNOTS,) float64."""
    last = hz_to_mel(torch.tensor(MEL.sample_rate / 2, dtype=torch.float64))
    return torch.linspace(0.0, 1.0, KNOTS, dtype=torch.float64) * last


@lru_cache(maxsize=8)
@torch.inference_mode(mode=False)
def _interpolations(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return linear interpolation from mel bands to knots (128, 80), and on to bins (641, 128)."""
    bands = hz_to_mel(mel.band_centres()[0])
    bins = torch.linspace(0.0, MEL.sample_rate / 2, FFT // 2 + 1, dtype=torch.float64)
    knots, found = _knots(), []
    for at, nodes in ((knots, bands), (hz_to_mel(bins), knots)):
        place = (at.clamp(nodes[0], nodes[-1]) - nodes[0]) / (nodes[1] - nodes[0])
        hats = 1 - (place[:, None] - torch.arange(len(nodes))).abs()
        found.append(hats.clamp(min=0).float().to(device))
    return found[0], found[1]


NAME = "source_filter"
PIECE_FRAMES = 800  # 10 s; bounds the memory for any length
CONTEXT_FRAMES = 40  # on either side of a piece; more than the network and the scaling see
ROUNDS = 2  # of scaling; each costs a tenth of the time
MOST_GAIN = 30.0  # of one round, and its reciprocal the least
FAINT = 1e-9  # added to mel magnitudes before a division
HISS_DB, HISS_TOP_HZ, HISS_SLOPE_HZ = -4.0, 3000.0, 300.0  # of noise in voiced frames


class SourceFilterVocoder(Vocoder):
    """The network with its trained weights, as a vocoder.

    Args:
        network: trained.
        name: what results call it.
        device: where it runs; one with float64.
        seed: of the noise and of the pulses' first phase.
    """

    shortest, spare = 8, 1  # as torch.stft's reflection needs; one more for the odd samples

    def __init__(self, network: SourceFilterNetwork, *, name: str = NAME, **how: Any) -> None:
        """Keep the network; see the class."""
        super().__init__(name=name, **how)
        self._network = network.to(self.device).requires_grad_(False).eval()
        self._bank = mel.mel_filterbank(self.device)  # (80, F)
        reach = self._bank.sum(0)  # (F,), 0 outside the bands
        self._spread = (self._bank / reach.clamp(min=FAINT)).T  # (F, 80), rows sum to one
        self._outside = (reach == 0).float().unsqueeze(1)  # (F, 1)
        edge, beyond = hz_to_mel(torch.tensor([HISS_TOP_HZ, HISS_TOP_HZ + HISS_SLOPE_HZ])).tolist()
        below = torch.sigmoid((edge - _knots()) / (beyond - edge)).float().to(self.device)
        self._less_noise = HISS_DB * math.log(10.0) / 20 * below  # (KNOTS,) natural logarithm

    @classmethod
    def load(cls, path: str | PathLike[str], *, name: str = "", **how: Any) -> SourceFilterVocoder:
        """Read weights that :func:`xfavot.weights.recorded.write` wrote.

        Args:
            path: the safetensors file.
            name: what results call it; with the beginning of the file's sha256 if left out.
            how: device and seed; see the class.

        Raises:
            WeightsError: the file is missing, damaged or of another network.
            DataError: the weights were trained on another mel-spectrogram.
        """
        require_contract(recorded.read(path, (NAME,))["contract"], where=str(path))
        with torch.random.fork_rng(devices=[]):  # its first weights are drawn
            network, _ = recorded.load(path, {NAME: SourceFilterNetwork})
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
        name = name or f"{NAME} (sha256 {digest})"
        return cls(cast(SourceFilterNetwork, network), name=name, **how)

    def find_f0(self, log_mel: Tensor) -> Tensor:
        """Find the pitch that a spectrogram (80, T), log10, is played at: (T,) Hz, 0 unvoiced."""
        parts = []
        for start, stop, first, last in pieces(log_mel.shape[1], PIECE_FRAMES, CONTEXT_FRAMES):
            piece = self._network.find_f0(log_mel[None, :, first:last].to(self.device))[0]
            parts.append(piece[start - first : stop - first])
        return torch.cat(parts)

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Go through the pieces of one spectrogram (80, T)."""
        frames = log_mel.shape[1]
        tune = melody(self.find_f0(log_mel)[None])
        generator = torch.Generator().manual_seed(self.seed)
        cycles = torch.rand(1, generator=generator) + cycles_at_frames(tune.pitch).cpu()
        noise = torch.randn(1, noise_samples(frames), generator=generator)
        out = torch.zeros(frames * MEL.hop)
        for start, stop, first, last in pieces(frames, PIECE_FRAMES, CONTEXT_FRAMES):
            part, here = log_mel[None, :, first:last], Melody(*(x[:, first:last] for x in tune))
            filters = self._with_less_noise(self._network.filters(part, here), here)
            at = first * MEL.hop
            breath = noise[:, at : at + noise_samples(last - first)].to(self.device)
            first_cycle = cycles[:, first].to(self.device)
            wave = self._network.synthesise(filters, here.pitch, first_cycle, breath)
            for _ in range(ROUNDS):
                wave = self._scaled(wave, part)
            inside = wave[0, (start - first) * MEL.hop : (stop - first) * MEL.hop]
            out[start * MEL.hop : start * MEL.hop + len(inside)] = inside.cpu()
        return out[:samples]

    def _with_less_noise(self, filters: Filters, tune: Melody) -> Filters:
        """Lower the noise of voiced frames below :data:`HISS_TOP_HZ`."""
        less = self._less_noise * tune.voiced.unsqueeze(2)  # (1, T, KNOTS)
        return filters._replace(noises=tuple(log + less for log in filters.noises))

    def _scaled(self, wave: Tensor, log_mel: Tensor) -> Tensor:
        """Scale the magnitudes of (1, N) towards (1, 80, T), keeping the phase."""
        spectrum = mel.stft(wave)  # (1, F, T)
        wanted, got = torch.pow(10.0, log_mel), self._bank @ spectrum.abs()
        gain = self._spread @ (wanted / (got + FAINT)).clamp(1 / MOST_GAIN, MOST_GAIN)
        return mel.istft(spectrum * (gain + self._outside), wave.shape[1])
