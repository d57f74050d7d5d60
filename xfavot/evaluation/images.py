"""FID and LPIPS of converted faces.

Paper, App. B, after StarGAN v2: between the two domains (women, men), in both directions, every
source of the validation split gets ten outputs. LPIPS is the diversity of the ten; FID holds all
outputs of a direction against the training images of the target domain. Both directions are shown
apart and averaged. Faces come in blocks, and only sums are kept, so memory does not grow with their
number.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import DataError, ShapeError, WeightsError
from xfavot.evaluation import external
from xfavot.evaluation.manifest import Faces
from xfavot.evaluation.rows import Row, with_means
from xfavot.image.io import to_float
from xfavot.weights import fetched

Device = torch.device | str
Cache = str | PathLike[str] | None


# FID under two protocols, which give different numbers for the same images


FID_STARGAN_V2, PYTORCH_FID = "fid_stargan_v2", "fid_pytorch"
FID_DEFINITIONS = {
    FID_STARGAN_V2: "FID as StarGAN v2 computes it: torchvision's Inception v3, 8 bits, Pillow's "
    "bilinear filter to the model's size and to 299",
    PYTORCH_FID: "FID as pytorch-fid computes it: TensorFlow's Inception of 2015-12-05",
}
SIDE = 299  # pixels
FEATURES = 2048
FEWEST_IMAGES = 2  # that have a covariance
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
FID_AT_ONCE = 32  # images; the first maps of an Inception take 3.3 MB an image
CHANGED = {  # blocks of TensorFlow's network that differ from torchvision's, and their sizes
    **{"Mixed_5b": ("A", 192, 32), "Mixed_5c": ("A", 256, 64), "Mixed_5d": ("A", 288, 64)},
    **{"Mixed_6b": ("C", 768, 128), "Mixed_6c": ("C", 768, 160), "Mixed_6d": ("C", 768, 160)},
    **{"Mixed_6e": ("C", 768, 192), "Mixed_7b": ("E_1", 1280), "Mixed_7c": ("E_2", 2048)},
}
COUNTERS = "num_batches_tracked"  # of training; older files lack them


@dataclass(eq=False, slots=True)
class Extractor:
    """Features of images, and the Frechet distance over them.

    Args:
        metric: name of the distance, as rows show it.
        definition: the same in a sentence.
        network: prepared images to features (n, d), on `device`.
        prepare: images (n, 3, H, W) uint8 to the network's input, on the CPU.
        num_features: d.
        fingerprint: changes whenever the features may.
        device: where the network is.
        seen: distances that know their real faces, by what these are and their sex.
    """

    metric: str
    definition: str
    network: Callable[[Tensor], Tensor]
    prepare: Callable[[Tensor], Tensor]
    num_features: int = FEATURES
    fingerprint: str = ""
    device: Device = "cpu"
    seen: dict[tuple[str, str], Any] = field(default_factory=dict)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Extract features of images (n, 3, H, W) uint8: (n, d) float64 on the CPU.

        Raises:
            DataError: features are not finite.
        """
        parts = [
            self.network(self.prepare(part.cpu()).to(self.device)).double().cpu()
            for part in torch.split(images, FID_AT_ONCE)
        ]
        features = torch.cat([torch.empty(0, self.num_features, dtype=torch.float64), *parts])
        bad = int((~features.isfinite().all(1)).sum())
        if bad:
            raise DataError(
                f"{self.metric}: the features of {bad} of {len(features)} images are not finite; "
                "look at the images and at the extractor's precision"
            )
        return features

    def distance(self, faces: Faces, sex: str) -> Any:
        """Return torchmetrics' FID that has seen the real faces of a sex, and no outputs yet."""
        key = (faces.real_key, sex)
        if key not in self.seen or not faces.real_key:
            feature: Any = nn.Identity()
            feature.num_features = self.num_features
            fid_module = external.package("torchmetrics.image.fid")
            metric = fid_module.FrechetInceptionDistance(feature, reset_real_features=False)
            for images in faces.real(sex):
                metric.update(self(images), real=True)
            self.seen[key] = metric
        self.seen[key].reset()
        return self.seen[key]


