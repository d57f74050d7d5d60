"""The protocol of image metrics: outputs are made, measured and forgotten, block by block.

Paper, App. B, after StarGAN v2: between the two domains (women, men), in both directions, every
source of the validation split gets ten outputs; `image_draws.py` says led by which references.
LPIPS is the diversity of the ten; FID holds all outputs of a direction against the training images
of the target domain. Both directions are shown apart and averaged. What the first of the ten keeps
of its source (`face_preservation.py`) is this project's own.

A block of sources with all its outputs is made by one call of the system, and only sums are kept,
so memory does not grow with the number of images. A system is a function, so any can be scored:
a model, or files that others made.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import DataError, ShapeError, WeightsError, require_same_shape
from xfavot.evaluation import external
from xfavot.evaluation.rows import ratio_interval
from xfavot.image.align import detect
from xfavot.image.io import to_float
from xfavot.weights import fetched

# Mean and covariance of features, added up as batches of images come


FEWEST = 2  # images that have a covariance
SHAPES = {"count": 0, "mean": 1, "scatter": 2}  # axes of the tensors of a file

Basis = Mapping[str, str | int | float]
Log = Callable[[str], None]


class Moments:
    """Count, mean and scatter of feature vectors.

    Args:
        dims: length of a vector.

    Attributes:
        count: vectors so far.
        mean: (d,) float64.
        scatter: (d, d) float64, the sum of the outer products of what differs from the mean.
    """

    def __init__(self, dims: int) -> None:
        """Start with nothing."""
        self.count = 0
        self.mean = torch.zeros(dims, dtype=torch.float64)
        self.scatter = torch.zeros(dims, dims, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add a batch.

        Args:
            features: (n, d), any floating type and device; none is a batch, too.

        Raises:
            DataError: another shape or type, or a value that is not finite.
        """
        dims = len(self.mean)
        if features.dim() != 2 or features.shape[1] != dims or not features.is_floating_point():
            raise DataError(
                f"features are {features.dtype} of shape {tuple(features.shape)}; expected "
                f"floating point, one vector of {dims} an image; check the extractor"
            )
        x = features.detach().to("cpu", torch.float64)
        bad = (~x.isfinite().all(1)).nonzero().flatten()
        if len(bad):
            raise DataError(
                f"the features of {len(bad)} of {len(x)} images are not finite, first those of "
                f"image {self.count + int(bad[0])}; expected finite numbers; look at that image "
                "and at the precision of the extractor"
            )
        if not len(x):
            return
        mean = x.mean(0)
        self._shift(len(x), mean)
        apart = x - mean
        self.scatter.addmm_(apart.T, apart)

    def merge(self, other: Moments) -> None:
        """Add all that another one has seen.

        Raises:
            DataError: its vectors have another length.
        """
        require_alike(self, other)
        if other.count:
            self._shift(other.count, other.mean)
            self.scatter += other.scatter

    def covariance(self) -> Tensor:
        """Return the covariance (d, d) with n - 1 in the denominator, as `numpy.cov` does.

        Raises:
            DataError: fewer than two vectors.
        """
        if self.count < FEWEST:
            raise DataError(
                f"a covariance of {self.count} images; expected {FEWEST} at least, and more than "
                f"the {len(self.mean)} features for a full one; score more images"
            )
        return self.scatter / (self.count - 1)

    def _shift(self, count: int, mean: Tensor) -> None:
        """Move the mean to that of both parts; the scatter within the new one is not added."""
        total, apart = self.count + count, mean - self.mean
        self.scatter.addr_(apart, apart, alpha=self.count * count / total)
        self.mean.add_(apart, alpha=count / total)
        self.count = total


def require_alike(a: Moments, b: Moments) -> None:
    """Refuse moments of features of different lengths."""
    if len(a.mean) != len(b.mean):
        raise DataError(
            f"moments of {len(a.mean)} and of {len(b.mean)} features; expected those of one "
            "extractor; extract both sides again with the same one"
        )


