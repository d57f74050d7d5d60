"""The two generators: faces and mel spectrograms redrawn in the style asked for.

Paper: Tables 6 (G_I) and 7 (G_A). Lineage: StarGAN v2 without its heat-map skips; StarGANv2-VC with
its F0 path. Status: STATED; the 3x3 stems (A21, the tables print 1x1) and the separate 640 -> 512
block of ``decoder="code"`` (A17) are CODE, the shortcuts in G_I's decoder UNKNOWN (A22).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xfavot.audio.mel import band_centres
from xfavot.config import ModelConfig
from xfavot.errors import ShapeError, require_shape
from xfavot.models.blocks import (
    AdaINResBlk,
    InstanceNormLReLU,
    Resample,
    ResBlk,
    encoder,
    full_precision,
    he_init,
    widths,
)
from xfavot.models.f0 import F0Network, F0Output, ltas_of, melody_of

MIDDLE_BLOCKS = 2  # of each kind at the bottleneck, STATED
AUDIO_RESAMPLES: tuple[Resample, ...] = ("half", "timepreserve", "half", "timepreserve")  # STATED
TIME_FACTOR = 4  # frames shrink by this much in G_A
USUAL_LEVEL = math.log2(160.0)  # log2 Hz, where the predicted level of a voice starts (A79)
F0_FEATURE_FACTOR = 4  # channels of the F0 network's features over its first width, CODE


def _encode(channels: Sequence[int], resamples: Sequence[Resample]) -> nn.Sequential:
    """Blocks down to the bottleneck, and those in it."""
    deep = channels[-1]
    middle = (ResBlk(inputs=deep, outputs=deep, norm=True) for _ in range(MIDDLE_BLOCKS))
    return nn.Sequential(*encoder(channels=channels, resamples=resamples, norm=True), *middle)


class StyledBlocks(nn.ModuleList):
    """Decoder blocks one after the other, all in one style."""

    def __init__(self, plan: Sequence[tuple[int, int, Resample]], cfg: ModelConfig) -> None:
        """Make a block for each entry: channels in and out, resampling."""
        linear = cfg.upsampling == "linear"
        super().__init__(
            AdaINResBlk(inputs=a, outputs=b, style_dim=cfg.style_dim, resample=r, linear=linear)
            for a, b, r in plan
        )

    def forward(self, h: Tensor, s: Tensor) -> Tensor:
        """Map (B, C, H, W) and styles (B, S) to what the last block gives."""
        for block in self:
            h = block(h, s)
        return h


def _head(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(InstanceNormLReLU(channels), nn.Conv2d(channels, outputs, 1))


class ImageGenerator(nn.Module):
    """G_I: a face in the style of a guidance vector.

    Paper: Table 6. Status: STATED. The net is fully convolutional: any height and width that are
    multiples of ``2 ** levels`` work.
    """

    def __init__(self, cfg: ModelConfig) -> None:
        """Make the net with `image_levels` halvings down to the bottleneck."""
        super().__init__()
        channels = widths(cfg.image_width, cfg.image_max_width, cfg.image_levels)
        deep = channels[-1]
        self.factor, self.style_dim = 2**cfg.image_levels, cfg.style_dim
        self.stem = nn.Conv2d(3, channels[0], 3, padding=1)
        resamples: list[Resample] = ["half"] * cfg.image_levels
        self.encode = _encode(channels, resamples)
        ups = zip(channels[:0:-1], channels[-2::-1], resamples, strict=True)
        plan: list[tuple[int, int, Resample]] = [(deep, deep, "none")] * MIDDLE_BLOCKS
        self.decode = StyledBlocks([*plan, *ups], cfg)
        self.head = _head(channels[0], 3)
        self.apply(he_init)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Redraw faces in a style.

        Args:
            x: (B, 3, H, W) in [-1, 1].
            s: (B, S).

        Returns:
            (B, 3, H, W), unbounded (trained towards [-1, 1]).

        Raises:
            ShapeError: wrong axes, or a side is no multiple of ``2 ** levels``.
        """
        return self.styled(self.content(x), s)

    def content(self, x: Tensor) -> Tensor:
        """What no style changes of faces (B, 3, H, W): (B, deep, H / factor, W / factor)."""
        require_shape("G_I input", x, (None, 3, None, None))
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ShapeError(
                f"G_I input: got {x.shape[2]} x {x.shape[3]} pixels; expected multiples of "
                f"{self.factor}; resize or pad the faces"
            )
        return cast(Tensor, self.encode(self.stem(x)))

    def styled(self, h: Tensor, s: Tensor) -> Tensor:
        """Draw the faces of :meth:`content` in styles (B, S): (B, 3, H, W)."""
        require_shape("G_I style", s, (h.shape[0], self.style_dim))
        return cast(Tensor, self.head(self.decode(h, s)))


