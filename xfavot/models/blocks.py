"""Blocks that the generators, encoders and discriminators are built of.

Paper: Tables 6 to 9 (appendix G); semantics from the ancestors StarGAN v2 and StarGANv2-VC (status
CODE). Deviations: the skip connections of StarGAN v2's decoder are gone and its shortcuts stay
(A22); AdaIN scales by ``1 + gamma`` (A29).

Two exact rearrangements (results equal the printed order up to rounding) save a third of the work:

- The 1x1 shortcut is applied to the small map: after average pooling in an encoder block, before
  nearest upsampling in a decoder block. Both resamplings act on each channel alone and the
  convolution on each place alone, so they commute.
- A 3x3 convolution followed by average pooling is one strided convolution, and nearest upsampling
  followed by a 3x3 convolution is one transposed convolution, each with the kernel summed over the
  shifts inside a pooling window. The large map in between is never made.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xfavot.errors import ShapeError

Resample = Literal["none", "half", "timepreserve"]

LEAK = 0.2  # slope of LeakyReLU, CODE
NORM_EPS = 1e-5  # of instance norm, CODE
RESIDUAL_SCALE = 1 / math.sqrt(2)  # keeps unit variance after the sum, CODE
FACTORS: dict[Resample, tuple[int, int]] = {  # (H or mel, W or time)
    "none": (1, 1),
    "half": (2, 2),
    "timepreserve": (2, 1),  # only the mel axis
}


def down(x: Tensor, resample: Resample) -> Tensor:
    """Average-pool (B, C, H, W) by the factors of `resample`; odd rests are dropped."""
    return x if resample == "none" else F.avg_pool2d(x, FACTORS[resample])


def up(x: Tensor, resample: Resample, *, linear: bool = False) -> Tensor:
    """Enlarge (B, C, H, W) by the factors of `resample`, to the nearest neighbour or linearly."""
    if resample == "none":
        return x
    height, width = FACTORS[resample]
    return F.interpolate(
        x, scale_factor=(float(height), float(width)), mode="bilinear" if linear else "nearest"
    )


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Switch autocast off where the device has it ("meta", which traces shapes, has none)."""
    if device.type != "meta":
        return torch.autocast(device_type=device.type, enabled=False)
    return nullcontext()


BOX = {1: (1.0,), 2: (1.0, 1.0)}  # weights of the shifts inside a window, by the factor
LINEAR = {1: (1.0,), 2: (0.25, 0.75, 0.75, 0.25)}


def _window_sums(down_by: Sequence[float], right_by: Sequence[float], *, flip: bool) -> Tensor:
    """Matrix (9, (2 + h) * (2 + w)): a flat 3x3 kernel to its weighted sum over all shifts.

    `down_by` (h,) and `right_by` (w,) are the weights of the shifts.
    """
    matrix = torch.zeros(3, 3, 2 + len(down_by), 2 + len(right_by))
    places = itertools.product(range(3), range(3), enumerate(down_by), enumerate(right_by))
    for row, column, (lower, a), (right, b) in places:
        source = (2 - row, 2 - column) if flip else (row, column)
        matrix[(*source, row + lower, column + right)] = a * b
    return matrix.flatten(0, 1).flatten(1)