def fid_stargan_v2(*, image_size: int, cache: Cache = None, device: Device = "cpu") -> Extractor:
    """Return the extractor of StarGAN v2.

    Args:
        image_size: pixels a side of the model; real images pass through this size.
        cache: the folder of weights; see `fetched.root`.
        device: of the network.

    Raises:
        WeightsError: the weights or a package are missing; the message says how to get them.
    """
    network = _trained("inception_torchvision", imagenet_inception, cache)
    prepare = partial(stargan_v2_input, image_size=image_size)
    return _of_inception(FID_STARGAN_V2, network, prepare, f" size {image_size}", device)


def pytorch_fid(*, cache: Cache = None, device: Device = "cpu") -> Extractor:
    """Return the extractor of pytorch-fid; arguments and errors as in `fid_stargan_v2`."""
    network = _trained("inception_fid", tensorflow_inception, cache)
    return _of_inception(PYTORCH_FID, network, pytorch_fid_input, "", device)


def _of_inception(
    metric: str, network: nn.Module, prepare: Callable[[Tensor], Tensor], size: str, device: Device
) -> Extractor:
    network.fc = nn.Identity()
    key, text = digest(network) + size, FID_DEFINITIONS[metric]
    return Extractor(metric, text, network.to(device), prepare, fingerprint=key, device=device)


def stargan_v2_input(images: Tensor, image_size: int) -> Tensor:
    """Bring images (n, 3, H, W) uint8 to (n, 3, 299, 299) as StarGAN v2 does.

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


def imagenet_inception(**options: Any) -> nn.Module:
    """Build torchvision's Inception v3 with random weights; `fc` takes its 2048 features."""
    options = {"aux_logits": True, "transform_input": False} | options
    build = external.package("torchvision.models").inception_v3
    network: nn.Module = build(weights=None, init_weights=False, **options)
    return network.eval().requires_grad_(False)


def tensorflow_inception() -> nn.Module:
    """Build pytorch-fid's Inception with random weights; `fc` takes its 2048 features."""
    blocks = external.package("pytorch_fid.inception")
    network = imagenet_inception(aux_logits=False, num_classes=1008)
    for name, (kind, *sizes) in CHANGED.items():
        setattr(network, name, getattr(blocks, f"FIDInception{kind}")(*sizes))
    return network.eval()


def _trained(name: str, build: Callable[[], nn.Module], cache: Cache) -> nn.Module:
    """Build a network and fill it with a set of weights."""
    path = fetched.path(name, cache)
    network = build()
    state = external.read_state(path, expected=network.state_dict(), ignored=(COUNTERS,))
    network.load_state_dict(state, strict=False)
    return network


def digest(network: nn.Module) -> str:
    """Hash the weights of a network."""
    sha = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        sha.update(value.cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()[:16]


def fid(faces: Faces, extractors: Sequence[Extractor], *, seed: int) -> list[Row]:
    """Measure the Frechet distance of a group's outputs to its real faces.

    Args:
        faces: the group.
        extractors: one metric each.
        seed: for the rows.
    """
    rows: dict[str, list[Row]] = {one.metric: [] for one in extractors}
    for direction, sex in faces.directions.items():
        distances = [one.distance(faces, sex) for one in extractors]
        for block in faces.blocks(direction):
            for one, metric in zip(extractors, distances, strict=True):
                metric.update(one(to_bytes(block).flatten(0, 1)), real=False)
        for one, metric in zip(extractors, distances, strict=True):
            n, real = int(metric.fake_features_num_samples), int(metric.real_features_num_samples)
            row = _row(faces, one, "fid", direction, n, seed) | {"n_real": real}
            if min(n, real) < FEWEST_IMAGES:
                reason = f"{n} outputs and {real} real faces; expected {FEWEST_IMAGES} of both"
                row |= {"reason": f"{reason} at least; score more", "samples": n}
            else:
                row["value"] = max(float(metric.compute()), 0.0)
            rows[one.metric].append(row)
    return with_means(rows)


# LPIPS (Zhang et al. 2018): how different two faces look, how diverse a source's outputs


LPIPS_STARGAN_V2, ALEX = "lpips_stargan_v2", "lpips_alex"
LPIPS_DEFINITIONS = {
    LPIPS_STARGAN_V2: "LPIPS as StarGAN v2 computes it: AlexNet, all pairs of a source's outputs, "
    "mean over batches",
    ALEX: "LPIPS v0.1 with AlexNet, 8 bits, all pairs of a source's outputs, mean over sources",
}
KEYS = {LPIPS_STARGAN_V2: "lpips_weights.{}.main.1.weight", ALEX: "lin{}.model.1.weight"}
CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's five maps
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]
SMALL = 1e-10
FEWEST_PIXELS = 31  # a side; with fewer AlexNet's last maps are empty
FEWEST_OUTPUTS = 2
LPIPS_AT_ONCE = 40  # images
NORMAL_95 = 1.96  # standard errors