def kept_moments(
    folder: str | os.PathLike[str],
    basis: Basis,
    count: Callable[[], Moments],
    *,
    on_log: Log | None = None,
) -> Moments:
    """Read kept statistics, or count them and keep them.

    Args:
        folder: of kept statistics; made if it is not there.
        basis: all that they follow from, such as the extractor's fingerprint, the images' digest
            and their size; other values mean another file.
        count: goes through the images; called only if nothing is kept.
        on_log: told which of the two was done.

    Returns:
        The statistics.

    Raises:
        DataError: the kept file is damaged, or a new one cannot be written.
    """
    text = json.dumps(dict(basis), sort_keys=True, separators=(",", ":"), allow_nan=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    file = Path(folder, f"moments_{key}.safetensors")
    say = on_log or (lambda _: None)
    if file.exists():
        moments = _load(file, text)
        say(f"statistics of {moments.count} images read from {file}")
        return moments
    _write(file, lambda: file.parent.mkdir(parents=True, exist_ok=True))  # before hours are spent
    moments = count()
    _write(file, lambda: _save(moments, file, text))
    say(f"statistics of {moments.count} images kept in {file}")
    return moments


def _load(file: Path, text: str) -> Moments:
    """Read a file and check that it is the one that was written."""
    try:
        with safe_open(file, framework="pt") as stored:
            about = (stored.metadata() or {}).get("basis")
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if about != text or {name: x.dim() for name, x in tensors.items()} != SHAPES:
            raise ValueError(f"it holds {sorted(tensors)} on {about}")
        mean, scatter = tensors["mean"], tensors["scatter"]
        if scatter.shape != (len(mean), len(mean)) or not bool(scatter.isfinite().all()):
            raise ValueError(f"the scatter has shape {tuple(scatter.shape)} or is not finite")
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(
            f"kept statistics {file} are damaged ({error}); expected what was written; delete the "
            "file, it is made again"
        ) from error
    moments = Moments(len(mean))
    moments.count, moments.mean, moments.scatter = int(tensors["count"]), mean, scatter
    return moments


def _save(moments: Moments, file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    tensors = {"mean": moments.mean, "scatter": moments.scatter}
    tensors["count"] = torch.tensor(moments.count)
    try:
        save_file(tensors, draft, metadata={"basis": text})
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: Path, step: Callable[[], None]) -> None:
    """Do a step of writing a file, or say what stood against it."""
    try:
        step()
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{file} cannot be written ({error}); expected a writable folder with room for it; "
            "free some space or name another folder"
        ) from error


# FID under two protocols, which give different numbers for the same images


FID_STARGAN_V2, PYTORCH_FID = "fid_stargan_v2", "fid_pytorch"
FID_DEFINITIONS = {
    FID_STARGAN_V2: "FID as StarGAN v2 computes it: torchvision's Inception v3, 8 bits, Pillow's "
    "bilinear filter to the model's size and to 299",
    PYTORCH_FID: "FID as pytorch-fid computes it: TensorFlow's Inception of 2015-12-05",
}
SIDE = 299  # pixels
FEATURES = 2048
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
FID_AT_ONCE = 32  # images; the first maps of an Inception take 3.3 MB an image
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
            for part in torch.split(images, FID_AT_ONCE)
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