class ResampledConv(nn.Conv2d):
    """3x3 convolution of padding 1 joined with a resampling; the weights are the convolution's.

    Downwards, average pooling follows it, as one strided convolution; upwards, nearest or `linear`
    upsampling goes before it, as one transposed convolution.
    """

    window_sums: Tensor

    def __init__(
        self, inputs: int, outputs: int, resample: Resample, *, upwards: bool, linear: bool = False
    ) -> None:
        """Make the convolution; "none" is a plain one."""
        super().__init__(inputs, outputs, 3, padding=1)
        self.factors, self.upwards = FACTORS[resample], upwards
        down_by, right_by = ((LINEAR if linear else BOX)[factor] for factor in self.factors)
        self.window = (2 + len(down_by), 2 + len(right_by))
        # the 3x3 kernel's padding of 1, and what linear interpolation reads beyond the border
        self.reach = (1 + (len(down_by) - 1) // 2, 1 + (len(right_by) - 1) // 2)
        sums = _window_sums(down_by, right_by, flip=upwards)
        scale = 1 if upwards else math.prod(self.factors)
        self.register_buffer("window_sums", sums / scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H // h, W // w), upwards H * h and W * w."""
        if self.factors == (1, 1):
            return super().forward(x)
        with full_precision(self.weight.device):
            kernel = self.weight.flatten(2) @ self.window_sums
        kernel = kernel.view(*kernel.shape[:2], *self.window)
        if not self.upwards:
            return F.conv2d(x, kernel, self.bias, stride=self.factors, padding=1)
        kernel = kernel.transpose(0, 1)  # (inputs, outputs, 2 + h, 2 + w)
        return F.conv_transpose2d(x, kernel, self.bias, stride=self.factors, padding=self.reach)


def he_init(module: nn.Module) -> None:
    """He normal weights (fan in) and zero biases for one layer; use with ``Module.apply``.

    Status: CODE (StarGAN v2 initialises every convolution and linear layer so, AdaIN's too).
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _normalise_and_rectify(x: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Instance norm of (B, C, H, W), its scale and offset (B * C,), then LeakyReLU."""
    batch, channels, height, width = x.shape
    if height * width < 2:
        raise ShapeError(
            f"instance norm: got a map {tuple(x.shape)}; expected at least two places a map; "
            "pass a larger input"
        )
    # Instance norm is batch norm over B * C channels of one sample. Called so, it takes a scale and
    # an offset a sample in the same pass, and its result is no view, so that LeakyReLU may
    # overwrite it (on a view, autograd would copy the map twice on the way back).
    h = F.batch_norm(
        x.reshape(1, batch * channels, height, width),
        None,
        None,
        scale,
        offset,
        training=True,
        eps=NORM_EPS,
    )
    return F.leaky_relu_(h, LEAK).view(batch, channels, height, width)


class InstanceNormLReLU(nn.Module):
    """Affine instance norm, then LeakyReLU. Paper: Tables 6 and 7. Status: STATED."""

    def __init__(self, channels: int) -> None:
        """Make the norm with scale 1 and offset 0."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each sample of (B, C, H, W).

        Raises:
            ShapeError: a map has one place only.
        """
        batch = x.shape[0]
        return _normalise_and_rectify(x, self.weight.repeat(batch), self.bias.repeat(batch))


class AdaINLReLU(nn.Module):
    """Adaptive instance norm ``(1 + gamma) * IN(x) + beta``, then LeakyReLU.

    ``gamma, beta = Linear(s)``. Paper: Tables 6 and 7 (norm column). Status: STATED, form CODE.
    """

    def __init__(self, *, style_dim: int, channels: int) -> None:
        """Make the linear layer from a style to one scale and one offset a channel."""
        super().__init__()
        self.affine = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Normalise each channel of each sample, scale and offset it by the sample's style.

        Args:
            x: (B, C, H, W).
            s: (B, S).

        Returns:
            (B, C, H, W).

        Raises:
            ShapeError: a map has one place only.
        """
        with full_precision(x.device):  # the 8 bits of bf16 are too coarse for 1 + gamma
            gamma, beta = self.affine(s.to(self.affine.weight.dtype)).chunk(2, dim=1)  # (B, C) each
        return _normalise_and_rectify(x, (1 + gamma).flatten(), beta.flatten())


class ResBlk(nn.Module):
    """Encoder block: two convolutions and a shortcut, resampled down in between.

    Residual: [IN] LReLU conv3x3 down [IN] LReLU conv3x3; shortcut: down, then conv1x1 without bias
    where the channels change. Paper: Tables 6 to 9. Status: STATED, inner order CODE.
    """

    def __init__(
        self, *, inputs: int, outputs: int, resample: Resample = "none", norm: bool = False
    ) -> None:
        """Make a block from `inputs` to `outputs` channels; `norm` adds affine instance norm."""
        super().__init__()
        self.resample: Resample = resample
        self.norm = "IN" if norm else "-"
        self.norm1 = InstanceNormLReLU(inputs) if norm else None
        self.norm2 = InstanceNormLReLU(inputs) if norm else None
        self.conv1 = ResampledConv(inputs, inputs, resample, upwards=False)
        self.conv2 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H / factor, W / factor)."""
        # In place only on what a convolution of this block made: it keeps no output for backward.
        h = F.leaky_relu(x, LEAK) if self.norm1 is None else self.norm1(x)
        h = self.conv1(h)
        h = F.leaky_relu_(h, LEAK) if self.norm2 is None else self.norm2(h)
        h = self.conv2(h)
        shortcut = down(x, self.resample)
        if self.shortcut is not None:
            shortcut = self.shortcut(shortcut)
        out: Tensor = h.add_(shortcut).mul_(RESIDUAL_SCALE)
        return out


class AdaINResBlk(nn.Module):
    """Decoder block: as :class:`ResBlk`, guided by a style and resampled up.

    Residual: AdaIN LReLU up conv3x3 AdaIN LReLU conv3x3; shortcut: conv1x1 without bias where the
    channels change, then up. Paper: Tables 6 and 7. Status: STATED, inner order CODE.
    """

    norm = "AdaIN"

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        style_dim: int,
        resample: Resample = "none",
        linear: bool = False,
    ) -> None:
        """Make a block from `inputs` to `outputs` channels guided by styles of `style_dim`."""
        super().__init__()
        self.resample: Resample = resample
        self.linear = linear
        self.norm1 = AdaINLReLU(style_dim=style_dim, channels=inputs)
        self.norm2 = AdaINLReLU(style_dim=style_dim, channels=outputs)
        self.conv1 = ResampledConv(inputs, outputs, resample, upwards=True, linear=linear)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else None

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and styles (B, S) to (B, outputs, H * factor, W * factor)."""
        h = self.conv1(self.norm1(x, s))
        h = self.conv2(self.norm2(h, s))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        out: Tensor = h.add_(up(shortcut, self.resample, linear=self.linear)).mul_(RESIDUAL_SCALE)
        return out


def recompute(module: nn.Module) -> None:
    """Keep of the blocks of a module their inputs alone; what gradients need is computed again."""
    for block in module.modules():
        if isinstance(block, ResBlk | AdaINResBlk):
            again = partial(checkpoint, block.forward, use_reentrant=False)
            block.forward = again  # type: ignore[method-assign]


def widths(first: int, largest: int, levels: int) -> list[int]:
    """Channels before and after each of `levels` blocks: doubled until `largest`."""
    return [min(first * 2**level, largest) for level in range(levels + 1)]


def encoder(*, channels: Sequence[int], resamples: Sequence[Resample], norm: bool) -> list[ResBlk]:
    """Chain of encoder blocks, one a resampling, through the given channels."""
    return [
        ResBlk(inputs=a, outputs=b, resample=resample, norm=norm)
        for a, b, resample in zip(channels[:-1], channels[1:], resamples, strict=True)
    ]
