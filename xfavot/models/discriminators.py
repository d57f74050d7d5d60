"""The two discriminators and the source classifier.

Paper: Tables 8 (D_I) and 9 (D_A, C_A); D_I has one logit a gender, D_A one a gender and one a
speaker, C_A the same two groups as classes. Status: STATED, forms CODE.
"""

from __future__ import annotations

from torch import Tensor, nn

from xfavot.errors import require_shape
from xfavot.models.blocks import LEAK, he_init
from xfavot.models.mapping import pick
from xfavot.models.style_encoders import audio_trunk, check_mel, image_trunk


class ImageDiscriminator(nn.Module):
    """D_I: is this face real, judged as one gender. Paper: Table 8. Status: STATED."""

    def __init__(self, *, size: int, width: int, max_width: int, domains: int, norm: bool) -> None:
        """Make the net for faces of `size` pixels a side, one logit a domain."""
        super().__init__()
        self.size = size
        self.trunk, deep = image_trunk(size=size, width=width, max_width=max_width, norm=norm)
        self.act = nn.LeakyReLU(LEAK)
        self.heads = nn.Conv2d(deep, domains, 1)
        self.apply(he_init)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Judge faces (B, 3, size, size) of domains (B,) int64; returns logits (B,).

        Raises:
            ShapeError: wrong axes, size or domain.
        """
        require_shape("D_I input", x, (None, 3, self.size, self.size))
        return pick(self.heads(self.act(self.trunk(x))).flatten(1), domain, name="D_I")


class AudioDiscriminator(nn.Module):
    """D_A: is this voice real, judged as one gender or one speaker. Paper: Table 9."""

    def __init__(
        self, *, mel_bins: int, width: int, max_width: int, domains: int, norm: bool
    ) -> None:
        """Make the net: `domains` logits, genders first, then speakers."""
        super().__init__()
        self.mel_bins = mel_bins
        self.trunk, deep = audio_trunk(
            mel_bins=mel_bins, width=width, max_width=max_width, norm=norm
        )
        self.act = nn.LeakyReLU(LEAK)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.heads = nn.Conv2d(deep, domains, 1)
        self.apply(he_init)

    def logits(self, x: Tensor) -> Tensor:
        """Judge mels (B, 1, M, T >= 80) as every domain; returns (B, domains).

        Raises:
            ShapeError: wrong axes or fewer than 80 frames.
        """
        check_mel(x, mel_bins=self.mel_bins, name=type(self).__name__)
        h: Tensor = self.heads(self.pool(self.act(self.trunk(x))))  # (B, domains, 1, 1)
        return h.flatten(1)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Judge mels (B, 1, M, T >= 80) of domains (B,) int64; returns logits (B,).

        Raises:
            ShapeError: wrong axes or domain, or fewer than 80 frames.
        """
        return pick(self.logits(x), domain, name="D_A")


class AudioClassifier(nn.Module):
    """C_A: whose voice is this, as a gender and as a speaker. Paper: Table 9, appendix G.

    The trunk has the form of D_A's. Status: STATED, the two groups INFERRED.
    """

    def __init__(
        self, *, mel_bins: int, width: int, max_width: int, genders: int, speakers: int, norm: bool
    ) -> None:
        """Make the net with one group of `genders` and one of `speakers` classes."""
        super().__init__()
        self.genders = genders
        self.net = AudioDiscriminator(
            mel_bins=mel_bins,
            width=width,
            max_width=max_width,
            domains=genders + speakers,
            norm=norm,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify mels (B, 1, M, T >= 80); returns logits (B, genders) and (B, speakers).

        Raises:
            ShapeError: wrong axes or fewer than 80 frames.
        """
        logits = self.net.logits(x)  # (B, genders + speakers)
        return logits[:, : self.genders], logits[:, self.genders :]
