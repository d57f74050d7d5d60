"""What looks at faces and listens to voices: style encoders, discriminators, source classifier.

Paper: Tables 8 (E_I, D_I) and 9 (E_A, D_A, C_A). E_I and E_A have one head a gender, D_I one logit
a gender, D_A one a gender and one a speaker, C_A the same two groups as classes. Status: STATED,
forms CODE; the tables print instance norm, which would remove the statistics that carry style, so
it is a switch that defaults to off (A18, INFERRED). Trunks are alike in form and share no weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from xfavot.errors import ShapeError, require_shape
from xfavot.models.blocks import LEAK, encoder, he_init, widths
from xfavot.models.mapping import pick

IMAGE_END = 4  # pixels a side before the closing convolution, STATED
AUDIO_END = 5  # mel bins and frames the closing convolution covers, STATED
AUDIO_LEVELS = 4  # halvings of both axes, STATED
MIN_FRAMES = AUDIO_END * 2**AUDIO_LEVELS  # 80 frames, 1.0 s


class FaceTrunk(nn.Sequential):
    """Table 8 up to the heads, for faces of `size` pixels a side, 4 times a power of two."""

    def __init__(self, *, size: int, width: int, max_width: int, norm: bool) -> None:
        """Make the layers; `norm` adds instance norm."""
        levels = (size // IMAGE_END).bit_length() - 1
        channels = widths(width, max_width, levels)
        deep = channels[-1]
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1),
            *encoder(channels=channels, resamples=["half"] * levels, norm=norm),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(deep, deep, IMAGE_END),
            nn.LeakyReLU(LEAK),
        )
        self.size, self.deep = size, deep

    def forward(self, x: Tensor) -> Tensor:
        """Map faces (B, 3, size, size) to (B, deep, 1, 1).

        Raises:
            ShapeError: wrong axes or size.
        """
        require_shape("faces for E_I or D_I", x, (None, 3, self.size, self.size))
        h: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return h


class VoiceTrunk(nn.Sequential):
    """Table 9 up to the heads, for mels of at least 80 bins."""

    def __init__(
        self, *, mel_bins: int, width: int, max_width: int, norm: bool, pool_first: bool = False
    ) -> None:
        """Make the layers.

        Args:
            mel_bins: M.
            width: channels after the first convolution.
            max_width: channels never exceed this.
            norm: adds instance norm.
            pool_first: pooling before the last LeakyReLU (E_A) or after it (D_A, C_A), STATED.
        """
        channels = widths(width, max_width, AUDIO_LEVELS)
        deep = channels[-1]
        end = nn.LeakyReLU(LEAK), nn.AdaptiveAvgPool2d(1)
        super().__init__(
            nn.Conv2d(1, width, 3, padding=1),
            *encoder(channels=channels, resamples=["half"] * AUDIO_LEVELS, norm=norm),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(deep, deep, AUDIO_END),
            *(reversed(end) if pool_first else end),
        )
        self.mel_bins, self.deep = mel_bins, deep

    def forward(self, x: Tensor) -> Tensor:
        """Map mels (B, 1, M, T >= 80) to (B, deep, 1, 1).

        Raises:
            ShapeError: wrong axes or too short.
        """
        require_shape("mels for E_A, D_A or C_A", x, (None, 1, self.mel_bins, None))
        if x.shape[3] < MIN_FRAMES:
            raise ShapeError(
                f"mels for E_A, D_A or C_A: got {x.shape[3]} frames; expected at least "
                f"{MIN_FRAMES} ({MIN_FRAMES / 80:.1f} s at 80 frames a second); use a longer clip "
                "or repeat it"
            )
        h: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return h


class StyleEncoder(nn.Module):
    """E_I or E_A: the style of a face or of a voice, one head a gender. Status: STATED."""

    def __init__(self, trunk: FaceTrunk | VoiceTrunk, *, style_dim: int, genders: int) -> None:
        """Put the heads on a trunk."""
        super().__init__()
        self.genders, self.style_dim = genders, style_dim
        self.trunk = trunk
        self.heads = nn.Linear(trunk.deep, genders * style_dim)
        self.apply(he_init)

    def forward(self, x: Tensor, gender: Tensor) -> Tensor:
        """Encode faces or voices.

        Args:
            x: what the trunk takes: faces (B, 3, size, size) in [-1, 1] or standardised log mels
                (B, 1, M, T >= 80).
            gender: (B,) int64, which head.

        Returns:
            (B, S), unitless.

        Raises:
            ShapeError: wrong axes, size or gender, or fewer than 80 frames.
        """
        styles = self.heads(self.trunk(x).flatten(1)).view(-1, self.genders, self.style_dim)
        return pick(styles, gender, name="style encoder")


class Discriminator(nn.Module):
    """D_I or D_A: is this face or this voice real, as one gender or, a voice, as one speaker."""

    def __init__(self, trunk: FaceTrunk | VoiceTrunk, *, domains: int) -> None:
        """Put `domains` logits on a trunk, genders first, then speakers."""
        super().__init__()
        self.trunk = trunk
        self.heads = nn.Conv2d(trunk.deep, domains, 1)
        self.apply(he_init)

    def logits(self, x: Tensor) -> Tensor:
        """Score what the trunk takes as every domain; returns (B, domains).

        Raises:
            ShapeError: wrong axes or size, or fewer than 80 frames.
        """
        h: Tensor = self.heads(self.trunk(x))  # (B, domains, 1, 1)
        return h.flatten(1)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        """Score what the trunk takes as domains (B,) int64; returns logits (B,).

        Raises:
            ShapeError: wrong axes, size or domain, or fewer than 80 frames.
        """
        return pick(self.logits(x), domain, name="discriminator")


class AudioClassifier(nn.Module):
    """C_A: whose voice is this, as a gender and as a speaker. Paper: Table 9, appendix G.

    The trunk has the form of D_A's. Status: STATED, the two groups INFERRED.
    """

    def __init__(self, trunk: VoiceTrunk, *, genders: int, speakers: int) -> None:
        """Put one group of `genders` and one of `speakers` classes on a trunk."""
        super().__init__()
        self.genders = genders
        self.net = Discriminator(trunk, domains=genders + speakers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Classify mels (B, 1, M, T >= 80); returns logits (B, genders) and (B, speakers).

        Raises:
            ShapeError: wrong axes or fewer than 80 frames.
        """
        logits = self.net.logits(x)  # (B, genders + speakers)
        return logits[:, : self.genders], logits[:, self.genders :]