def fid_stargan_v2(
    *, image_size: int, cache: str | PathLike[str] | None = None, device: torch.device | str = "cpu"
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
    return _extractor(FID_STARGAN_V2, network, prepare, f"size {image_size}", device)


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
        prepare=to_float,
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
    state = {k: v for k, v in external.read_state(path).items() if not k.endswith(COUNTERS)}
    own = {k: v for k, v in network.state_dict().items() if not k.endswith(COUNTERS)}
    external.require_tensors(path, state, own)
    network.load_state_dict(state, strict=False)
    return network


def _extractor(
    metric: str, network: nn.Module, prepare: Run, prepared: str, device: torch.device | str
) -> Extractor:
    network.fc = nn.Identity()
    return Extractor(
        metric=metric,
        definition=FID_DEFINITIONS[metric],
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


# Frechet distance between two sets of features, each taken as a normal distribution


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute d^2.

    Args:
        a, b: statistics of two sets of features by one extractor.

    Returns:
        The distance, not below 0.

    Raises:
        DataError: fewer than two images in a set, or features of different lengths.
    """
    require_alike(a, b)
    first, second = a.covariance(), b.covariance()
    means = float((a.mean - b.mean).square().sum())
    traces = float(first.trace() + second.trace())
    return max(means + traces - 2 * trace_of_root(first, second), 0.0)


def trace_of_root(first: Tensor, second: Tensor) -> float:
    """Compute the trace of the square root of the product of two covariances.

    Args:
        first, second: (d, d) float64, symmetric, no eigenvalue below zero.

    Returns:
        tr((C_1 C_2)^(1/2)), real.

    Raises:
        DataError: other shapes or types.
    """
    square = first.dim() == 2 and first.shape[0] == first.shape[1]
    if not square or first.shape != second.shape or {first.dtype, second.dtype} != {torch.float64}:
        raise DataError(
            f"covariances are {first.dtype} {tuple(first.shape)} and {second.dtype} "
            f"{tuple(second.shape)}; expected two square ones of one size in float64; "
            "float32 loses the small eigenvalues"
        )
    lower, failed = torch.linalg.cholesky_ex(first)
    other, failed_too = torch.linalg.cholesky_ex(second)
    if not (failed or failed_too):
        eigenvalues = torch.linalg.eigvalsh(lower.T @ second @ lower)
        return float(eigenvalues.clamp_min(0).sqrt().sum())
    one = _factor(first) if failed else lower
    two = _factor(second) if failed_too else other
    return float(torch.linalg.svdvals(one.T @ two).sum())


def _factor(covariance: Tensor) -> Tensor:
    """F (d, r) of a covariance of rank r, F F^T being it."""
    eigenvalues, vectors = torch.linalg.eigh(covariance)  # ascending
    least = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[-1]
    kept = eigenvalues > least
    factor: Tensor = vectors[:, kept] * eigenvalues[kept].sqrt()
    return factor


# LPIPS (Zhang et al. 2018): how different two faces look, how diverse a source's outputs


LPIPS_STARGAN_V2, ALEX = "lpips_stargan_v2", "lpips_alex"
LPIPS_DEFINITIONS = {
    LPIPS_STARGAN_V2: "LPIPS as StarGAN v2 computes it: AlexNet, all pairs of a source's outputs, "
    "mean over batches",
    ALEX: "LPIPS v0.1 with AlexNet, 8 bits, all pairs of a source's outputs, mean over sources",
}
CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's five maps
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]
SMALL = 1e-10
FEWEST_PIXELS = 31  # a side; with fewer AlexNet's last maps are empty
FEWEST_OUTPUTS = 2
LPIPS_AT_ONCE = 40  # images

Unit = Callable[[Tensor], Tensor]


class LPIPS(nn.Module):
    """LPIPS over given networks.

    Args:
        metric: its name, as rows show it.
        layers: AlexNet's convolutions; every ReLU gives a map.
        learnt: five tensors (1, C, 1, 1).
        unit: brings maps (n, C, h, w) to unit length over C.
        definition: in a sentence; default, that of `metric`.
        of_bytes: it measures what was saved with 8 bits.
        over_batches: the mean over sources is that of the batches' means.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        metric: str,
        layers: nn.Sequential,
        learnt: Sequence[Tensor],
        unit: Unit,
        *,
        definition: str = "",
        of_bytes: bool = False,
        over_batches: bool = False,
    ) -> None:
        """Freeze the networks; see the class."""
        super().__init__()
        self.metric, self.unit = metric, unit
        self.definition = definition or LPIPS_DEFINITIONS[metric]
        self.of_bytes, self.over_batches = of_bytes, over_batches
        self.layers = layers
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])
        self.depth = len(learnt)
        for number, weight in enumerate(learnt):
            self.register_buffer(f"learnt{number}", weight.detach().flatten())
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Measure pairs of images.

        Args:
            a, b: (n, 3, H, W), floating point in [-1, 1].

        Returns:
            (n,) distances.

        Raises:
            ShapeError: shapes that differ or are no images.
        """
        require_same_shape("LPIPS", a, b)
        both = self._maps(torch.cat([a, b]))
        squares = [(one[: len(a)] - one[len(a) :]).square_().mean((2, 3)) for one in both]
        return self._weigh(squares)

    @torch.no_grad()
    def diversity(self, images: Tensor) -> Tensor:
        """Measure the outputs of each source, all pairs.

        Args:
            images: (n, K, 3, H, W), K outputs of n sources, floating point in [-1, 1].

        Returns:
            (n,) mean distances, on the CPU.

        Raises:
            ShapeError: no images, or fewer than two outputs a source.
        """
        if images.dim() != 5 or images.shape[1] < FEWEST_OUTPUTS:
            raise ShapeError(
                f"diversity: got {tuple(images.shape)}; expected (sources, {FEWEST_OUTPUTS} or "
                "more outputs, 3, H, W); give each source more references"
            )
        if not len(images):
            return torch.empty(0)
        portion = max(1, LPIPS_AT_ONCE // images.shape[1])
        return torch.cat([self._diversity(part) for part in torch.split(images, portion)])

    def _diversity(self, images: Tensor) -> Tensor:
        outputs = images.shape[1]
        squares = []
        for one in self._maps(images.to(self.shift.device).flatten(0, 1)):
            each = one.view(-1, outputs, *one.shape[1:])  # (n, K, C, h, w)
            apart = each - each.mean(1, keepdim=True)  # `var` is far slower
            squares.append(apart.square_().mean((1, 3, 4)) * (2 * outputs / (outputs - 1)))
        return self._weigh(squares).cpu()

    def _maps(self, images: Tensor) -> list[Tensor]:
        """Return AlexNet's maps (n, C, h, w) of images (n, 3, H, W), of unit length over C."""
        if images.dim() != 4 or images.shape[1] != 3 or min(images.shape[2:]) < FEWEST_PIXELS:
            raise ShapeError(
                f"LPIPS: got images of shape {tuple(images.shape)}; expected (n, 3, H, W) of "
                f"{FEWEST_PIXELS} pixels a side at least; check the model's size"
            )
        if not images.is_floating_point():
            raise DataError(f"LPIPS: images are {images.dtype}; expected floats in [-1, 1]")
        x, maps = (images.float() - self.shift) / self.scale, []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps.append(self.unit(x))
            if len(maps) == self.depth:
                break  # the last pooling leads to no map
        return maps

    def _weigh(self, squares: Sequence[Tensor]) -> Tensor:
        """Weigh the channels (n, C) of every map and add them up: (n,)."""
        learnt = (getattr(self, f"learnt{number}") for number in range(self.depth))
        return torch.stack([one @ w for one, w in zip(squares, learnt, strict=True)]).sum(0)


