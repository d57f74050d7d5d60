"""What looks at faces and listens to voices: style encoders, discriminators, source classifier.

Paper: Tables 8 (E_I, D_I) and 9 (E_A, D_A, C_A). E_I and E_A have one head a gender, D_I one logit
a gender, D_A one a gender and one a speaker, C_A the same two groups as classes. Status: STATED,
forms CODE; the tables print instance norm, which would remove the statistics that carry style, so
it is a switch that defaults to off (A18, INFERRED). Trunks are alike in form and share no weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from xfavot.config import ModelConfig
from xfavot.errors import ShapeError, require_shape
from xfavot.models.blocks import LEAK, encoder, he_init, widths
from xfavot.models.mapping import pick

IMAGE_END = 4  # pixels a side before the closing convolution, STATED
AUDIO_END = 5  # mel bins and frames the closing convolution covers, STATED
AUDIO_LEVELS = 4  # halvings of both axes, STATED
MIN_FRAMES = AUDIO_END * 2**AUDIO_LEVELS  # 80 frames, 1.0 s
TINY = 1e-20  # of a gradient that is passed on only to be scaled back


class Trunk(nn.Sequential):
    """Tables 8 and 9 up to the heads: a convolution, halvings, a convolution of what is left.

    Args:
        shape: channels, rows and columns of the input; None for at least 80 frames.
        channels: after the first convolution and after every halving.
        end: rows and columns that the last convolution covers.
        norm: adds instance norm.
        last: layers after it.
    """

    def __init__(
        self,
        shape: tuple[int, int, int | None],
        channels: list[int],
        end: int,
        norm: bool,
        *last: nn.Module,
    ) -> None:
        """Make the layers."""
        self.shape, self.deep = shape, channels[-1]
        super().__init__(
            nn.Conv2d(shape[0], channels[0], 3, padding=1),
            *encoder(channels=channels, resamples=["half"] * (len(channels) - 1), norm=norm),
            nn.LeakyReLU(LEAK),
            nn.Conv2d(self.deep, self.deep, end),
            *last,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map faces (B, 3, size, size) or mels (B, 1, M, T >= 80) to (B, deep, 1, 1).

        Raises:
            ShapeError: wrong axes or size, or too short.
        """
        name = "mels for E_A, D_A or C_A" if self.shape[2] is None else "faces for E_I or D_I"
        require_shape(name, x, (None, *self.shape))
        if self.shape[2] is None and x.shape[3] < MIN_FRAMES:
            raise ShapeError(
                f"{name}: got {x.shape[3]} frames; expected at least {MIN_FRAMES} "
                f"({MIN_FRAMES / 80:.1f} s at 80 frames a second); use a longer clip or repeat it"
            )
        h: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return h


def face_trunk(cfg: ModelConfig) -> Trunk:
    """Table 8 up to the heads, for faces of 4 times a power of two pixels a side."""
    levels, size = (cfg.image_size // IMAGE_END).bit_length() - 1, cfg.image_size
    channels = widths(cfg.image_width, cfg.image_max_width, levels)
    return Trunk((3, size, size), channels, IMAGE_END, cfg.style_norm, nn.LeakyReLU(LEAK))


def voice_trunk(cfg: ModelConfig, *, pool_first: bool = False) -> Trunk:
    """Table 9 up to the heads; pooling is before the last LeakyReLU (E_A) or after it, STATED."""
    channels = widths(cfg.audio_width, cfg.audio_max_width, AUDIO_LEVELS)
    end = nn.LeakyReLU(LEAK), nn.AdaptiveAvgPool2d(1)
    last = reversed(end) if pool_first else end
    return Trunk((1, cfg.mel_bins, None), channels, AUDIO_END, cfg.style_norm, *last)


class StyleEncoder(nn.Module):
    """E_I or E_A: the style of a face or of a voice, one head a gender. Status: STATED."""

    def __init__(self, trunk: Trunk, *, style_dim: int, genders: int) -> None:
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

    def __init__(self, trunk: Trunk, *, domains: int) -> None:
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

    def taught(self, fake: Tensor, domain: Tensor, weight: float) -> Tensor:
        """Score fakes as :meth:`forward` does, so that one backward pass teaches both sides.

        A logit depends on its own sample alone, so what a generator and the discriminator want of a
        sample differs by one factor in all gradients of that sample. The parameters get the
        gradients of `weight` times :func:`~xfavot.losses.terms.adversarial_fake`, whatever is made
        of the logits; the fakes get those of what is.
        """
        factor, seen = list[Tensor](), fake.view_as(fake)
        logits: Tensor = self(seen, domain)
        told = logits.detach()  # a hook that held the logits would keep all behind them for ever

        def to_parameters(gradient: Tensor) -> Tensor:
            own = told.float().sigmoid().clamp_min(TINY) * (weight / len(told))
            factor.append(gradient.float() / own)
            return own.to(gradient)

        def to_fake(gradient: Tensor) -> Tensor:
            return gradient.mul(factor.pop().to(gradient).view(-1, 1, 1, 1))

        seen.register_hook(to_fake)  # type: ignore[no-untyped-call]
        logits.register_hook(to_parameters)  # type: ignore[no-untyped-call]
        return logits


class AudioClassifier(nn.Module):
    """C_A: whose voice is this, as a gender and as a speaker. Paper: Table 9, appendix G.

    The trunk has the form of D_A's. Status: STATED, the two groups INFERRED.
    """

    def __init__(self, trunk: Trunk, *, genders: int, speakers: int) -> None:
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
