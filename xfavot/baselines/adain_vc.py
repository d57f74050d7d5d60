"""AdaIN-VC: one-shot voice conversion by instance normalisation.

Source: Chou, Yeh, Lee, "One-shot voice conversion by separating speaker and content representations
with instance normalization", Interspeech 2019, and the configuration that its authors published;
in the paper the compared system of Tables 3 and 5 (App. F). Instance norm takes the speaker out of
the content; what the decoder puts back by adaptive instance norm comes from the speaker encoder.
Layers carry the names of the published checkpoints, so that these load (:func:`published`).

Sizes: 9,040,512 parameters with the 512 bands of the published features, 4,892,880 with 80 bands.
Preset `mini` is ours: the package's mel-spectrogram and vocoder, narrower layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.audio.io import Wave
from xfavot.audio.mel import MEL, istft, mel_filterbank, stft
from xfavot.baselines.system import System, Waveform
from xfavot.config import RunConfig, Section
from xfavot.convert.converter import Converter, Task
from xfavot.data.batches import Batch, Batches, reflected
from xfavot.errors import WeightsError, refusing
from xfavot.strict import option
from xfavot.training.speech import generator_of
from xfavot.weights import external

# The published features: mel-spectrogram of pre-emphasised, trimmed speech, in decibels from 0 to 1


QUIET = 10**-1.5  # of the loudest power, -15 dB: quieter ends are trimmed
TRIM_WINDOW, TRIM_HOP = 2048, 512  # samples
EMPHASIS = 0.97
BANDS, FMAX_HZ = 512, 12_000.0  # on Slaney's scale from 0 Hz, of unit area; FFT as in MEL
FLOOR = 1e-5  # magnitude
RANGE_DB, TOP_DB = 100.0, 20.0  # 0 is -80 dB, 1 is 20 dB
LEAST = 1e-8  # of a value between 0 and 1, of a variance, and of what is divided by
MOST_UTTERANCES = 5_000  # that mean and deviation are taken from, CODE
ITERATIONS = 100  # of Griffin-Lim's algorithm
MEMORY = 1000  # samples after which a click's de-emphasis is below float32


class PublishedMel(nn.Module):
    """The features of the published checkpoints, at 24 kHz; mean and deviation are buffers."""

    mean: Tensor
    std: Tensor
    bank: Tensor

    def __init__(self) -> None:
        """Make the filters; nothing is standardised yet."""
        super().__init__()
        bank = mel_filterbank(bands=BANDS, fmin=0.0, fmax=FMAX_HZ)  # (M, F)
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("std", torch.ones(BANDS))

    def trim(self, wave: Wave) -> tuple[int, int]:
        """Find what is louder than 15 dB below the loudest; all of it, if that is too short."""
        power = functional.pad(torch.from_numpy(wave).square(), [TRIM_WINDOW // 2] * 2)[None]
        power = functional.avg_pool1d(power, TRIM_WINDOW, TRIM_HOP)[0]
        loud = (power > QUIET * power.max()).nonzero().flatten().tolist() or [0]
        start, stop = loud[0] * TRIM_HOP, min((loud[-1] + 1) * TRIM_HOP, len(wave))
        return (start, stop) if stop - start > MEL.n_fft else (0, len(wave))

    def levels(self, wave: Wave) -> Tensor:
        """(M, T) decibels of (N,), brought to 0 to 1."""
        y = torch.from_numpy(wave).to(self.bank.device)
        y = torch.cat([y[:1], y[1:] - EMPHASIS * y[:-1]])
        db = 20.0 * (self.bank @ stft(y).abs()).clamp(min=FLOOR).log10()
        return ((db - TOP_DB + RANGE_DB) / RANGE_DB).clamp(LEAST, 1.0)

    def fit(self, waves: Iterable[Wave]) -> None:
        """Take mean and deviation of every band over all frames."""
        count, total, square = 0, torch.zeros(()), torch.zeros(())
        for wave in waves:
            x = self.levels(wave[slice(*self.trim(wave))]).double()
            count, total, square = count + x.shape[1], total + x.sum(1), square + x.square().sum(1)
        mean = total / count
        self.mean.copy_(mean)
        self.std.copy_((square / count - mean.square()).clamp(min=LEAST).sqrt())

    def forward(self, wave: Wave) -> Tensor:
        """Turn (N,), trimmed, into (M, T), zero mean and unit deviation a band."""
        return (self.levels(wave) - self.mean[:, None]) / self.std[:, None]

    def segment(self, wave: Wave, frames: int, rng: torch.Generator) -> Tensor:
        """(M, frames) of a random place of a whole clip."""
        return segment(self(wave[slice(*self.trim(wave))]), frames, rng)

    def sound(self, x: Tensor, samples: int) -> Wave:
        """Invert (M, T): a normalised transpose of the filters, then Griffin-Lim's algorithm."""
        x = x[:, : samples // MEL.hop + 1]
        levels = (x * self.std[:, None] + self.mean[:, None]).clamp(0.0, 1.0)
        mel = 10.0 ** ((levels * RANGE_DB - RANGE_DB + TOP_DB) / 20.0)
        sums = (self.bank @ self.bank.T).sum(0)
        wanted = self.bank.T @ (mel / sums.where(sums > LEAST, torch.ones_like(sums))[:, None])
        wave = phases(wanted, (x.shape[1] - 1) * MEL.hop, stft, istft)
        wave = deemphasised(functional.pad(wave, (0, max(samples - len(wave), 0))))
        return wave[:samples].cpu().numpy()


def segment(x: Tensor, frames: int, rng: torch.Generator) -> Tensor:
    """(C, frames) of a random place of (C, T); a short clip goes on by reflection."""
    first = int(torch.randint(max(x.shape[1] - frames, 0) + 1, (1,), generator=rng))
    x = x[:, first : first + frames]
    return x[:, torch.from_numpy(reflected(x.shape[1], frames)).to(x.device)]


def phases(
    wanted: Tensor, samples: int, forth: Callable[[Tensor], Tensor], back: Callable[..., Tensor]
) -> Tensor:
    """Find a sound (N,) whose spectrum has these magnitudes (F, T), by Griffin-Lim's algorithm."""
    spectrum = wanted + 0j
    for _ in range(ITERATIONS):
        spectrum = forth(back(spectrum, samples))
        spectrum = wanted * spectrum / spectrum.abs().clamp(min=LEAST)
    return back(spectrum, samples)


def deemphasised(wave: Tensor) -> Tensor:
    """Undo the emphasis of (N,)."""
    kernel = EMPHASIS ** torch.arange(MEMORY - 1, -1, -1, device=wave.device)
    return functional.conv1d(functional.pad(wave, (MEMORY - 1, 0))[None, None], kernel[None, None])[
        0, 0
    ]


# The networks. Everywhere: (B, channels, T), ReLU, reflection at the ends, no dropout


BANK = 8  # widest kernel of the bank of convolutions
KERNEL = 5
STRIDES = (1, 2, 1, 2, 1, 2)  # of the encoders' blocks; the decoder's enlarge the other way round
DENSE = 6  # blocks after the mean over time


class Conv(nn.Conv1d):
    """A convolution over time that keeps ceil(T / stride) frames."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T)."""
        size = self.kernel_size[0]
        return super().forward(functional.pad(x, (size // 2, (size - 1) // 2), mode="reflect"))


def convs(width: int, outputs: Iterable[tuple[int, int]]) -> nn.ModuleList:
    """Make a convolution of kernel 5 for each number of outputs and stride."""
    return nn.ModuleList(Conv(width, out, KERNEL, stride) for out, stride in outputs)


class Encoder(nn.Module):
    """What both encoders share: a bank of convolutions and six residual blocks, T to T / 8."""

    def __init__(self, bands: int, width: int, *, norm: bool) -> None:
        """Make the layers; `norm` is instance norm after each convolution but the bank's."""
        super().__init__()
        self.norm = nn.InstanceNorm1d(width) if norm else nn.Identity()
        self.conv_bank = nn.ModuleList(Conv(bands, width, k + 1) for k in range(BANK))
        self.in_conv_layer = Conv(bands + BANK * width, width, 1)
        self.first_conv_layers = convs(width, ((width, 1) for _ in STRIDES))
        self.second_conv_layers = convs(width, ((width, stride) for stride in STRIDES))

    def trunk(self, x: Tensor) -> Tensor:
        """Map (B, 1, bands, T) to (B, width, ceil(T / 8))."""
        x = x[:, 0]
        every = [*(layer(x).relu() for layer in self.conv_bank), x]
        h: Tensor = self.norm(self.in_conv_layer(torch.cat(every, dim=1))).relu()
        for n, stride in enumerate(STRIDES):
            y = self.norm(self.first_conv_layers[n](h)).relu()
            y = self.norm(self.second_conv_layers[n](y)).relu()
            h = y + functional.avg_pool1d(h, stride, ceil_mode=True)
        return h


class SpeakerEncoder(Encoder):
    """Who speaks: the trunk without norm, the mean over time, six dense blocks."""

    def __init__(self, bands: int, width: int) -> None:
        """Make the layers."""
        super().__init__(bands, width, norm=False)
        self.first_dense_layers, self.second_dense_layers = (
            nn.ModuleList(nn.Linear(width, width) for _ in range(DENSE)) for _ in range(2)
        )
        self.output_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, bands, T) to (B, width)."""
        h = self.trunk(x).mean(2)
        for n in range(DENSE):
            y = self.first_dense_layers[n](h).relu()
            h = h + self.second_dense_layers[n](y).relu()
        out: Tensor = self.output_layer(h)
        return out


class ContentEncoder(Encoder):
    """What is said: the trunk with instance norm, then mean and log variance of a Gaussian."""

    def __init__(self, bands: int, width: int) -> None:
        """Make the layers."""
        super().__init__(bands, width, norm=True)
        self.mean_layer, self.std_layer = Conv(width, width, 1), Conv(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 1, bands, T) to two times (B, width, ceil(T / 8))."""
        h = self.trunk(x)
        return self.mean_layer(h), self.std_layer(h)


class Decoder(nn.Module):
    """Content and style to a spectrogram: six blocks, twelve adaptive instance norms."""

    def __init__(self, bands: int, width: int) -> None:
        """Make the layers."""
        super().__init__()
        self.in_conv_layer = Conv(width, width, 1)
        self.factors = STRIDES[::-1]
        self.first_conv_layers = convs(width, ((width, 1) for _ in self.factors))
        self.second_conv_layers = convs(width, ((width * factor, 1) for factor in self.factors))
        self.conv_affine_layers = nn.ModuleList(
            nn.Linear(width, 2 * width) for _ in range(2 * len(self.factors))
        )
        self.out_conv_layer = Conv(width, bands, 1)

    def forward(self, z: Tensor, style: Tensor) -> Tensor:
        """Map (B, width, T') and (B, width) to (B, bands, 8 T')."""
        h = functional.instance_norm(self.in_conv_layer(z)).relu()
        for n, factor in enumerate(self.factors):
            y = self._styled(self.first_conv_layers[n](h), style, 2 * n)
            y = self.second_conv_layers[n](y).unflatten(1, (-1, factor))  # (B, C, factor, T)
            y = self._styled(y.transpose(2, 3).flatten(2), style, 2 * n + 1)
            h = y + h.repeat_interleave(factor, dim=2)
        out: Tensor = self.out_conv_layer(h)
        return out

    def _styled(self, x: Tensor, style: Tensor, layer: int) -> Tensor:
        offset, scale = self.conv_affine_layers[layer](style)[:, :, None].chunk(2, dim=1)
        y: Tensor = functional.instance_norm(x) * scale + offset
        return y.relu()


NETS = {"speaker_encoder": SpeakerEncoder, "content_encoder": ContentEncoder, "decoder": Decoder}


# The system: its loss and its conversion


class SystemConfig(Section):
    """Sizes and weights; the defaults are the published ones."""

    bands: int = option(BANDS, choices=(BANDS, MEL.n_mels))  # published features, or the project's
    width: int = option(128, least=1)  # of all layers, of content and style too
    rec: float = option(10.0, least=0)  # weight of the reconstruction
    kl: float = option(1.0, least=0)  # weight of the divergence, in the end
    kl_steps: int = option(20_000, least=1)  # over which it grows from 0, linearly


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence of Gaussians from the normal one, the mean over all values.

    Args:
        mean, log_variance: (B, C, T), unitless.
    """
    return 0.5 * (log_variance.exp() + mean.square() - 1.0 - log_variance).mean()


class AdaINVC(System):
    """AdaIN-VC as it is trained: a voice is taken apart and put together again."""

    title, tasks, settings_of = "AdaIN-VC", (Task.A2A,), SystemConfig
    voices, guides = "source_audio", ""  # roles of a batch: what is made again, and after what

    def __init__(self, settings: SystemConfig, cfg: RunConfig) -> None:
        """Make the networks and, for their number of bands, the published features."""
        super().__init__(settings, cfg)
        self.frames = cfg.model.mel_frames
        self.features = PublishedMel() if settings.bands == BANDS else None
        sizes = settings.bands, settings.width
        self.net = nn.ModuleDict({name: network(*sizes) for name, network in NETS.items()})

    def begin(self, batches: Batches, conversion: Converter | None, *, new: bool) -> None:
        """Take mean and deviation of the published features over some clips."""
        if new and self.features is not None:
            rows = islice(batches.drawn(self.seed), MOST_UTTERANCES)
            self.features.fit(map(batches.waveform, rows))

    def losses(self, batch: Batch, number: int, waveform: Waveform) -> dict[str, Tensor]:
        """L1 between a voice and its reconstruction, and the divergence of its content."""
        role, rng = getattr(batch, self.voices), generator_of(self.seed, number)
        x = role.x  # (B, 1, M, T)
        if self.features is not None:
            waves = map(waveform, role.row.tolist())
            x = torch.stack([self.features.segment(w, self.frames, rng) for w in waves])[:, None]
        mean, log_variance = self.net["content_encoder"](x)
        noise = torch.randn(mean.shape, generator=rng).to(mean.device)
        style = self.embed(getattr(batch, self.guides).x if self.guides else x)
        made = self.net["decoder"](mean + (0.5 * log_variance).exp() * noise, style)
        rec = (made[..., : x.shape[3]] - x[:, 0]).abs().mean()
        kl, share = divergence(mean, log_variance), min(number / self.settings.kl_steps, 1.0)
        loss = self.settings.rec * rec + share * self.settings.kl * kl
        return {"loss": loss, "rec": rec, "kl": kl}

    def embed(self, x: Tensor) -> Tensor:
        """Encode the speaker of (B, 1, M, T): (B, S)."""
        style: Tensor = self.net["speaker_encoder"](x)
        return style

    def convert(self, x: Tensor, style: Tensor) -> Tensor:
        """Convert (1, 1, M, T) by the mean of its content and a style (1, S)."""
        content, _ = self.net["content_encoder"](x)
        made: Tensor = self.net["decoder"](content, style)
        return made[:, None, :, : x.shape[3]]


def published(cfg: RunConfig, weights: Path) -> AdaINVC:
    """Open the checkpoint that the authors published.

    Args:
        cfg: a run, which it is to be part of.
        weights: their state dictionary, `vctk_model.ckpt`. Beside it lies `attr.npz`, mean and
            deviation of their features: they publish a pickle, which can execute anything and is
            never opened here.

    Raises:
        WeightsError: a file is missing, damaged, a pickle, or of other networks; keys that are
            missing or too many are named.
    """
    advice = (
        "expected the published networks of 512 bands, and beside them attr.npz with arrays mean "
        "and std; their attr.pkl is a pickle, which may run any program: where you trust it, turn "
        "it into numbers once: numpy.savez('attr.npz', **pickle.load(open('attr.pkl', 'rb')))"
    )
    statistics, system = weights.with_name("attr.npz"), AdaINVC(SystemConfig(), cfg)
    with (
        refusing(Exception, WeightsError, f"{statistics} cannot be used", advice),
        np.load(statistics, allow_pickle=False) as kept,
    ):
        known = {name: torch.from_numpy(kept[name]).float() for name in ("mean", "std")}
        if not bool((known["std"] > 0).all()):
            raise ValueError("a deviation is not positive")
        system.features.load_state_dict(known)
    expected = system.net.state_dict()
    system.net.load_state_dict(external.read_state(weights, expected=expected, advice=advice))
    return system