def lpips_stargan_v2(
    *,
    cache: str | PathLike[str] | None = None,
    backbone: str = "alexnet",
    device: torch.device | str = "cpu",
) -> LPIPS:
    """Return the ancestor's LPIPS.

    Args:
        cache: the folder of weights; see `fetched.root`.
        backbone: the set of AlexNet's weights, "alexnet" or "alexnet_older".
        device: of the networks.

    Raises:
        WeightsError: weights or torchvision are missing; the message says how to get them.
    """
    learnt = learnt_layers("lpips_stargan_v2", "lpips_weights.{}.main.1.weight", cache)
    layers = _trained_layers(backbone, cache)
    made = LPIPS(LPIPS_STARGAN_V2, layers, learnt, unit_stargan_v2, over_batches=True)
    return made.to(device)


def alex(
    *,
    cache: str | PathLike[str] | None = None,
    backbone: str = "alexnet",
    device: torch.device | str = "cpu",
) -> LPIPS:
    """Return the community's LPIPS; arguments and errors as in `stargan_v2`."""
    learnt = learnt_layers("lpips_alex", "lin{}.model.1.weight", cache)
    layers = _trained_layers(backbone, cache)
    return LPIPS(ALEX, layers, learnt, unit_package, of_bytes=True).to(device)


def unit_stargan_v2(maps: Tensor) -> Tensor:
    """Bring (n, C, h, w) to unit length over C; the small constant stands under the root."""
    return maps * maps.square().sum(1, keepdim=True).add_(SMALL).rsqrt_()


def unit_package(maps: Tensor) -> Tensor:
    """Bring (n, C, h, w) to unit length over C; the small constant is added to the length."""
    return maps / maps.square().sum(1, keepdim=True).sqrt_().add_(SMALL)


def learnt_layers(name: str, key: str, cache: str | PathLike[str] | None) -> list[Tensor]:
    """Read the learnt layers of a set of weights; `key` names them by number.

    Raises:
        WeightsError: they are missing or others than expected.
    """
    shapes = {key.format(n): (1, channels, 1, 1) for n, channels in enumerate(CHANNELS)}
    state = external.read_state(fetched.path(name, cache), expected=shapes)
    return [state[one] for one in shapes]


def alexnet_layers() -> nn.Sequential:
    """Build AlexNet's convolutions with random weights.

    Raises:
        WeightsError: torchvision is not installed.
    """
    layers = _convolutions(_alexnet()).to_empty(device="cpu")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return layers


def _trained_layers(name: str, cache: str | PathLike[str] | None) -> nn.Sequential:
    path = fetched.path(name, cache)
    network = _alexnet()
    state = external.read_state(path, expected=network.state_dict())
    network.load_state_dict(state, assign=True)
    return _convolutions(network)


def _convolutions(network: nn.Module) -> nn.Sequential:
    layers = network.features
    assert isinstance(layers, nn.Sequential)
    return layers


def _alexnet() -> nn.Module:
    """Describe the network without memory for it; its classifier, 235 MB, is not wanted."""
    try:
        from torchvision.models import alexnet
    except ImportError as error:
        raise WeightsError(
            f'torchvision is not installed ({error}); run: pip install "xfavot[metrics]"'
        ) from error
    with torch.device("meta"):
        network: nn.Module = alexnet(weights=None)
    return network


# Which sources meet which references when images are scored: the ancestor's draw, from a seed