class F0Path(nn.Module):
    """Brings F0 features to the bottleneck of G_A and stacks them under the content.

    Paper: Table 7 (the 128 F0 channels). Status: channels STATED, layers CODE.
    """

    def __init__(self, *, inputs: int, outputs: int) -> None:
        """Make the path from `inputs` F0 feature channels to `outputs`."""
        super().__init__()
        self.block = ResBlk(inputs=inputs, outputs=outputs, resample="half", norm=True)

    def forward(self, content: Tensor, f0_features: Tensor) -> Tensor:
        """Stack (B, C, m, t) and the features (B, Cf, 2m, 4t), reduced, to (B, C + F, m, t)."""
        reduced = F.adaptive_avg_pool2d(
            self.block(f0_features), (content.shape[2], content.shape[3])
        )
        return torch.cat([content, reduced.to(content.dtype)], dim=1)


class Excitation(nn.Module):
    """Draws the harmonics of a melody into the last maps of G_A (A79).

    A voiced frame of pitch f has ripples along the bands, ``cos(2 pi c / f)`` at centre c, which
    fade where a band is too wide to hold one harmonic alone.
    """

    centres: Tensor
    spacing: Tensor

    def __init__(self, channels: int) -> None:
        """Make the layers for maps of `channels`."""
        super().__init__()
        centres, spacing = (hz.float() for hz in band_centres())
        self.register_buffer("centres", centres[:, None], persistent=False)  # (M, 1) Hz
        self.register_buffer("spacing", spacing[:, None], persistent=False)
        self.mix = nn.Conv2d(channels + 2, channels, 3, padding=1)

    def forward(self, h: Tensor, melody: Tensor, level: Tensor) -> Tensor:
        """Add to maps (B, C, M, T) what a melody (B, 2, T) about a level (B,) log2 Hz asks for."""
        with torch.no_grad():
            octaves, voiced = melody.float().unsqueeze(2).unbind(1)  # (B, 1, T) each
            hz = torch.exp2(octaves + level.float()[:, None, None])
            ripples = torch.cos(2 * math.pi * self.centres / hz)  # (B, M, T)
            ripples = voiced * ripples * torch.sinc(self.spacing / hz).square()
            drawn = torch.stack((ripples, (2 * voiced - 1).expand_as(ripples)), 1)
        return cast(Tensor, h + self.mix(torch.cat((h, drawn.to(h.dtype)), 1)))