Unit = Callable[[Tensor], Tensor]


@dataclass(eq=False, slots=True)
class LPIPS:
    """LPIPS over given networks.

    Args:
        metric: its name, as rows show it.
        layers: AlexNet's convolutions; every ReLU gives a map.
        learnt: five tensors (1, C, 1, 1).
        unit: brings maps (n, C, h, w) to unit length over C.
        definition: in a sentence; default, that of `metric`.
        of_bytes: it measures what was saved with 8 bits, not floats.
        over_batches: the mean over sources is that of the batches' means.
        shift, scale: of the networks' RGB, of images in [-1, 1].
        device: of the networks.
    """

    metric: str
    layers: nn.Sequential
    learnt: Sequence[Tensor]
    unit: Unit
    definition: str = ""
    of_bytes: bool = False
    over_batches: bool = False
    shift: tuple[float, float, float] = SHIFT
    scale: tuple[float, float, float] = SCALE
    device: Device = "cpu"

    def __post_init__(self) -> None:
        """Freeze the networks."""
        self.definition = self.definition or LPIPS_DEFINITIONS[self.metric]
        self.layers = self.layers.eval().requires_grad_(False).to(self.device)
        self.learnt = [weight.detach().flatten().to(self.device) for weight in self.learnt]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the distances may."""
        return f"{digest(self.layers)} {[float(weight.sum()) for weight in self.learnt]}"

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Measure pairs of images, (n, 3, H, W) each, floating point in [-1, 1]: (n,) distances.

        Raises:
            ShapeError: the images are too small.
        """
        maps = self._maps(torch.cat([a, b]))
        return self._weighed((one[: len(a)] - one[len(a) :]).square() for one in maps)

    @torch.no_grad()
    def diversity(self, images: Tensor) -> Tensor:
        """Measure the outputs of each source: the mean over all pairs, from their variance.

        The mean squared difference of all pairs of K numbers is 2 K / (K - 1) times their
        variance: K passes in place of K (K - 1).

        Args:
            images: (n, K, 3, H, W), K >= 2 outputs of n sources, floating point in [-1, 1].

        Returns:
            (n,) mean distances, on the CPU.

        Raises:
            ShapeError: the images are too small.
        """
        count, distances = images.shape[1], [torch.empty(0)]
        for part in torch.split(images, max(1, LPIPS_AT_ONCE // count)) if len(images) else ():
            maps = self._maps(part.to(self.device).flatten(0, 1))
            each = (one.view(-1, count, *one.shape[1:]) for one in maps)  # (n, K, C, h, w)
            apart = (x - x.mean(1, keepdim=True) for x in each)  # `var` is far slower
            spread = (x.square_().mean(1) * (2 * count / (count - 1)) for x in apart)
            distances.append(self._weighed(spread).cpu())
        return torch.cat(distances)

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield AlexNet's maps (n, C, h, w) of images (n, 3, H, W), of unit length over C."""
        if min(x.shape[2:]) < FEWEST_PIXELS:
            raise ShapeError(
                f"LPIPS: got images of shape {tuple(x.shape)}; expected (n, 3, H, W) of "
                f"{FEWEST_PIXELS} pixels a side at least; check the model's size"
            )
        shift, scale = (x.new_tensor(of)[:, None, None] for of in (self.shift, self.scale))
        x, maps = (x - shift) / scale, 0
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                maps += 1
                yield self.unit(x)
            if maps == len(self.learnt):
                return  # the last pooling leads to no map

    def _weighed(self, squares: Iterator[Tensor]) -> Tensor:
        """Weigh the channels of squares (n, C, h, w) of every map and add them up: (n,)."""
        pairs = zip(squares, self.learnt, strict=True)
        return torch.stack([one.mean((2, 3)) @ weight for one, weight in pairs]).sum(0)


def unit_stargan_v2(maps: Tensor) -> Tensor:
    """Bring (n, C, h, w) to unit length over C; the small constant stands under the root."""
    return maps * maps.square().sum(1, keepdim=True).add_(SMALL).rsqrt_()


def unit_package(maps: Tensor) -> Tensor:
    """Bring (n, C, h, w) to unit length over C; the small constant is added to the length."""
    return maps / maps.square().sum(1, keepdim=True).sqrt_().add_(SMALL)


def trained_lpips(metric: str, *, cache: Cache = None, device: Device = "cpu") -> LPIPS:
    """Return a metric with its weights.

    Args:
        metric: LPIPS as StarGAN v2 measures it, of floats, the mean of the batches' means; or that
            of the package `lpips`, of 8 bits, the mean over sources.
        cache: the folder of weights; see `fetched.root`.
        device: of the networks.

    Raises:
        WeightsError: weights or torchvision are missing; the message says how to get them.
    """
    learnt = learnt_layers(metric, cache)
    layers = alexnet_layers(fetched.path("alexnet", cache))
    if metric == ALEX:
        return LPIPS(metric, layers, learnt, unit_package, of_bytes=True, device=device)
    return LPIPS(metric, layers, learnt, unit_stargan_v2, over_batches=True, device=device)


def learnt_layers(metric: str, cache: Cache = None) -> list[Tensor]:
    """Read the learnt layers of a metric.

    Raises:
        WeightsError: they are missing or others than expected.
    """
    shapes = {KEYS[metric].format(n): (1, size, 1, 1) for n, size in enumerate(CHANNELS)}
    state = external.read_state(fetched.path(metric, cache), expected=shapes)
    return [state[one] for one in shapes]


def alexnet_layers(path: Path | None = None) -> nn.Sequential:
    """Build AlexNet's convolutions, with random weights or those of a file.

    Raises:
        WeightsError: torchvision is missing, or the file is not AlexNet's.
    """
    with torch.device("meta"):  # no memory for the classifier, 235 MB that are not wanted
        network = external.package("torchvision.models").alexnet(weights=None)
    layers: nn.Sequential = network.features
    if path:
        state = external.read_state(path, expected=network.state_dict())
        network.load_state_dict(state, assign=True)
        return layers
    layers = layers.to_empty(device="cpu")
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    return layers


def lpips(faces: Faces, distances: Sequence[LPIPS], *, seed: int) -> list[Row]:
    """Measure how diverse the outputs of a source are: the mean over all pairs.

    Args:
        faces: the group.
        distances: one metric each.
        seed: for the rows.
    """
    rows: dict[str, list[Row]] = {one.metric: [] for one in distances}
    for direction in faces.directions:
        batches: dict[str, list[list[float]]] = {one.metric: [] for one in distances}
        single = 0
        for block in faces.blocks(direction):
            if block.shape[1] < FEWEST_OUTPUTS:
                single += len(block)
                continue
            for one in distances:
                x = to_floats(to_bytes(block) if one.of_bytes else block)
                batches[one.metric].append(one.diversity(x).tolist())
        for one in distances:
            every = [value for batch in batches[one.metric] for value in batch]
            row = _row(faces, one, "lpips", direction, len(every), seed)
            if single:
                reason = f"sources with one output; expected {FEWEST_OUTPUTS} or more; list more"
                rows[one.metric].append({**row, "reason": reason, "samples": single})
            if not every:
                continue
            means = [statistics.fmean(batch) for batch in batches[one.metric]]
            row["value"] = statistics.fmean(means if one.over_batches else every)
            if len(every) > 1:
                wide = NORMAL_95 * statistics.stdev(every) / len(every) ** 0.5
                row |= {"ci_low": row["value"] - wide, "ci_high": row["value"] + wide}
            rows[one.metric].append(row)
    return with_means(rows)


def networks(
    family: str, *, image_size: int, cache: Cache = None, device: Device = "cpu"
) -> tuple[list[Any], dict[str, str]]:
    """Load the networks of FID or of LPIPS whose weights are here; nothing is fetched.

    Args:
        family: "fid" or "lpips".
        image_size: pixels a side of the model.
        cache: the folder of weights; see `fetched.root`.
        device: of the networks.

    Returns:
        The networks, and by metric why one is missing and how to get it.
    """
    shared: dict[str, Any] = {"cache": cache, "device": device}
    ways: dict[str, Callable[[], Any]] = {
        FID_STARGAN_V2: partial(fid_stargan_v2, image_size=image_size, **shared),
        PYTORCH_FID: partial(pytorch_fid, **shared),
        LPIPS_STARGAN_V2: partial(trained_lpips, LPIPS_STARGAN_V2, **shared),
        ALEX: partial(trained_lpips, ALEX, **shared),
    }
    loaded, missing = [], {}
    for metric in {"fid": FID_DEFINITIONS, "lpips": LPIPS_DEFINITIONS}[family]:
        try:
            loaded.append(ways[metric]())
        except WeightsError as error:
            missing[metric] = str(error)
    return loaded, missing


def of_classifier(family: str, classifier: Any, label: str, *, device: Device) -> Any:
    """Make a substitute for FID or LPIPS of a classifier of faces, under a name of its own.

    Args:
        family: "fid" or "lpips".
        classifier: :class:`xfavot.evaluation.classifiers.FaceClassifier`, trained on real faces.
        label: what it is, for the name of the metric.
        device: where it is.
    """
    if family == "fid":
        return Extractor(
            f"frechet, {label}",
            f"Frechet distance over the features of {label}; no FID",
            lambda x: classifier.who(x).mean((2, 3)),
            to_floats,
            num_features=classifier.speaker.in_features,
            fingerprint=digest(classifier),
            device=device,
        )
    layers = nn.Sequential(*(layer for stage in classifier.who for layer in stage.children()))
    widths = [one.num_features for one in layers if isinstance(one, nn.BatchNorm2d)]
    return LPIPS(
        f"diversity, {label}",
        layers,
        [torch.full((width,), 1 / width) for width in widths],
        unit_package,
        definition=f"mean squared difference of the maps of {label}, unit length, all pairs of a "
        "source's outputs, mean over sources; no LPIPS",
        shift=(0, 0, 0),
        scale=(1, 1, 1),
        device=device,
    )


# What both have in common


def to_bytes(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits as torchvision saves them; what overshoots is cut."""
    if images.dtype == torch.uint8:
        return images
    return images.float().add(1).div_(2).clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)


def to_floats(images: Tensor) -> Tensor:
    """Bring 8 bits to [-1, 1]; floats stay what they are."""
    return to_float(images) if images.dtype == torch.uint8 else images


def _row(
    faces: Faces, metric: Extractor | LPIPS, family: str, direction: str, n: int, seed: int
) -> Row:
    definition = metric.definition + faces.note(family)
    own = {"metric": metric.metric, "direction": direction, "sex": faces.directions[direction]}
    return {**faces.names, **own, "n": n, "seed": seed, "definition": definition}
