"""Speech of any length, in pieces of a length that the networks accept.

A short clip is reflected to 1 s. A long one is cut into windows of 12 s that overlap, so that
memory does not grow with the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfavot.models.f0 import F0Network, track

SHORTEST_FRAMES = 80  # frames, 1 s: what the style encoder covers
FRAME_MULTIPLE = 4  # G_A halves the frames twice
WINDOW_FRAMES = 960  # 12 s
OVERLAP_FRAMES = 96  # 1.2 s shared by two windows


def pad_frames(x: Tensor) -> Tensor:
    """Reflect a spectrogram at its end until the networks accept its length.

    Args:
        x: (..., T), T >= 1.

    Returns:
        (..., T') with T' at least 80 and a multiple of 4; the first T frames are those of `x`.
    """
    frames = x.shape[-1]
    length = max(SHORTEST_FRAMES, -(-frames // FRAME_MULTIPLE) * FRAME_MULTIPLE)
    at = torch.arange(length, device=x.device)
    if frames > 1:  # 0 1 2 1 0 1 2 ...: reflected again and again where the clip is very short
        at = at % (2 * (frames - 1))
        at = torch.where(at < frames, at, 2 * (frames - 1) - at)
    else:
        at = torch.zeros_like(at)
    return x[..., at]


def spans(frames: int) -> Iterator[tuple[int, int]]:
    """Yield the frames [start, stop) of every window of a padded clip.

    A clip of up to 12 s is one window. The windows of a longer one have 12 s each and share at
    least 1.2 s with the next.

    Args:
        frames: a multiple of 4.
    """
    start = 0
    while frames - start > WINDOW_FRAMES:
        yield start, start + WINDOW_FRAMES
        start += WINDOW_FRAMES - OVERLAP_FRAMES
    yield max(0, min(start, frames - WINDOW_FRAMES)), frames


def mean(mel: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Average a vector over the windows of a clip, weighted by their length.

    Args:
        mel: (1, 1, 80, T), padded.
        fn: maps a window (1, 1, 80, t) to (1, S).

    Returns:
        (1, S).
    """
    parts = [(stop - start, fn(mel[..., start:stop])) for start, stop in spans(mel.shape[-1])]
    weights = torch.tensor([float(n) for n, _ in parts], device=mel.device)
    stacked = torch.stack([value for _, value in parts])  # (windows, 1, S)
    return (stacked * weights[:, None, None]).sum(dim=0) / weights.sum()


def joined(mel: Tensor, fn: Callable[[Tensor], Tensor]) -> Tensor:
    """Map a clip window by window, cross-fading what two windows share.

    Args:
        mel: (1, 1, 80, T), padded.
        fn: maps a window (1, 1, 80, t) to its own shape.

    Returns:
        (1, 1, 80, T).
    """
    out = torch.zeros_like(mel)
    done = 0
    for start, stop in spans(mel.shape[-1]):
        part, shared = fn(mel[..., start:stop]), done - start
        if shared > 0:
            fade = torch.linspace(0.0, 1.0, shared, device=mel.device)
            out[..., start:done] = out[..., start:done] * (1.0 - fade) + part[..., :shared] * fade
        out[..., done:stop] = part[..., shared:]
        done = stop
    return out


def pitch(network: F0Network, mel: Tensor) -> NDArray[np.float32]:
    """Track the pitch of a clip.

    Args:
        network: the F0 network, in evaluation mode.
        mel: (1, 1, 80, T), standardised and padded.

    Returns:
        (T,) float32, Hz, 0 where the network says unvoiced.
    """
    parts, done = [], 0
    for start, stop in spans(mel.shape[-1]):
        parts.append(track(network(mel[..., start:stop]))[0, done - start :])
        done = stop
    return np.asarray(torch.cat(parts).cpu().numpy(), dtype=np.float32)
