"""Content network: a CTC recogniser on the mel-spectrogram whose features give L_sc, frozen.

Lineage: the front end of AuxiliaryASR as StarGANv2-VC uses it (dossier, section 7): mel to 40
cepstral coefficients by a fixed cosine transform, a strided convolution, dilated residual blocks,
a 1x1 convolution to the features. The parameter count up to the features (7,204,224 at width 256,
128 channels, depth 6) is the lineage's.

Deviations (A37): characters instead of phonemes, the CTC head alone (no
attention decoder), the cosine transform taken of the standardised mel.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import require_shape

if TYPE_CHECKING:
    from xfavot.config import ModelConfig

BLANK = 0  # index of the CTC blank in SYMBOLS
SYMBOLS = ("", " ", *"abcdefghijklmnopqrstuvwxyz", "'")
CEPSTRA = 40
DILATIONS = (1, 3, 9)
GROUPS = 8
KERNEL = 7
STRIDE = 2
# From this width on: depth and dropout. The lineage's six blocks and dropout of 0.2 are for width
# 256; narrow networks underfit with so much dropout and do not need so many blocks.
SHAPES = {256: (6, 0.2), 128: (4, 0.1), 64: (3, 0.05), 0: (1, 0.0)}


def cosine_transform(coefficients: int, bands: int) -> Tensor:
    """Return the orthonormal DCT-II as a matrix (coefficients, bands)."""
    order = torch.arange(coefficients, dtype=torch.float64).unsqueeze(1)
    place = torch.arange(bands, dtype=torch.float64) + 0.5
    matrix = math.sqrt(2.0 / bands) * torch.cos(math.pi / bands * order * place)
    matrix[0] /= math.sqrt(2.0)
    return matrix.float()


class DilatedPair(nn.Module):
    """Residual pair of convolutions over time, the first dilated; each with ReLU and dropout."""

    def __init__(self, width: int, *, dilation: int, dropout: float) -> None:
        """Build the layers; see the class."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.GroupNorm(GROUPS, width),
            nn.Dropout(dropout),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (B, C, T)."""
        out: Tensor = x + self.layers(x)
        return out


class ContentNetwork(nn.Module):
    """Recogniser of characters; its features carry what is said, at half the frame rate.

    Args:
        content_width: channels of the residual blocks, a multiple of 8.
        content_channels: channels of the features.
        depth: number of residual blocks of three dilated pairs each; 0 is that of the width.
        mel_bins: bands of the mel-spectrogram.

    `input_scale` and `input_shift` (mel_bins,) are ones and zeros unless the network was trained
    with other statistics of the mel-spectrogram than it is used with (`weights/`).
    """

    to_cepstra: Tensor
    input_scale: Tensor
    input_shift: Tensor

    def __init__(
        self,
        *,
        content_width: int = 256,
        content_channels: int = 128,
        depth: int = 0,
        mel_bins: int = 80,
    ) -> None:
        """Build the layers; see the class."""
        super().__init__()
        self.content_width, self.content_channels = content_width, content_channels
        usual, dropout = next(s for width, s in SHAPES.items() if content_width >= width)
        self.depth, self.mel_bins = depth or usual, mel_bins
        self.register_buffer("input_scale", torch.ones(mel_bins))
        self.register_buffer("input_shift", torch.zeros(mel_bins))
        self.register_buffer("to_cepstra", cosine_transform(CEPSTRA, mel_bins), persistent=False)
        self.stem = nn.Conv1d(CEPSTRA, content_width, KERNEL, stride=STRIDE, padding=KERNEL // 2)
        blocks: list[nn.Module] = []
        for _ in range(self.depth):
            blocks += [DilatedPair(content_width, dilation=d, dropout=dropout) for d in DILATIONS]
            blocks.append(nn.GroupNorm(1, content_width))
        self.blocks = nn.Sequential(*blocks)
        self.projection = nn.Conv1d(content_width, content_channels, 1)
        self.head = nn.Sequential(
            nn.Linear(content_channels, content_width),
            nn.ReLU(),
            nn.Linear(content_width, len(SYMBOLS)),
        )

    @classmethod
    def from_config(cls, model: ModelConfig, *, depth: int = 0) -> ContentNetwork:
        """Build with the widths of a run, and with another depth if one is given."""
        widths = {"content_width": model.content_width, "content_channels": model.content_channels}
        return cls(mel_bins=model.mel_bins, **widths, depth=depth)

    @property
    def sizes(self) -> dict[str, int]:
        """The arguments that build it anew."""
        names = "mel_bins", "content_width", "content_channels", "depth"
        return {name: getattr(self, name) for name in names}

    def features(self, x: Tensor) -> Tensor:
        """Return what the speech consistency loss L_sc compares, without the CTC head.

        Args:
            x: (B, 1, mel_bins, T) standardised log-mel-spectrogram, any T >= 1.

        Returns:
            (B, content_channels, ceil(T / 2)).

        Raises:
            ShapeError: x has other axes.
        """
        require_shape("mel of the content network", x, (None, 1, self.mel_bins, None))
        x = x.squeeze(1) * self.input_scale[:, None] + self.input_shift[:, None]
        cepstra = torch.matmul(self.to_cepstra, x)  # (B, 40, T)
        out: Tensor = self.projection(self.blocks(self.stem(cepstra)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Recognise.

        Args:
            x: (B, 1, mel_bins, T) standardised log-mel-spectrogram, any T >= 1.

        Returns:
            (B, ceil(T / 2), 29) log-probabilities over :data:`SYMBOLS`, the blank first.

        Raises:
            ShapeError: x has other axes.
        """
        return self.said(self.features(x))

    def said(self, features: Tensor) -> Tensor:
        """Recognise in features (B, content_channels, T') what is said, (B, T', 29) as above."""
        return functional.log_softmax(self.head(features.transpose(1, 2)), dim=-1)
