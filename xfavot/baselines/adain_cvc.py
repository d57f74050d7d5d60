"""AdaIN-CVC: AdaIN-VC whose speaker encoder looks at a face.

In the paper (App. F) the compared system of image-guided voices: the face encoder of CVC (Kameoka
et al. 2019) in the place of AdaIN-VC's speaker encoder, trained by AdaIN-VC's recipe on
audio-visual speakers only. CVC's layers are not published; these are our own choice (A84).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import nn

from xfavot.baselines.adain_vc import AdaINVC, SystemConfig
from xfavot.config import RunConfig
from xfavot.convert.converter import Task
from xfavot.data.store import Store
from xfavot.errors import DataError
from xfavot.models.blocks import LEAK

SHARES = (0.25, 0.5, 1.0, 2.0, 2.0)  # channels after every halving, of the width


def face_encoder(width: int) -> nn.Module:
    """Faces (B, 3, H, W) in [-1, 1] to (B, width): five strided convolutions, their mean (A84)."""
    channels = [3, *(max(round(share * width), 1) for share in SHARES)]
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(channels):
        layers += [nn.Conv2d(inputs, outputs, 4, 2, 1), nn.LeakyReLU(LEAK)]
    last = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels[-1], width)
    return nn.Sequential(*layers, *last)


def audio_visual(stores: Sequence[Store]) -> list[Store]:
    """Clips with a face and a voice, so that every reference of a batch is a pair.

    Raises:
        DataError: there is none.
    """
    kept = [[i for i in s.items if i.face_count and i.frame_count] for s in stores]
    both = [replace(s, items=tuple(i)) for s, i in zip(stores, kept, strict=True) if i]
    if not both:
        raise DataError(
            f"a compared system: no clip of {', '.join(store.corpus for store in stores)} has a "
            "face and a voice; expected audio-visual speakers; train it on grid, voxceleb or mini"
        )
    return both


class AdaINCVC(AdaINVC):
    """AdaIN-CVC: a voice is put together again after the face of its speaker."""

    title, tasks = "AdaIN-CVC", (Task.I2A,)
    voices, guides = "ref_audio", "ref_image"  # of the same people
    usable = staticmethod(audio_visual)

    def __init__(self, settings: SystemConfig, cfg: RunConfig) -> None:
        """Make the networks."""
        super().__init__(settings, cfg)
        self.net["speaker_encoder"] = face_encoder(settings.width)