class AudioGenerator(nn.Module):
    """G_A: speech in the style of a guidance vector, with the words and the melody of the source.

    Paper: Table 7. Status: STATED; `decoder` chooses between the printed table and the ancestors'
    code, which adds one 640 -> 512 block (the text says four intermediate blocks).
    """

    def __init__(self, cfg: ModelConfig) -> None:
        """Make the net; `audio_decoder` is "code" or "table7"."""
        super().__init__()
        channels = widths(cfg.audio_width, cfg.audio_max_width, len(AUDIO_RESAMPLES))
        deep = channels[-1]
        joint = deep + cfg.f0_channels
        self.mel_bins, self.style_dim = cfg.mel_bins, cfg.style_dim
        self.f0_inputs = F0_FEATURE_FACTOR * cfg.f0_width
        self.stem = nn.Conv2d(1, channels[0], 3, padding=1)
        self.encode = _encode(channels, AUDIO_RESAMPLES)
        self.f0_path = F0Path(inputs=self.f0_inputs, outputs=cfg.f0_channels)
        plan: list[tuple[int, int, Resample]] = [(joint, joint, "none")] * MIDDLE_BLOCKS
        if cfg.audio_decoder == "code":
            plan.append((joint, deep, "none"))
        first = [plan[-1][1], *channels[-2:0:-1]]  # after it as many channels as in the encoder
        ups = zip(first, channels[-2::-1], AUDIO_RESAMPLES[::-1], strict=True)
        self.decode = StyledBlocks([*plan, *ups], cfg)
        self.melody = cfg.melody
        self.level = nn.Linear(cfg.style_dim, 1) if cfg.melody else None
        self.excite = Excitation(channels[0]) if cfg.melody else None
        self.head = _head(channels[0], 1)
        self.ltas = nn.Linear(cfg.style_dim, cfg.mel_bins) if cfg.ltas else None
        self.apply(he_init)
        for one in (self.level, self.ltas):
            if one is not None:
                nn.init.zeros_(one.weight)

    def ltas_of(self, s: Tensor) -> Tensor:
        """Predict the average spectrum that styles (B, S) stand for: (B, M), standardised (A95)."""
        if self.ltas is None:
            raise ShapeError("this G_A reads no average spectrum; expected model.ltas: true")
        with full_precision(s.device):
            found: Tensor = self.ltas(s.to(self.ltas.weight.dtype))
        return found

    def level_of(self, s: Tensor, *, held: bool = False) -> Tensor:
        """Predict the level of the pitch that styles (B, S) stand for: (B,) log2 Hz (A79).

        No gradient reaches the predicting layer where it is `held`.
        """
        if self.level is None:
            raise ShapeError("this G_A has no explicit melody; expected model.melody: true")
        own = self.level.weight, self.level.bias
        weight, bias = (p.detach() if held else p for p in own)
        with full_precision(s.device):
            return USUAL_LEVEL + F.linear(s.to(weight.dtype), weight, bias).squeeze(-1)

    def takes(self, of: F0Output, level: Tensor | None = None) -> tuple[Tensor, ...]:
        """What :meth:`forward` takes of the F0 of its source: features, and the melody (A79).

        Of a part of a clip, the `level` (B,) is to be that of the whole.
        """
        return (of.features, melody_of(of, level)) if self.melody else (of.features,)

    def hear(self, f0: F0Network, x: Tensor, level: Tensor | None = None) -> tuple[Tensor, ...]:
        """What :meth:`takes` gives for mels (B, 1, M, T), with no more work than it needs."""
        return self.takes(f0(x), level) if self.melody else (f0.features(x),)

    def forward(
        self,
        x: Tensor,
        s: Tensor,
        f0_features: Tensor,
        melody: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Tensor:
        """Say the source's words in a style.

        Args:
            x: (B, 1, M, T) standardised log mels, T a multiple of 4.
            s: (B, S).
            f0_features: (B, Cf, M // 8, T), the F0 network's features of the source.
            melody: (B, 2, T) of :func:`xfavot.models.f0.melody_of`, for a net that takes it.
            level: (B,) log2 Hz that the melody is about; predicted from the style if left out.

        Returns:
            (B, 1, M, T) standardised log mels.

        Raises:
            ShapeError: wrong axes, or T is no multiple of 4.
        """
        return self.styled(self.content(x, f0_features), s, melody, level)

    def content(self, x: Tensor, f0_features: Tensor) -> Tensor:
        """What no style changes of mels and F0 features: (B, deep + F, M / 16, T / 4)."""
        require_shape("G_A input", x, (None, 1, self.mel_bins, None))
        frames = x.shape[3]
        if frames % TIME_FACTOR or frames == 0:
            raise ShapeError(
                f"G_A input: got {frames} frames; expected a multiple of {TIME_FACTOR}; crop or "
                "pad the mel (and its F0 features) in time"
            )
        require_shape(
            "G_A F0 features", f0_features, (x.shape[0], self.f0_inputs, self.mel_bins // 8, frames)
        )
        return cast(Tensor, self.f0_path(self.encode(self.stem(x)), f0_features))

    def styled(
        self, h: Tensor, s: Tensor, melody: Tensor | None = None, level: Tensor | None = None
    ) -> Tensor:
        """Say what :meth:`content` holds in styles (B, S): (B, 1, M, T); see :meth:`forward`."""
        require_shape("G_A style", s, (h.shape[0], self.style_dim))
        frames = TIME_FACTOR * h.shape[3]
        h = self.decode(h, s)  # (B, width, M, T)
        if self.excite is not None:
            melody = h.new_empty(0) if melody is None else melody
            require_shape("G_A melody", melody, (s.shape[0], 2, frames))
            level = self.level_of(s).detach() if level is None else level
            h = self.excite(h, melody, level)
        made: Tensor = self.head(h)  # (B, 1, M, T)
        if self.ltas is None or melody is None:
            return made
        shift = self.ltas_of(s).detach() - ltas_of(made, melody[:, 1])
        return made + shift[:, None, :, None].to(made.dtype)
