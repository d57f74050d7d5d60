"""FID under two protocols, which give different numbers for the same images.

`fid_stargan_v2` is the ancestor's, the one comparable with the paper's tables (App. B follows it):
torchvision's Inception v3 trained on ImageNet, the pictures brought to the model's size and then to
299 by Pillow's bilinear filter on 8 bits, ImageNet's mean and deviation; torchvision's own
`transform_input` is not applied, since the ancestor takes the blocks without it. `fid_pytorch` is
the community's: TensorFlow's weights of 2015-12-05 in pytorch-fid's network, the pictures brought
to 299 inside it without antialiasing. Both end in the 2048 features of the last pooling.

Any other extractor gives a Frechet distance that is no FID; it is used only when asked for, and its
rows carry its own name. The distance is in `frechet.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import foreign
from xfavot.evaluation.feature_moments import Log, Moments, kept_moments
from xfavot.weights import fetched

STARGAN_V2, PYTORCH_FID = "fid_stargan_v2", "fid_pytorch"
DEFINITIONS = {
    STARGAN_V2: "FID as StarGAN v2 computes it: torchvision's Inception v3, 8 bits, Pillow's "
    "bilinear filter to the model's size and to 299",
    PYTORCH_FID: "FID as pytorch-fid computes it: TensorFlow's Inception of 2015-12-05",
}
SIDE = 299  # pixels
FEATURES = 2048
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
AT_ONCE = 32  # images; the first maps of an Inception take 3.3 MB an image
CHANGED = {  # blocks of TensorFlow's network that differ from torchvision's, and their sizes
    **{"Mixed_5b": ("A", 192, 32), "Mixed_5c": ("A", 256, 64), "Mixed_5d": ("A", 288, 64)},
    **{"Mixed_6b": ("C", 768, 128), "Mixed_6c": ("C", 768, 160), "Mixed_6d": ("C", 768, 160)},
    **{"Mixed_6e": ("C", 768, 192), "Mixed_7b": ("E_1", 1280), "Mixed_7c": ("E_2", 2048)},
}
COUNTERS = "num_batches_tracked"  # of training; older files lack them

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Extractor:
    """What turns images into features.

    Args:
        metric: name of the distance over its features, as rows show it.
        definition: the same in a sentence.
        prepare: (n, 3, H, W) uint8 to the network's input, on the CPU.
        network: the prepared images to (n, dims), on `device`.
        dims: features an image.
        fingerprint: changes whenever the features may; part of the name of kept statistics.
        device: where the network is.
    """

    metric: str
    definition: str
    prepare: Run
    network: Run
    dims: int
    fingerprint: str
    device: torch.device | str = "cpu"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Extract the features of images (n, 3, H, W) uint8: (n, dims) on the CPU.

        Raises:
            DataError: the images have another type or shape.
        """
        require_bytes(images)
        parts = [
            self.network(self.prepare(part.cpu()).to(self.device)).float().cpu()
            for part in torch.split(images, AT_ONCE)
        ]
        return torch.cat([torch.empty(0, self.dims), *parts])

    def moments(self, batches: Iterable[Tensor]) -> Moments:
        """Go through batches of images (n, 3, H, W) uint8 and return their statistics."""
        moments = Moments(self.dims)
        for images in batches:
            moments.add(self.features(images))
        return moments

    def real_moments(
        self,
        batches: Callable[[], Iterable[Tensor]],
        *,
        images: str,
        folder: str | PathLike[str],
        on_log: Log | None = None,
    ) -> Moments:
        """Return the statistics of real images, from the disk if they are kept there.

        Args:
            batches: gives the images, (n, 3, H, W) uint8; called only if nothing is kept.
            images: identity of these very images, such as a manifest's hash, split and domain.
            folder: of kept statistics.
            on_log: told what was done.

        Raises:
            DataError: see `kept_moments`.
        """
        basis = {"extractor": self.metric, "fingerprint": self.fingerprint, "images": images}
        return kept_moments(folder, basis, lambda: self.moments(batches()), on_log=on_log)


