"""The two generators: faces and mel spectrograms redrawn in the style asked for.

Paper: Tables 6 (G_I) and 7 (G_A). Lineage: StarGAN v2 without its heat-map skips; StarGANv2-VC with
its F0 path. Status: STATED; the 3x3 stems (A21, the tables print 1x1) and the separate 640 -> 512
block of ``decoder="code"`` (A17) are CODE, the shortcuts in G_I's decoder UNKNOWN (A22).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.errors import ShapeError, require_shape
from xfavot.models.blocks import (
    AdaINResBlk,
    InstanceNormLReLU,
    Resample,
    ResBlk,
    encoder,
    he_init,
    widths,
)

MIDDLE_BLOCKS = 2  # of each kind at the bottleneck, STATED
AUDIO_RESAMPLES: tuple[Resample, ...] = ("half", "timepreserve", "half", "timepreserve")  # STATED
TIME_FACTOR = 4  # frames shrink by this much in G_A
F0_FEATURE_FACTOR = 4  # channels of the F0 network's features over its first width, CODE


def _encode(channels: Sequence[int], resamples: Sequence[Resample]) -> nn.Sequential:
    """Blocks down to the bottleneck, and those in it."""
    deep = channels[-1]
    middle = (ResBlk(inputs=deep, outputs=deep, norm=True) for _ in range(MIDDLE_BLOCKS))
    return nn.Sequential(*encoder(channels=channels, resamples=resamples, norm=True), *middle)


class StyledBlocks(nn.ModuleList):
    """Decoder blocks one after the other, all in one style."""

    def __init__(self, plan: Sequence[tuple[int, int, Resample]], *, style_dim: int) -> None:
        """Make a block for each entry: channels in and out, resampling."""
        super().__init__(
            AdaINResBlk(inputs=a, outputs=b, style_dim=style_dim, resample=resample)
            for a, b, resample in plan
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
        self.decode = StyledBlocks([*plan, *ups], style_dim=cfg.style_dim)
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
        require_shape("G_I input", x, (None, 3, None, None))
        require_shape("G_I style", s, (x.shape[0], self.style_dim))
        if x.shape[2] % self.factor or x.shape[3] % self.factor:
            raise ShapeError(
                f"G_I input: got {x.shape[2]} x {x.shape[3]} pixels; expected multiples of "
                f"{self.factor}; resize or pad the faces"
            )
        h = self.encode(self.stem(x))  # (B, deep, H / factor, W / factor)
        return cast(Tensor, self.head(self.decode(h, s)))  # (B, 3, H, W)


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
        self.decode = StyledBlocks([*plan, *ups], style_dim=cfg.style_dim)
        self.head = _head(channels[0], 1)
        self.apply(he_init)

    def forward(self, x: Tensor, s: Tensor, f0_features: Tensor) -> Tensor:
        """Say the source's words in a style.

        Args:
            x: (B, 1, M, T) standardised log mels, T a multiple of 4.
            s: (B, S).
            f0_features: (B, Cf, M // 8, T), the F0 network's features of the source.

        Returns:
            (B, 1, M, T) standardised log mels.

        Raises:
            ShapeError: wrong axes, or T is no multiple of 4.
        """
        require_shape("G_A input", x, (None, 1, self.mel_bins, None))
        require_shape("G_A style", s, (x.shape[0], self.style_dim))
        frames = x.shape[3]
        if frames % TIME_FACTOR or frames == 0:
            raise ShapeError(
                f"G_A input: got {frames} frames; expected a multiple of {TIME_FACTOR}; crop or "
                "pad the mel (and its F0 features) in time"
            )
        require_shape(
            "G_A F0 features", f0_features, (x.shape[0], self.f0_inputs, self.mel_bins // 8, frames)
        )
        h = self.f0_path(self.encode(self.stem(x)), f0_features)  # (B, deep + F, M / 16, T / 4)
        return cast(Tensor, self.head(self.decode(h, s)))  # (B, 1, M, T)
