"""F0 network: joint pitch and voicing detection on the mel-spectrogram (JDC), frozen in the GAN.

Lineage: the joint detection and classification network of Kum & Nam (2019) as StarGANv2-VC uses it
(dossier, section 7). Up to the "GAN feature", which G_A takes as its F0 input, the layers and the
parameter count (1,928,256 at width 64) are the lineage's.

Deviations (A36): any number of frames instead of a fixed 192; the voicing head reads the
classifier's BiLSTM instead of a second one; the pitch is a mean over classes near the likeliest,
gated by the probability of voicing, where Kum & Nam take a class and StarGANv2-VC `abs()` of a
linear output; frozen means `eval()`, so neither dropout nor batch statistics are live.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import require_shape

if TYPE_CHECKING:
    from xfavot.config import ModelConfig

PITCH_MIN_HZ = 55.0
PITCH_OCTAVES = 4.0  # 55 to 880 Hz
PITCH_CLASSES = 160  # of 30 cents
CLASSES_PER_OCTAVE = (PITCH_CLASSES - 1) / PITCH_OCTAVES
PITCH_NEIGHBOURS = 4  # classes either side of the likeliest that are averaged
GLIDE_COST = 1 / 8  # nats a class of 30 cents between two frames, when a whole clip is tracked
SWITCH_COST = 3.0  # nats for the voice to set in or to stop
LEAKY_SLOPE = 0.01
UNVOICED = 0.01  # weight of frames without voicing in the average spectrum
HALVINGS = 3  # of the mel axis, 80 to 10
POOL_BEFORE_RECURRENCE = 4  # of the mel axis


@dataclass(frozen=True, slots=True)
class F0Output:
    """What :class:`F0Network` says of a mel-spectrogram.

    Attributes:
        f0: (B, T) Hz, >= 0: the pitch times the probability of voicing, so about 0 where unvoiced.
        voicing: (B, T) logits of being voiced.
        features: (B, 4 * f0_width, mel_bins // 8, T), what :meth:`F0Network.features` returns.
        pitch: (B, T) Hz in [55, 880], the pitch whether voiced or not.
        classes: (B, T, 160) logits of the classes of pitch.
    """

    f0: Tensor
    voicing: Tensor
    features: Tensor
    pitch: Tensor
    classes: Tensor


class PoolingBlock(nn.Module):
    """Residual block that first halves the mel axis: BN, LReLU, max pooling, two convolutions."""

    def __init__(self, width_in: int, width_out: int) -> None:
        """Build the layers; see the class."""
        super().__init__()
        self.norm = nn.BatchNorm2d(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(width_in, width_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, M, T) to (B, C_out, M // 2, T)."""
        x = functional.max_pool2d(functional.leaky_relu(self.norm(x), LEAKY_SLOPE), (2, 1))
        residual = functional.leaky_relu(self.norm1(self.conv1(x)), LEAKY_SLOPE)
        out: Tensor = self.conv2(residual) + self.shortcut(x)
        return out


class F0Network(nn.Module):
    """JDC: convolutions over (mel, time), then a BiLSTM over time with a pitch and a voicing head.

    Args:
        f0_width: channels after the stem; the blocks have 2, 3 and 4 times as many.
        mel_bins: bands of the mel-spectrogram, a multiple of 32.
        dropout: probability on the pooled features while training.

    `input_scale` and `input_shift` (mel_bins,) are ones and zeros unless the network was trained
    with other statistics of the mel-spectrogram than it is used with (`weights/`).
    """

    input_scale: Tensor
    input_shift: Tensor

    def __init__(self, *, f0_width: int = 64, mel_bins: int = 80, dropout: float = 0.2) -> None:
        """Build the layers; see the class."""
        super().__init__()
        self.register_buffer("input_scale", torch.ones(mel_bins))
        self.register_buffer("input_shift", torch.zeros(mel_bins))
        w = f0_width
        self.f0_width, self.mel_bins = f0_width, mel_bins
        self.stem = nn.Sequential(
            nn.Conv2d(1, w, 3, padding=1, bias=False),
            nn.BatchNorm2d(w),
            nn.LeakyReLU(LEAKY_SLOPE),
            nn.Conv2d(w, w, 3, padding=1, bias=False),
        )
        self.blocks = nn.Sequential(
            PoolingBlock(w, 2 * w), PoolingBlock(2 * w, 3 * w), PoolingBlock(3 * w, 4 * w)
        )
        self.norm = nn.BatchNorm2d(4 * w)
        self.dropout = nn.Dropout(dropout)
        rows = mel_bins // 2**HALVINGS // POOL_BEFORE_RECURRENCE
        self.recurrent = nn.LSTM(4 * w * rows, 4 * w, batch_first=True, bidirectional=True)
        self.pitch_head = nn.Linear(8 * w, PITCH_CLASSES)
        self.voicing_head = nn.Linear(8 * w, 1)

    @classmethod
    def from_config(cls, model: ModelConfig) -> F0Network:
        """Build with the widths of a run."""
        return cls(mel_bins=model.mel_bins, f0_width=model.f0_width)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments that build it anew."""
        return {"mel_bins": self.mel_bins, "f0_width": self.f0_width}

    def train(self, mode: bool = True) -> F0Network:
        """Switch dropout and batch statistics; the BiLSTM has neither and stays as it is.

        cuDNN refuses a backward pass through a recurrent layer in evaluation mode, and the loss
        L_f0 needs one through the frozen network.
        """
        super().train(mode)
        self.recurrent.train()
        return self

    def features(self, x: Tensor) -> Tensor:
        """Return the "GAN feature", without running the recurrent part.

        Args:
            x: (B, 1, mel_bins, T) standardised log-mel-spectrogram, any T >= 1.

        Returns:
            (B, 4 * f0_width, mel_bins // 8, T).

        Raises:
            ShapeError: x has other axes.
        """
        require_shape("mel of the F0 network", x, (None, 1, self.mel_bins, None))
        x = x * self.input_scale[:, None] + self.input_shift[:, None]
        x = self.blocks(self.stem(x))  # (B, 4w, M / 8, T)
        return functional.leaky_relu(self.norm(x), LEAKY_SLOPE)

    def forward(self, x: Tensor) -> F0Output:
        """Detect pitch and voicing in every frame.

        Args:
            x: (B, 1, mel_bins, T) standardised log-mel-spectrogram, any T >= 1.

        Returns:
            F0, voicing, features and pitch; F0 and pitch in Hz.

        Raises:
            ShapeError: x has other axes.
        """
        features = self.features(x)
        pooled = functional.max_pool2d(self.dropout(features), (POOL_BEFORE_RECURRENCE, 1))
        sequence = pooled.flatten(1, 2).transpose(1, 2)  # (B, T, 4w * M / 32)
        hidden, _ = self.recurrent(sequence)  # (B, T, 8w)
        classes = self.pitch_head(hidden)  # (B, T, classes)
        pitch = pitch_of(classes)
        voicing = self.voicing_head(hidden).squeeze(-1)
        return F0Output(torch.sigmoid(voicing) * pitch, voicing, features, pitch, classes)


def level_of(out: F0Output) -> Tensor:
    """Mean of log2 of the pitch in Hz (B,), weighted by the probability of voicing."""
    voiced = torch.sigmoid(out.voicing)
    return (voiced * out.pitch.log2()).sum(-1) / voiced.sum(-1).clamp(min=1e-3)


def ltas_of(mel: Tensor, voiced: Tensor) -> Tensor:
    """Long-term average spectrum of voices, in standardised units of the log mel (A95).

    Args:
        mel: (B, 1, M, T), standardised.
        voiced: (B, T), the probability of voicing; where nothing is voiced, all frames count.

    Returns:
        (B, M), the mean of every band over the voiced frames.
    """
    weight = voiced.float().unsqueeze(1) + UNVOICED
    return (mel.float().squeeze(1) * weight).sum(-1) / weight.sum(-1)


def melody_of(out: F0Output, level: Tensor | None = None) -> Tensor:
    """What a generator with explicit melody is told of its source (A79), without gradient.

    Args:
        out: of the network.
        level: (B,) log2 Hz; that of :func:`level_of` if left out.

    Returns:
        (B, 2, T): octaves above the level, and the probability of voicing.
    """
    level = level_of(out) if level is None else level
    return torch.stack((out.pitch.log2() - level[:, None], torch.sigmoid(out.voicing)), 1).detach()


def pitch_of(classes: Tensor, middle: Tensor | None = None) -> Tensor:
    """Average the classes near one of them by their probability.

    Args:
        classes: (..., 160) logits.
        middle: (...) that class; the likeliest if left out.

    Returns:
        (...) Hz, differentiable.
    """
    number = torch.arange(PITCH_CLASSES, device=classes.device)
    middle = classes.argmax(-1) if middle is None else middle
    near = (number - middle.unsqueeze(-1)).abs() <= PITCH_NEIGHBOURS
    share = classes.masked_fill(~near, -torch.inf).softmax(-1)
    return PITCH_MIN_HZ * torch.exp2((share * number).sum(-1) / CLASSES_PER_OCTAVE)


def track(out: F0Output) -> Tensor:
    """Follow the likeliest pitch through a whole clip, for analysis; the losses do not use it.

    The path (Viterbi 1967) runs through the classes and one state without voice, so that single
    frames do not leap by an octave and doubtful ones count as unvoiced.

    Args:
        out: of the network.

    Returns:
        (B, T) Hz, 0 where unvoiced.
    """
    voiced = out.classes.log_softmax(-1) + functional.logsigmoid(out.voicing).unsqueeze(-1)
    unvoiced = functional.logsigmoid(-out.voicing)  # (B, T)
    number = torch.arange(PITCH_CLASSES, device=voiced.device)
    glide = GLIDE_COST * (number[:, None] - number).abs()
    best, rest = voiced[:, 0], unvoiced[:, 0]
    sources = []  # where every state, the last without voice, came from
    for t in range(1, voiced.shape[1]):
        going, source = (best[:, :, None] - glide).max(1)  # (B, classes)
        setting_in = (rest - SWITCH_COST).unsqueeze(1)
        stopping, last = best.max(1)
        stays = rest >= stopping - SWITCH_COST
        source = torch.where(setting_in > going, PITCH_CLASSES, source)
        sources.append(torch.cat((source, torch.where(stays, PITCH_CLASSES, last)[:, None]), 1))
        rest = torch.maximum(rest, stopping - SWITCH_COST) + unvoiced[:, t]
        best = torch.maximum(going, setting_in) + voiced[:, t]
    state = torch.cat((best, rest[:, None]), 1).argmax(1)
    path = [state]
    for source in reversed(sources):
        state = source.gather(1, state[:, None])[:, 0]
        path.append(state)
    places = torch.stack(path[::-1], 1)  # (B, T)
    pitch = pitch_of(out.classes, places.clamp(max=PITCH_CLASSES - 1))
    return torch.where(places < PITCH_CLASSES, pitch, torch.zeros_like(pitch))


def class_of(pitch: Tensor) -> Tensor:
    """Place a pitch (...) in Hz on the scale of the classes, between two of them as a rule."""
    return (pitch.clamp(min=PITCH_MIN_HZ) / PITCH_MIN_HZ).log2() * CLASSES_PER_OCTAVE
