"""Who is in a face? dlib's network for faces of real people, as a measure and as a term (A85).

A residual network of 29 layers that Davis King trained on three million faces of 7,485 people and
gave to the public domain (dlib-models, `dlib_face_recognition_resnet_model_v1`); written from its
definition, with weights in 8 bits that the package ships (`xfavot/weights/dlib_face.md`). It sees
who is in a picture, hardly how good the picture is, and drawn faces less well than real ones. A
measure of research: nobody is to be identified by it.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import require_shape
from xfavot.weights import shipped

NAME = "dlib_face"
SIDE = 150  # pixels that the network sees
MAPS_SIDE, MAPPED = 96, ("conv32_3", "conv64_3")  # what a loss compares
FEATURES = 128
# What it sees of a face in CelebA-HQ's framing, in widths of that: dlib's own crop (eyes at 0.318
# and 0.669 of its width and 0.314 of its height) laid over ours by the eyes.
LEFT, TOP, RIGHT, BOTTOM = 0.155, 0.26, 0.845, 0.95
MEAN = (122.782, 117.001, 104.298)  # of RGB bytes
STEM = "conv32_down"
BLOCKS = (  # residual pairs by their width; those called "down" halve the maps
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
AT_ONCE = 16  # faces; the first maps take 1 MB a face


class FaceEncoder(nn.Module):
    """The network, frozen; gradients flow to the faces.

    Raises:
        WeightsError: the weights are not in the package.
    """

    def __init__(self) -> None:
        """Read the weights; bytes become floats by the step and the least value of a channel."""
        super().__init__()
        saved = load_file(shipped(NAME))
        for key in [key for key in saved if key.endswith(".bytes")]:
            name, wide = key.removesuffix(".bytes"), (-1, *[1] * (saved[key].ndim - 1))
            step, least = (saved.pop(f"{name}.{part}").view(wide) for part in ("step", "least"))
            saved[f"{name}.weight"] = saved.pop(key) * step + least
        for key, value in saved.items():
            self.register_buffer(key.replace(".", "/"), value.float())
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])

    def forward(self, faces: Tensor) -> Tensor:
        """Encode faces.

        Args:
            faces: (n, 3, S, S) in [-1, 1], in CelebA-HQ's framing, of any size.

        Returns:
            (n, 128), of length 1.

        Raises:
            ShapeError: the faces are no square pictures in colour.
        """
        side = faces.shape[-1]
        require_shape("faces", faces, (None, 3, side, side))
        left, top, right, bottom = (round(x * side) for x in (LEFT, TOP, RIGHT, BOTTOM))
        crops = faces[:, :, top:bottom, left:right].float()
        parts = [self.of_crops(part) for part in torch.split(crops, AT_ONCE)]
        return torch.cat([faces.new_zeros(0, FEATURES), *parts])

    def maps(self, faces: Tensor) -> list[Tensor]:
        """Describe faces (n, 3, S, S) in [-1, 1] as a loss compares them, whole and at less cost.

        Returns:
            Maps (n, C, H, W) of three depths, of 32, 32 and 64 channels, of `MAPS_SIDE` pixels.
        """
        found = [x := self._stem(faces.float(), MAPS_SIDE)]
        x = functional.max_pool2d(x, 3, 2)
        for block in BLOCKS[: BLOCKS.index(MAPPED[-1]) + 1]:
            x = self._residual(x, block, down="down" in block)
            found += [x] * (block in MAPPED)
        return found

    def of_crops(self, crops: Tensor) -> Tensor:
        """Encode what dlib would be given: (n, 3, S, S) in [-1, 1] to (n, 128), of length 1."""
        x = functional.max_pool2d(self._stem(crops, SIDE), 3, 2)
        for block in BLOCKS:
            x = self._residual(x, block, down="down" in block)
        return functional.normalize(x.mean((2, 3)) @ self.get_buffer("head/weight").T, dim=1)

    def _stem(self, x: Tensor, side: int) -> Tensor:
        if x.shape[-2:] != (side, side):
            x = functional.interpolate(x, (side, side), mode="bicubic", antialias=True)
        x = ((x.clamp(-1, 1) + 1) * 127.5 - self.get_buffer("mean")) / 256
        return functional.relu(self._convolve(x, STEM, stride=2, padding=0))

    def _residual(self, x: Tensor, block: str, *, down: bool) -> Tensor:
        stride, padding = (2, 0) if down else (1, 1)
        y = functional.relu(self._convolve(x, f"{block}/conv1", stride, padding))
        y = self._convolve(y, f"{block}/conv2", 1, 1)
        if down:
            x = functional.avg_pool2d(x, 2)
        # channels and a row and column of zeros where one side has more than the other
        both = x.new_zeros([max(sizes) for sizes in zip(x.shape, y.shape, strict=True)])
        for one in (x, y):
            both[tuple(map(slice, one.shape))] += one
        return functional.relu(both)

    def _convolve(self, x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        weight, bias = (self.get_buffer(f"{name}/{part}") for part in ("weight", "bias"))
        return functional.conv2d(x, weight, bias, stride, padding)
