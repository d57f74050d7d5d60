"""A small vocoder: pulses and noise, shaped in every frame by filters that a network predicts.

Voiced sound is a train of band-limited pulses at F0, voiceless sound is white noise. A stack of
convolutions at the frame rate reads the log mel-spectrogram and F0 and predicts the logarithmic
magnitude of one filter for each; the pulses' filter has minimum phase. Both are applied in the
short-time Fourier domain and overlap-added, so that little is left to do at the sample rate. A
smaller stack finds F0 in the mel-spectrogram, so that nothing else is needed. This is the network;
`source_filter_vocoder.py` makes a vocoder of it.

The paper uses Parallel WaveGAN (Sec. 4), which takes days of a GPU to train. Lineage: neural
source-filter models (Wang et al. 2019), DDSP (Engel et al. 2020), the blocks and the Fourier head
of Vocos (Siuzdak 2023), pitch as classes as in CREPE (Kim et al. 2018).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.excitation import Melody, melody, minimum_phase, pulses
from xfavot.audio.mel import MEL, Standardiser, hz_to_mel
from xfavot.errors import require_shape

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

Filters = tuple[Tensor, Tensor]  # (B, T, KNOTS) of the pulses and of the noise


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
    """Log mel-spectrogram to waveform; F0 is found in it or given.

    Args:
        standardiser: statistics per band, part of the weights; left out, they wait for loaded ones.
        width, depth: channels and blocks of the stack that predicts the filters.
        pitch_width, pitch_depth: of the stack that finds F0.
    """

    mean: Tensor
    std: Tensor
    to_knots: Tensor
    to_bins: Tensor
    window: Tensor

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
        self.sizes = {"width": width, "depth": depth}
        self.sizes |= {"pitch_width": pitch_width, "pitch_depth": pitch_depth}
        known = standardiser or Standardiser(torch.zeros(MEL.n_mels), torch.ones(MEL.n_mels))
        self.register_buffer("mean", known.mean.clone())
        self.register_buffer("std", known.std.clone())
        to_knots, to_bins = _interpolations()
        self.register_buffer("to_knots", to_knots, persistent=False)
        self.register_buffer("to_bins", to_bins, persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.shape = FrameStack(MEL.n_mels + 2, 2 * KNOTS, width=width, depth=depth)
        self.pitch = FrameStack(MEL.n_mels, PITCH_CLASSES + 1, width=pitch_width, depth=pitch_depth)

    def forward(
        self, log_mel: Tensor, f0: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Make a waveform.

        Args:
            log_mel: (B, 80, T) log10, not standardised.
            f0: (B, T) Hz, 0 where unvoiced; :meth:`find_f0` if left out.
            generator: as in :meth:`render`.

        Returns:
            (B, (T - 1) * 300).

        Raises:
            ShapeError: the spectrogram has other axes, or F0 another length.
        """
        require_shape("log mel of the vocoder", log_mel, (None, MEL.n_mels, None))
        f0 = self.find_f0(log_mel) if f0 is None else f0
        require_shape("F0 of the vocoder", f0, (log_mel.shape[0], log_mel.shape[2]))
        tune = melody(f0)
        return self.render(self.filters(log_mel, tune), tune.pitch, generator)

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
        """Predict both filters of every frame.

        Args:
            log_mel: (B, 80, T) log10, not standardised.
            tune: pitch and voicing.

        Returns:
            Natural logarithms of the magnitudes, (B, T, 128) for the pulses and for the noise.
        """
        height = (tune.pitch.log2() - PITCH_MIDDLE_LOG2).unsqueeze(1)
        voiced = tune.voiced.to(log_mel.dtype).unsqueeze(1)
        change = self.shape(torch.cat((self._standardise(log_mel), height, voiced), dim=1))
        change = MOST_DECADES * torch.tanh(change / MOST_DECADES)  # (B, T, 2 * knots)
        envelope = log_mel.transpose(1, 2) @ self.to_knots.T  # (B, T, knots) log10
        harmonic, noise = change.chunk(2, dim=2)
        return (envelope + harmonic) * math.log(10.0), (envelope + noise) * math.log(10.0)

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
        half, samples = FFT // 2, (pitch.shape[1] - 1) * MEL.hop
        wider = functional.pad(pitch.unsqueeze(1), (EDGE, EDGE), mode="replicate")[:, 0]
        before = EDGE * MEL.hop
        voice = pulses(wider, first_cycle - before * pitch[:, 0] / MEL.sample_rate)
        voice = voice[:, before - half : before + samples + half]  # (B, N + FFT)
        harmonic, breath = (log @ self.to_bins.T for log in filters)  # (B, T, 641)
        response = torch.polar(harmonic.exp(), minimum_phase(harmonic))
        shaped = self._stft(voice) * response + self._stft(NOISE_LEVEL * noise) * breath.exp()
        out = _overlap_add(torch.fft.irfft(shaped, n=FFT))
        windows = functional.pad(self.window, (MARGIN, MARGIN)).expand(1, pitch.shape[1], -1)
        inside = slice(half, half + samples)
        return out[:, inside] / _overlap_add(windows)[:, inside]

    def _standardise(self, log_mel: Tensor) -> Tensor:
        return (log_mel - self.mean[:, None]) / self.std[:, None]

    def _stft(self, padded: Tensor) -> Tensor:
        """(B, (T - 1) * 300 + 1280) to (B, T, 641)."""
        frames = padded.unfold(1, FFT, MEL.hop)[..., MARGIN : MARGIN + WINDOW] * self.window
        spectrum: Tensor = torch.fft.rfft(functional.pad(frames, (MARGIN, MARGIN)))
        return spectrum


def noise_samples(frames: int) -> int:
    """Return how much noise :meth:`SourceFilterNetwork.synthesise` filters, with its margins."""
    return (frames - 1) * MEL.hop + FFT


def _overlap_add(frames: Tensor) -> Tensor:
    """(B, T, 1280) to (B, (T - 1) * 300 + 1280)."""
    size = (1, (frames.shape[1] - 1) * MEL.hop + FFT)
    return functional.fold(frames.transpose(1, 2), size, (1, FFT), stride=(1, MEL.hop))[:, 0, 0]


def _interpolations() -> tuple[Tensor, Tensor]:
    """Return linear interpolation from mel bands to knots (128, 80), and on to bins (641, 128)."""
    ends = torch.tensor([MEL.fmin, MEL.fmax, MEL.sample_rate / 2], dtype=torch.float64)
    low, high, top = hz_to_mel(ends)
    bands = low + (high - low) * torch.arange(1, MEL.n_mels + 1) / (MEL.n_mels + 1)
    knots = torch.linspace(0.0, 1.0, KNOTS, dtype=torch.float64) * top
    bins = torch.linspace(0.0, MEL.sample_rate / 2, FFT // 2 + 1, dtype=torch.float64)
    return _hat_functions(knots, bands), _hat_functions(hz_to_mel(bins), knots)


def _hat_functions(at: Tensor, nodes: Tensor) -> Tensor:
    """Return the matrix (len(at), len(nodes)) of linear interpolation, held at both ends."""
    place = (at.clamp(nodes[0], nodes[-1]) - nodes[0]) / (nodes[1] - nodes[0])
    return (1 - (place[:, None] - torch.arange(len(nodes))).abs()).clamp(min=0).float()