OUTPUTS = 10  # of a source
BATCH = 32  # sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """From one domain to the other.

    Args:
        source, target: the domains, such as "female" and "male".
        sources: how many sources there are.
        references: how many references of the target domain there are; with latent codes in their
            place, how many codes.
        chosen: the references of every source, in place of a draw, where outputs exist already.
    """

    source: str
    target: str
    sources: int
    references: int
    chosen: Sequence[Sequence[int]] = ()

    @property
    def name(self) -> str:
        """Such as "female to male"."""
        return f"{self.source} to {self.target}"


def plan(
    direction: Direction, *, seed: int, outputs: int = OUTPUTS, batch: int = BATCH
) -> Iterator[tuple[Tensor, Tensor]]:
    """Say batch by batch which sources meet which references.

    Args:
        direction: how many there are, or what was chosen.
        seed: with the direction's name it fixes the draw.
        outputs: K.
        batch: sources at once, and references drawn at once.

    Yields:
        Numbers of sources (n,) and references (n, K).

    Raises:
        DataError: no source, fewer references than a batch, or another number of references chosen
            for some source.
    """
    rng = np.random.default_rng([seed, *direction.name.encode()])
    if direction.chosen:
        counts = [len(own) for own in direction.chosen]
        odd = [n for n, count in enumerate(counts) if count != outputs]
        if odd or len(counts) != direction.sources:
            first = f"the first is source {odd[0]} with {counts[odd[0]]}" if odd else ""
            raise DataError(
                f"{direction.name}: {len(odd)} of {len(counts)} sources have another number of "
                f"references than {outputs} {first}; expected as many for each of "
                f"{direction.sources} sources; complete them, or leave those sources out"
            )
    elif direction.sources < 1 or batch < 1 or direction.references < batch:
        raise DataError(
            f"{direction.name}: {direction.sources} sources, {direction.references} references; "
            f"expected one source, and references for a whole batch of {batch}, since incomplete "
            "ones are dropped; score more images, or pass a smaller batch"
        )
    drawn = _reference_batches(rng, direction.references, batch)
    order = rng.permutation(direction.sources)
    for start in range(0, len(order), batch):
        sources = order[start : start + batch]
        if direction.chosen:
            references = np.array([direction.chosen[n] for n in sources])
        else:
            references = np.stack([next(drawn)[: len(sources)] for _ in range(outputs)], axis=1)
        yield torch.from_numpy(sources), torch.from_numpy(references)


def _reference_batches(
    rng: np.random.Generator, count: int, batch: int
) -> Iterator[NDArray[np.int64]]:
    """Shuffle again and again; of each time only whole batches."""
    while True:
        order = rng.permutation(count)
        yield from order[: count // batch * batch].reshape(-1, batch)


# Does a converted face keep the pose and the contours of its source?


POSE, CONTOUR, FOUND = METRICS = ("pose_error", "contour_f", "face_found")
FACE_DEFINITIONS = {
    POSE: "mean difference of yaw and pitch of output and source, by five landmarks (MTCNN), in "
    "distances of the eyes and of eyes to mouth; chance: against another source",
    CONTOUR: "boundary F-measure of Canny's edges of output and source, within 0.8 % of the "
    "diagonal; chance: against another source",
    FOUND: "share of outputs in which MTCNN finds a face",
}
LEAST_PIXELS = 128  # a side; smaller pictures are enlarged for the detector
CANNY, BLUR = (50.0, 150.0), 1.0  # thresholds on 8 bits; sigma in pixels at 128
TOLERANCE = 0.008  # of the diagonal, as in DAVIS (Perazzi et al. 2016)

Picture = NDArray[np.uint8]
Array = NDArray[np.float64]


def require_detector() -> None:
    """Refuse to begin without the detector.

    Raises:
        DataError: its weights are not installed.
    """
    detect([np.zeros((LEAST_PIXELS, LEAST_PIXELS, 3), np.uint8)])


def pose(landmarks: NDArray[np.floating[Any]]) -> Array:
    """Estimate yaw and pitch of a face.

    Args:
        landmarks: (5, 2) left eye, right eye, nose, corners of the mouth, in pixels.

    Returns:
        (2,) how far the nose lies beside the line from eyes to mouth, in distances of the eyes, and
        how far down it, 0 at the eyes and 1 at the mouth. No degrees: they follow the angles and
        are alike for all faces only roughly.
    """
    points = landmarks.astype(np.float64)
    eyes, nose, mouth = points[:2].mean(0), points[2], points[3:].mean(0)
    wide, down = points[1] - points[0], mouth - eyes
    across = np.array([down[1], -down[0]]) / max(float(np.hypot(*down)), 1e-6)
    aside = (nose - eyes) @ across / max(float(np.hypot(*wide)), 1e-6)
    return np.array([aside, (nose - eyes) @ down / max(float(down @ down), 1e-6)])


def edges(image: Picture) -> NDArray[np.bool_]:
    """Find the edges of a picture (H, W, 3): (H, W), by Canny after a Gaussian."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    sigma = BLUR * max(grey.shape) / LEAST_PIXELS
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma)
    return np.asarray(cv2.Canny(smooth, *CANNY, L2gradient=True) > 0)


