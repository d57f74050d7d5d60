"""The two style encoders: a face or a mel spectrogram to the style of its identity.

Paper: Tables 8 (E_I) and 9 (E_A), heads only for genders. Status: STATED; the tables print instance
norm, which would remove the statistics that carry style, so it is a switch that defaults to off
(A18, INFERRED). The trunks are shared in form, never in weights, with the discriminators.
"""

from __future__ import annotations

from torch import Tensor, nn

from xfavot.errors import ConfigError, ShapeError, require_shape
from xfavot.models.blocks import LEAK, Resample, encoder, he_init, widths
from xfavot.models.mapping import pick

IMAGE_END = 4  # pixels a side before the closing convolution, STATED
AUDIO_END = 5  # mel bins and frames the closing convolution covers, STATED
AUDIO_LEVELS = 4  # halvings of both axes, STATED
AUDIO_RESAMPLES: tuple[Resample, ...] = ("half", "half", "half", "half")
MIN_FRAMES = AUDIO_END * 2**AUDIO_LEVELS  # 80 frames, 1.0 s


def image_trunk(*, size: int, width: int, max_width: int, norm: bool) -> tuple[nn.Sequential, int]:
    """Table 8 up to the closing 4x4 convolution: (B, 3, size, size) to (B, C, 1, 1), and C.

    Raises:
        ConfigError: `size` is not 4 times a power of two.
    """
    levels = (size // IMAGE_END).bit_length() - 1
    if size != IMAGE_END * 2 ** max(levels, 0):
        raise ConfigError(
            f"image_size is {size}; expected 4 times a power of two, such as 64 or 128"
        )
    channels = widths(width, max_width, levels)
    deep = channels[-1]
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        *encoder(channels=channels, resamples=["half"] * levels, norm=norm),
        nn.LeakyReLU(LEAK),
        nn.Conv2d(deep, deep, IMAGE_END),
    ), deep


def audio_trunk(
    *, mel_bins: int, width: int, max_width: int, norm: bool
) -> tuple[nn.Sequential, int]:
    """Table 9 up to the closing 5x5 convolution: (B, 1, M, T) to (B, C, m, t), and C.

    Raises:
        ConfigError: fewer mel bins than the five stages need.
    """
    if mel_bins < MIN_FRAMES:
        raise ConfigError(f"mel_bins is {mel_bins}; expected at least {MIN_FRAMES}")
    channels = widths(width, max_width, AUDIO_LEVELS)
    deep = channels[-1]
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        *encoder(channels=channels, resamples=AUDIO_RESAMPLES, norm=norm),
        nn.LeakyReLU(LEAK),
        nn.Conv2d(deep, deep, AUDIO_END),
    ), deep


def check_mel(x: Tensor, *, mel_bins: int, name: str) -> None:
    """Refuse what is no (B, 1, M, T) mel of at least 80 frames.

    Raises:
        ShapeError: wrong axes or too short.
    """
    require_shape(f"{name} input", x, (None, 1, mel_bins, None))
    if x.shape[3] < MIN_FRAMES:
        raise ShapeError(
            f"{name} input: got {x.shape[3]} frames; expected at least {MIN_FRAMES} "
            f"({MIN_FRAMES / 80:.1f} s at 80 frames a second); use a longer clip or repeat it"
        )


class ImageStyleEncoder(nn.Module):
    """E_I: the style of a face, one head a gender. Paper: Table 8. Status: STATED."""

    def __init__(
        self, *, size: int, width: int, max_width: int, style_dim: int, genders: int, norm: bool
    ) -> None:
        """Make the net for faces of `size` pixels a side; `norm` adds instance norm."""
        super().__init__()
        self.size, self.genders, self.style_dim = size, genders, style_dim
        self.trunk, deep = image_trunk(size=size, width=width, max_width=max_width, norm=norm)
        self.act = nn.LeakyReLU(LEAK)
        self.heads = nn.Linear(deep, genders * style_dim)
        self.apply(he_init)

    def forward(self, x: Tensor, gender: Tensor) -> Tensor:
        """Encode faces.

        Args:
            x: (B, 3, size, size) in [-1, 1].
            gender: (B,) int64, which head.

        Returns:
            (B, S), unitless.

        Raises:
            ShapeError: wrong axes, size or gender.
        """
        require_shape("E_I input", x, (None, 3, self.size, self.size))
        h = self.act(self.trunk(x)).flatten(1)  # (B, deep)
        styles = self.heads(h).view(-1, self.genders, self.style_dim)  # (B, genders, S)
        return pick(styles, gender, name="E_I")


class AudioStyleEncoder(nn.Module):
    """E_A: the style of a voice, one head a gender. Paper: Table 9. Status: STATED."""

    def __init__(
        self, *, mel_bins: int, width: int, max_width: int, style_dim: int, genders: int, norm: bool
    ) -> None:
        """Make the net for mels of `mel_bins` bins and any length; `norm` adds instance norm."""
        super().__init__()
        self.mel_bins, self.genders, self.style_dim = mel_bins, genders, style_dim
        self.trunk, deep = audio_trunk(
            mel_bins=mel_bins, width=width, max_width=max_width, norm=norm
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.act = nn.LeakyReLU(LEAK)
        self.heads = nn.Linear(deep, genders * style_dim)
        self.apply(he_init)

    def forward(self, x: Tensor, gender: Tensor) -> Tensor:
        """Encode voices.

        Args:
            x: (B, 1, M, T) standardised log mels, T >= 80.
            gender: (B,) int64, which head.

        Returns:
            (B, S), unitless.

        Raises:
            ShapeError: wrong axes or gender, or fewer than 80 frames.
        """
        check_mel(x, mel_bins=self.mel_bins, name="E_A")
        h = self.act(self.pool(self.trunk(x))).flatten(1)  # (B, deep)
        styles = self.heads(h).view(-1, self.genders, self.style_dim)  # (B, genders, S)
        return pick(styles, gender, name="E_A")