def stargan_v2(
    *,
    image_size: int,
    cache: str | PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> Extractor:
    """Return the ancestor's extractor.

    Args:
        image_size: pixels a side of the model; real images pass through this size.
        cache: the folder of weights; see `fetched.root`.
        device: of the network.

    Raises:
        WeightsError: the weights or a package are missing; the message says how to get them.
    """
    network = _loaded("inception_torchvision", imagenet_inception, cache)
    prepare = partial(stargan_v2_input, image_size=image_size)
    return _extractor(STARGAN_V2, network, prepare, f"size {image_size}", device)


def pytorch_fid(
    *, cache: str | PathLike[str] | None = None, device: torch.device | str = "cpu"
) -> Extractor:
    """Return the community's extractor; arguments and errors as in `stargan_v2`."""
    network = _loaded("inception_fid", tensorflow_inception, cache)
    return _extractor(PYTORCH_FID, network, pytorch_fid_input, "", device)


def substitute(
    label: str, network: Run, *, dims: int, fingerprint: str, device: torch.device | str = "cpu"
) -> Extractor:
    """Return another extractor, whose distances are no FID.

    Args:
        label: what it is, for the name of the metric.
        network: images (n, 3, H, W) in [-1, 1] to (n, dims).
        dims: features an image.
        fingerprint: of its weights.
        device: of the network.
    """
    return Extractor(
        metric=f"frechet, {label}",
        definition=f"Frechet distance over the features of {label}; no FID",
        prepare=lambda images: images.float().div_(127.5).sub_(1),
        network=network,
        dims=dims,
        fingerprint=fingerprint,
        device=device,
    )


def stargan_v2_input(images: Tensor, image_size: int) -> Tensor:
    """Bring images (n, 3, H, W) uint8 to (n, 3, 299, 299) as the ancestor does.

    Pillow itself resizes, since torch's filter for bytes differs by one step in places.
    """
    from PIL import Image

    resized = np.empty((len(images), SIDE, SIDE, 3), np.float32)
    for pixels, out in zip(images.permute(0, 2, 3, 1).numpy(), resized, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        for side in (image_size, SIDE):
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
        out[:] = np.asarray(picture)
    x = torch.from_numpy(resized).div_(255).permute(0, 3, 1, 2)
    return x.sub(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(DEVIATION)[:, None, None])


def pytorch_fid_input(images: Tensor) -> Tensor:
    """Bring images (n, 3, H, W) uint8 to (n, 3, 299, 299) in [-1, 1] as pytorch-fid does."""
    x = functional.interpolate(images.float().div_(255), (SIDE, SIDE), mode="bilinear")
    return x.mul_(2).sub_(1)


def imagenet_inception() -> nn.Module:
    """Build torchvision's Inception v3 with random weights; `fc` takes its 2048 features."""
    return _inception(aux_logits=True, transform_input=False)


def tensorflow_inception() -> nn.Module:
    """Build pytorch-fid's Inception with random weights; `fc` takes its 2048 features."""
    try:
        from pytorch_fid import inception as blocks  # type: ignore[import-untyped]
    except ImportError as error:
        raise _not_installed("pytorch-fid", error) from error
    network = _inception(aux_logits=False, num_classes=1008)
    for name, (kind, *sizes) in CHANGED.items():
        setattr(network, name, getattr(blocks, f"FIDInception{kind}")(*sizes))
    return network.eval()


def require_bytes(images: Tensor) -> None:
    """Refuse what are no RGB images of 8 bits.

    Raises:
        DataError: another type than uint8 or another shape than (n, 3, H, W).
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
        raise DataError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected uint8 (n, 3, H, "
            "W), RGB; convert [-1, 1] with image_protocol.to_bytes"
        )


def _inception(**options: Any) -> nn.Module:
    try:
        from torchvision.models import inception_v3
    except ImportError as error:
        raise _not_installed("torchvision", error) from error
    network: nn.Module = inception_v3(weights=None, init_weights=False, **options)
    return network.eval().requires_grad_(False)


def _loaded(
    name: str, build: Callable[[], nn.Module], cache: str | PathLike[str] | None
) -> nn.Module:
    """Build a network and fill it with a set of weights; the last layer goes afterwards."""
    path: Path = fetched.path(name, cache)
    network = build()
    state = {k: v for k, v in foreign.read_state(path).items() if not k.endswith(COUNTERS)}
    own = {k: v for k, v in network.state_dict().items() if not k.endswith(COUNTERS)}
    foreign.require_tensors(path, state, own)
    network.load_state_dict(state, strict=False)
    return network


def _extractor(
    metric: str, network: nn.Module, prepare: Run, prepared: str, device: torch.device | str
) -> Extractor:
    network.fc = nn.Identity()
    return Extractor(
        metric=metric,
        definition=DEFINITIONS[metric],
        prepare=prepare,
        network=network.to(device),
        dims=FEATURES,
        fingerprint=f"{digest(network)} {prepared}".strip(),
        device=device,
    )


def digest(network: nn.Module) -> str:
    """Hash the weights of a network."""
    sha = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def _not_installed(package: str, error: ImportError) -> WeightsError:
    return WeightsError(f'{package} is not installed ({error}); run: pip install "xfavot[metrics]"')