def contour_f(output: NDArray[np.bool_], source: NDArray[np.bool_]) -> float:
    """Boundary F-measure of two edge maps.

    Args:
        output, source: (H, W).

    Returns:
        2 P R / (P + R): P the share of the output's edges that lie near one of the source's, R the
        share of the source's near one of the output's; 1 if neither has any, 0 if one has none.

    Raises:
        ShapeError: they differ in size.
    """
    if output.shape != source.shape:
        raise ShapeError(
            f"contour_f: edges of {output.shape} and {source.shape}; expected one size; bring both "
            "pictures to it first"
        )
    if not (output.any() and source.any()):
        return float(output.any() == source.any())
    reach = int(np.ceil(TOLERANCE * np.hypot(*output.shape)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = (x**2 + y**2 <= reach**2).astype(np.uint8)
    near_source, near_output = (
        cv2.dilate(one.astype(np.uint8), disc) > 0 for one in (source, output)
    )
    precision, recall = near_source[output].mean(), near_output[source].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


@dataclass(slots=True, eq=False)
class Kept:
    """What outputs keep of their sources, block by block; pictures are forgotten."""

    found: list[float] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=lambda: {POSE: [], CONTOUR: []})
    chances: dict[str, list[float]] = field(default_factory=lambda: {POSE: [], CONTOUR: []})

    def add(self, sources: Tensor, outputs: Tensor) -> None:
        """Compare each output with its source, and with that of the next one in the block.

        Args:
            sources: (n, 3, H, W) uint8.
            outputs: (n, 3, H, W) uint8, one of each.

        Raises:
            ShapeError: they differ in shape.
            DataError: the detector is not installed.
        """
        if sources.shape != outputs.shape:
            raise ShapeError(
                f"preservation: sources are {tuple(sources.shape)}, outputs "
                f"{tuple(outputs.shape)}; expected one output of the same size for each"
            )
        before, after = _pictures(sources), _pictures(outputs)
        first, second = _poses(before), _poses(after)
        self.found += [float(one is not None) for one in second]
        lines = [[edges(image) for image in images] for images in (before, after)]
        for n, line in enumerate(lines[1]):
            for shift, into in ((0, self.values), (1, self.chances)):
                other = (n + shift) % len(before)
                if shift and other == n:
                    continue
                into[CONTOUR].append(contour_f(line, lines[0][other]))
                own, told = second[n], first[other]
                if own is not None and told is not None:
                    into[POSE].append(float(np.abs(own - told).mean()))

    def rows(self, *, seed: int) -> Iterator[dict[str, Any]]:
        """Give metric, value, interval over outputs, n, chance and definition; what has none, not.

        Args:
            seed: of the bootstrap.
        """
        samples = {**self.values, FOUND: self.found}
        for metric, values in samples.items():
            if not values:
                continue
            low, high = ratio_interval(
                values, [1.0] * len(values), list(map(str, range(len(values)))), seed=seed
            )
            others = self.chances.get(metric)
            yield {
                "metric": metric,
                "value": float(np.mean(values)),
                "ci_low": low,
                "ci_high": high,
                "n": len(values),
                "chance": float(np.mean(others)) if others else None,
                "definition": FACE_DEFINITIONS[metric],
            }


def _pictures(x: Tensor) -> list[Picture]:
    return [np.ascontiguousarray(one) for one in x.permute(0, 2, 3, 1).numpy()]


def _poses(images: Sequence[Picture]) -> list[Array | None]:
    """Pose of each picture; small ones are enlarged, which changes no proportion."""
    scale = max(1.0, LEAST_PIXELS / max(min(images[0].shape[:2]), 1)) if images else 1.0
    larger = [
        cv2.resize(one, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        for one in images
    ]
    return [None if one is None else pose(one) for one in detect(larger)]


BEYOND = 10.0  # a network without a final tanh overshoots 1; images in 0 ... 255 overshoot this
NORMAL_95 = 1.96  # standard errors


Generate = Callable[[Direction, Tensor, Tensor], Tensor]
Sources = Callable[[Direction, Tensor], Tensor]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Metrics:
    """What images are measured by, and what cannot be had.

    ``missing`` tells by metric why, and how to get it; ``preserved`` asks for what outputs keep.
    """

    extractors: Sequence[Extractor] = ()
    distances: Sequence[LPIPS] = ()
    missing: Mapping[str, str]
    preserved: bool = False

    @property
    def any(self) -> bool:
        """Whether anything can be measured."""
        return bool(self.extractors or self.distances or self.preserved)


@dataclass(slots=True, eq=False)
class _Sums:
    """What is kept of one direction."""

    kept: Kept
    moments: dict[str, Moments]
    diversity: dict[str, list[list[float]]]  # by metric, batch and source
    lowest: float = math.inf  # of floats


def available_metrics(
    *,
    image_size: int,
    cache: str | PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    on_log: Log | None = None,
) -> Metrics:
    """Collect the metrics whose weights are here; nothing is fetched or replaced.

    Args:
        image_size: pixels a side of the model.
        cache: the folder of weights; see `weights.root`.
        device: of the networks.
        on_log: told of each metric that is not available, why, and how to get it.
    """
    extractors, distances, missing = [], [], {}
    ways: dict[str, Callable[[], Extractor | LPIPS]] = {
        FID_STARGAN_V2: lambda: fid_stargan_v2(image_size=image_size, cache=cache, device=device),
        PYTORCH_FID: lambda: pytorch_fid(cache=cache, device=device),
        LPIPS_STARGAN_V2: lambda: lpips_stargan_v2(cache=cache, device=device),
        ALEX: lambda: alex(cache=cache, device=device),
    }
    for metric, make in ways.items():
        try:
            made = make()
        except WeightsError as error:
            missing[metric] = str(error)
            if on_log is not None:
                on_log(f"{metric} is not available: {error}")
            continue
        if isinstance(made, LPIPS):
            distances.append(made)
        else:
            extractors.append(made)
    preserved = True
    try:
        require_detector()
    except DataError as error:
        missing |= dict.fromkeys(METRICS, str(error))
        preserved = False
    return Metrics(extractors=extractors, distances=distances, missing=missing, preserved=preserved)


def score(
    generate: Generate,
    directions: Sequence[Direction],
    metrics: Metrics,
    real: Mapping[tuple[str, str], Moments],
    *,
    system: str,
    task: str,
    dataset: str,
    seed: int,
    outputs: int = OUTPUTS,
    batch: int = BATCH,
    sources: Sources | None = None,
) -> list[Row]:
    """Make all outputs of a system and measure them.

    Args:
        generate: takes a direction, numbers of n sources (n,) and of their references (n, K), and
            returns the outputs (n, K, 3, H, W): floats in [-1, 1], which may overshoot, or uint8.
        directions: both, or those that there are.
        metrics: what to measure by.
        real: statistics of real images by (metric, target domain), of `Extractor.real_moments`.
        system, task, dataset: for the rows.
        seed: of the draw of sources and references; the same numbers meet for every system.
        outputs: K, of a source.
        batch: sources at once; the ancestor's LPIPS depends on it.
        sources: takes a direction and numbers (n,) and returns the sources (n, 3, H, W), uint8;
            without it nothing is said of what they keep.

    Returns:
        Tidy rows, per metric one a direction and one for the mean of all. Besides the usual columns
        each has `direction`, `n_real` (real images; None but for FID) and `definition`. `n` counts
        outputs for FID and sources for the others; LPIPS has 1.96 standard errors over sources.

    Raises:
        DataError: too few sources or references, unequal numbers of references, no real
            statistics, or outputs of another shape or type, not finite or out of range.
    """
    found: dict[str, list[Row]] = {}
    _require_real(directions, metrics.extractors, real)
    shown = sources if metrics.preserved else None
    measured = metrics.extractors or metrics.distances or shown
    for direction in directions if measured else ():
        sums = _run(generate, direction, metrics, shown, seed=seed, outputs=outputs, batch=batch)
        for extractor in metrics.extractors:
            name, fakes = extractor.metric, sums.moments[extractor.metric]
            known = real[name, direction.target]
            row = _row(extractor, direction.name, frechet_distance(known, fakes), fakes.count)
            found.setdefault(name, []).append({**row, "n_real": known.count})
        for distance in metrics.distances:
            row = _diversity_row(distance, direction.name, sums.diversity[distance.metric])
            found.setdefault(distance.metric, []).append(row)
        for row in sums.kept.rows(seed=seed):
            row |= {"direction": direction.name, "n_real": None}
            found.setdefault(row["metric"], []).append(row)
    who = {"system": system, "task": task, "dataset": dataset, "seed": seed}
    return [{**who, **row} for rows in found.values() for row in (*rows, *_mean(rows))]


def _require_real(
    directions: Sequence[Direction],
    extractors: Sequence[Extractor],
    real: Mapping[tuple[str, str], Moments],
) -> None:
    """Refuse missing or useless statistics before hours are spent on outputs."""
    for extractor in extractors:
        for direction in directions:
            known = real.get((extractor.metric, direction.target), Moments(0))
            if known.count < FEWEST or len(known.mean) != extractor.dims:
                raise DataError(
                    f"{extractor.metric}, {direction.name}: statistics of {known.count} real "
                    f"{direction.target} images with {len(known.mean)} features; expected those of "
                    f"{FEWEST} at least with {extractor.dims}, of (metric, target) in "
                    f"{sorted(real)}; make them with Extractor.real_moments"
                )


def _run(
    generate: Generate,
    direction: Direction,
    metrics: Metrics,
    shown: Sources | None,
    *,
    seed: int,
    outputs: int,
    batch: int,
) -> _Sums:
    """Make and measure all outputs of a direction."""
    sums = _Sums(
        kept=Kept(),
        moments={one.metric: Moments(one.dims) for one in metrics.extractors},
        diversity={one.metric: [] for one in metrics.distances},
    )
    for sources, references in plan(direction, seed=seed, outputs=outputs, batch=batch):
        with torch.no_grad():
            images = generate(direction, sources, references)
        _require_images(direction.name, images, tuple(references.shape))
        saved = to_bytes(images)
        for extractor in metrics.extractors:
            sums.moments[extractor.metric].add(extractor.features(saved.flatten(0, 1)))
        for distance in metrics.distances:
            x = to_floats(saved) if distance.of_bytes else to_floats(images)
            sums.diversity[distance.metric].append(distance.diversity(x).tolist())
        if shown is not None:
            sums.kept.add(shown(direction, sources), saved[:, 0])
        if images.is_floating_point():
            sums.lowest = min(sums.lowest, float(images.min()))
    if 0 <= sums.lowest < math.inf:
        raise DataError(
            f"{direction.name}: the least value of all outputs is {sums.lowest:g}; expected images "
            "in [-1, 1]; they seem to lie in [0, 1]: return 2 x - 1"
        )
    return sums


def to_bytes(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits as torchvision saves them; what overshoots is cut."""
    if images.dtype == torch.uint8:
        return images
    return images.float().add(1).div_(2).clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)


def to_floats(images: Tensor) -> Tensor:
    """Bring 8 bits to [-1, 1]; floats stay what they are."""
    return to_float(images) if images.dtype == torch.uint8 else images


def _require_images(name: str, images: Tensor, wanted: tuple[int, ...]) -> None:
    """Refuse outputs that cannot be what was asked for."""
    kind = images.dtype == torch.uint8 or images.is_floating_point()
    if images.dim() != 5 or images.shape[:3] != (*wanted, 3) or not kind:
        raise DataError(
            f"{name}: the system returned {images.dtype} of shape {tuple(images.shape)}; expected "
            f"{(*wanted, 3)} and H, W, one output for each source and reference, as floats in "
            "[-1, 1] or uint8"
        )
    if images.is_floating_point() and not bool((images.abs() <= BEYOND).all()):  # NaN fails, too
        bad = ~(images.abs() <= BEYOND)
        raise DataError(
            f"{name}: {int(bad.any(-1).any(-1).any(-1).sum())} of {wanted[0] * wanted[1]} outputs "
            f"hold {float(images[bad][0]):g}; expected finite numbers in [-1, 1]; return uint8 if "
            "they are bytes, or look at the checkpoint"
        )


def _row(metric: Extractor | LPIPS, direction: str, value: float, n: int) -> Row:
    return {
        "metric": metric.metric,
        "direction": direction,
        "value": value,
        "ci_low": None,
        "ci_high": None,
        "n": n,
        "n_real": None,
        "definition": metric.definition,
    }


def _diversity_row(distance: LPIPS, direction: str, batches: Sequence[Sequence[float]]) -> Row:
    every = [value for batch in batches for value in batch]
    means = [statistics.fmean(batch) for batch in batches]
    value = statistics.fmean(means if distance.over_batches else every)
    row = _row(distance, direction, value, len(every))
    if len(every) > 1:
        wide = NORMAL_95 * statistics.stdev(every) / len(every) ** 0.5
        row.update(ci_low=value - wide, ci_high=value + wide)
    return row


def _mean(rows: Sequence[Row]) -> list[Row]:
    """Average the directions, if there are several; half-widths of intervals add as squares."""
    if len(rows) < 2:
        return []
    value = statistics.fmean(row["value"] for row in rows)
    total: Row = {**rows[0], "direction": "mean", "value": value}
    total["n"] = sum(row["n"] for row in rows)
    if rows[0]["n_real"] is not None:
        total["n_real"] = sum(row["n_real"] for row in rows)
    if all(row.get("chance") is not None for row in rows):
        total["chance"] = statistics.fmean(row["chance"] for row in rows)
    if all(row["ci_high"] is not None for row in rows):
        wide = sum((row["ci_high"] - row["value"]) ** 2 for row in rows) ** 0.5 / len(rows)
        total.update(ci_low=value - wide, ci_high=value + wide)
    return [total]
