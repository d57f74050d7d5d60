"""Measures of converted faces: FID and its like, LPIPS, what they keep of their sources.

Paper, App. B, after StarGAN v2: between the two domains (women, men), in both directions, every
source of the validation split gets ten outputs. LPIPS is the diversity of the ten; FID holds all
outputs of a direction against the training images of the target domain. Both directions are shown
apart and averaged. Pose and contours of output and source are this project's own measures, held
against chance. Faces come in blocks, and only sums are kept, so memory does not grow with their
number.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import DataError, ShapeError
from xfavot.evaluation.manifest import Faces, attempt
from xfavot.evaluation.rows import DEFINITIONS, Array, Row, ratio, with_means
from xfavot.image import io
from xfavot.image.align import detect
from xfavot.weights import external, fetched

Device = torch.device | str
Picture = NDArray[np.uint8]


def to_bytes(images: Tensor) -> Tensor:
    """Round images in [-1, 1] to 8 bits; bytes stay what they are."""
    return images if images.dtype == torch.uint8 else io.to_bytes(images)


def to_floats(images: Tensor) -> Tensor:
    """Bring 8 bits to [-1, 1]; floats stay what they are."""
    return io.to_float(images) if images.dtype == torch.uint8 else images


def _row(faces: Faces, metric: str, definition: str, direction: str, **known: Any) -> Row:
    known |= {"metric": metric, "definition": definition, "direction": direction}
    return {**faces.names, "sex": faces.directions[direction], **known}


# FID under two protocols, which give different numbers for the same images


FID_STARGAN_V2, PYTORCH_FID = "fid_stargan_v2", "fid_pytorch"
FRECHET_LITE0 = "frechet_efficientnet_lite0"  # no FID: over features of another network
SIDE = 299  # pixels
FEATURES = 2048
FEWEST_IMAGES = 2  # that have a covariance
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
FID_AT_ONCE = 8  # images; more need more memory and, on a CPU, more time
CHANGED = {  # blocks of TensorFlow's network that differ from torchvision's, and their sizes
    **{"Mixed_5b": ("A", 192, 32), "Mixed_5c": ("A", 256, 64), "Mixed_5d": ("A", 288, 64)},
    **{"Mixed_6b": ("C", 768, 128), "Mixed_6c": ("C", 768, 160), "Mixed_6d": ("C", 768, 160)},
    **{"Mixed_6e": ("C", 768, 192), "Mixed_7b": ("E_1", 1280), "Mixed_7c": ("E_2", 2048)},
}
LITE0 = (  # stages: expansion, kernel, stride, channels, blocks
    *((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)),
    *((6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)),
)
LITE0_SIDE = 224  # pixels
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
        parts = torch.split(images.cpu(), FID_AT_ONCE)
        features = torch.cat([self.network(self.prepare(x).to(self.device)) for x in parts])
        if bad := int((~features.isfinite().all(1)).sum()):
            raise DataError(
                f"{self.metric}: the features of {bad} of {len(features)} images are not finite; "
                "look at the images and at the extractor's precision"
            )
        return features.double().cpu()

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


def stargan_v2_input(images: Tensor, image_size: int) -> Tensor:
    """Bring images (n, 3, H, W) uint8 to (n, 3, 299, 299) as StarGAN v2 does, by Pillow."""
    to = external.package("torchvision.transforms")
    sizes = [to.Resize([image_size, image_size]), to.Resize([SIDE, SIDE])]
    steps = [to.ToPILImage(), *sizes, to.ToTensor(), to.Normalize(MEAN, DEVIATION)]
    return torch.stack([*map(to.Compose(steps), images)])


def pytorch_fid_input(images: Tensor, image_size: int) -> Tensor:
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


class InvertedBottleneck(nn.Sequential):
    """A block of EfficientNet without squeeze; its layers bear the names of the file of weights.

    Args:
        inputs, outputs: channels.
        expansion: channels between them, in those of the input.
        kernel, stride: of the convolution in the middle.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        """Build it with random weights."""
        wide, layers = inputs * expansion, OrderedDict[str, nn.Module]()
        if expansion > 1:
            layers |= convolution("_expand_conv", "_bn0", inputs, wide)
        layers |= convolution("_depthwise_conv", "_bn1", wide, wide, kernel, stride, groups=wide)
        layers |= convolution("_project_conv", "_bn2", wide, outputs)
        del layers["_bn2_relu"]
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Change maps (n, C, H, W); they are added to what keeps their shape."""
        changed = x
        for layer in self:
            changed = layer(changed)
        return x + changed if x.shape == changed.shape else changed


def convolution(
    name: str, norm: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, **more: Any
) -> OrderedDict[str, nn.Module]:
    """Make a convolution by name with what stands around it, padded as TensorFlow pads."""
    before = (kernel - stride) // 2  # of a side that the stride divides
    return OrderedDict(
        {
            f"{name}_pad": nn.ZeroPad2d((before, kernel - stride - before) * 2),
            name: nn.Conv2d(inputs, outputs, kernel, stride, bias=False, **more),
            norm: nn.BatchNorm2d(outputs, eps=1e-3),
            f"{norm}_relu": nn.ReLU6(inplace=True),
        }
    )


def efficientnet_lite0() -> nn.Module:
    """Build EfficientNet-lite0 with random weights; `_fc` takes its 1280 features.

    Tan and Le 2019, Table 1, without squeeze-and-excitation and with ReLU6 (Liu 2020).
    """
    blocks, inputs = list[nn.Module](), 32
    for expansion, kernel, stride, outputs, repeats in LITE0:
        for number in range(repeats):
            given = (expansion, kernel, 1 if number else stride)
            blocks.append(InvertedBottleneck(inputs, outputs, *given))
            inputs = outputs
    layers = convolution("_conv_stem", "_bn0", 3, 32, 3, 2)
    layers["_blocks"] = nn.Sequential(*blocks)
    layers |= convolution("_conv_head", "_bn1", inputs, 1280)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "_fc": nn.Linear(1280, 1000)}
    return nn.Sequential(layers).eval().requires_grad_(False)


def lite0_input(images: Tensor, image_size: int) -> Tensor:
    """Bring images (n, 3, H, W) uint8 to (n, 3, 224, 224) in about [-1, 1], as it was trained."""
    how: dict[str, Any] = {"mode": "bicubic", "antialias": True}
    x = functional.interpolate(images.float(), (LITE0_SIDE, LITE0_SIDE), **how)
    return x.clamp_(0, 255).sub_(127).div_(128)


def trained_extractor(metric: str, image_size: int, device: Device = "cpu") -> Extractor:
    """Return the extractor of a protocol with its weights; see :func:`networks`."""
    name, build, prepare = FID_WEIGHTS[metric]
    path, network = fetched.path(name), build()
    state = external.read_state(path, expected=network.state_dict(), ignored=(COUNTERS,))
    network.load_state_dict(state, strict=False)
    *_, (last, classes) = network.named_children()
    setattr(network, last, nn.Identity())
    known: dict[str, Any] = {"fingerprint": f"{digest(network)} {image_size}", "device": device}
    known["prepare"] = partial(prepare, image_size=image_size)
    known["num_features"] = classes.in_features
    return Extractor(metric, DEFINITIONS["fid"][metric], network.to(device), **known)


FID_WEIGHTS: dict[str, tuple[str, Callable[[], nn.Module], Callable[..., Tensor]]] = {
    FID_STARGAN_V2: ("inception_torchvision", imagenet_inception, stargan_v2_input),
    PYTORCH_FID: ("inception_fid", tensorflow_inception, pytorch_fid_input),
    FRECHET_LITE0: ("efficientnet_lite0", efficientnet_lite0, lite0_input),
}


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
            known: Row = {"n": n, "n_real": real, "seed": seed}
            if min(n, real) < FEWEST_IMAGES:
                reason = f"{n} outputs and {real} real faces; expected {FEWEST_IMAGES} of both"
                known |= {"reason": f"{reason} at least; score more", "samples": n}
            else:
                known["value"] = max(float(metric.compute()), 0.0)
            text = one.definition + faces.note("fid")
            rows[one.metric].append(_row(faces, one.metric, text, direction, **known))
    return with_means(rows)


# LPIPS (Zhang et al. 2018): how different two faces look, how diverse a source's outputs


LPIPS_STARGAN_V2, ALEX = "lpips_stargan_v2", "lpips_alex"
KEYS = {LPIPS_STARGAN_V2: "lpips_weights.{}.main.1.weight", ALEX: "lin{}.model.1.weight"}
CHANNELS = (64, 192, 384, 256, 256)  # of AlexNet's five maps
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of RGB in [-1, 1]
SMALL = 1e-10
FEWEST_PIXELS = 31  # a side; with fewer AlexNet's last maps are empty
FEWEST_OUTPUTS = 2
LPIPS_AT_ONCE = 40  # images
NORMAL_95 = 1.96  # standard errors


@dataclass(eq=False, slots=True)
class LPIPS:
    """LPIPS over given networks.

    As StarGAN v2 measures it, by the name of the metric, it takes floats, and its mean is that of
    the batches' means; as the package `lpips` does, what was saved with 8 bits, and the mean over
    sources.

    Args:
        metric: its name, as rows show it.
        layers: AlexNet's convolutions, in evaluation mode; every ReLU gives a map.
        learnt: a tensor (1, C, 1, 1) for every map.
        definition: in a sentence.
        normalised: images are, as AlexNet expects it.
        device: of the networks.
    """

    metric: str
    layers: nn.Sequential
    learnt: Sequence[Tensor]
    definition: str = ""
    normalised: bool = True
    device: Device = "cpu"

    @property
    def fingerprint(self) -> str:
        """Changes whenever the distances may."""
        return f"{digest(self.layers)} {[float(weight.sum()) for weight in self.learnt]}"

    @torch.no_grad()
    def diversity(self, images: Tensor) -> Tensor:
        """Measure the outputs of each source: the mean over all pairs, from their variance.

        The mean squared difference of all pairs of K numbers is 2 K / (K - 1) times their
        variance: K passes in place of K (K - 1).

        Args:
            images: (n, K, 3, H, W), K >= 2 outputs of n sources, uint8 or floats in [-1, 1].

        Returns:
            (n,) mean distances, on the CPU.

        Raises:
            ShapeError: the images are too small.
        """
        images = to_floats(to_bytes(images) if self.metric == ALEX else images)
        count, distances = images.shape[1], []
        for part in torch.split(images, max(1, LPIPS_AT_ONCE // count)):
            maps, sums = self._maps(part.to(self.device).flatten(0, 1)), []
            for one, weight in zip(maps, self.learnt, strict=True):
                x = one.view(-1, count, *one.shape[1:])  # (n, K, C, h, w)
                x = x - x.mean(1, keepdim=True)  # `var` is far slower
                sums.append(x.square_().mean(1).mean((2, 3)) @ weight.flatten().to(self.device))
            distances.append(torch.stack(sums).sum(0).cpu() * (2 * count / (count - 1)))
        return torch.cat(distances)

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield AlexNet's maps (n, C, h, w) of images (n, 3, H, W), of unit length over C."""
        if min(x.shape[2:]) < FEWEST_PIXELS:
            raise ShapeError(
                f"LPIPS: got images of shape {tuple(x.shape)}; expected (n, 3, H, W) of "
                f"{FEWEST_PIXELS} pixels a side at least; check the model's size"
            )
        if self.normalised:
            x = (x - x.new_tensor(SHIFT)[:, None, None]) / x.new_tensor(SCALE)[:, None, None]
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                length = x.square().sum(1, keepdim=True)
                if self.metric == LPIPS_STARGAN_V2:  # the small constant stands under the root
                    yield x * length.add_(SMALL).rsqrt_()
                else:
                    yield x / length.sqrt_().add_(SMALL)


def learnt_layers(metric: str) -> list[Tensor]:
    """Read the learnt layers of a metric, which weigh the channels of AlexNet's maps."""
    shapes = {KEYS[metric].format(n): (1, size, 1, 1) for n, size in enumerate(CHANNELS)}
    state = external.read_state(fetched.path(metric), expected=shapes)
    return [state[one] for one in shapes]


def trained_lpips(metric: str, _: int = 0, device: Device = "cpu") -> LPIPS:
    """Return a metric with its weights; see :func:`networks`."""
    learnt, path = learnt_layers(metric), fetched.path("alexnet")
    with torch.device("meta"):  # no memory for random weights
        network = external.package("torchvision.models").alexnet(weights=None)
    network.load_state_dict(external.read_state(path, expected=network.state_dict()), assign=True)
    layers = network.eval().features[:-1].to(device)  # the last pooling leads to no map
    return LPIPS(metric, layers, learnt, DEFINITIONS["lpips"][metric], device=device)


def lpips(faces: Faces, distances: Sequence[LPIPS], *, seed: int) -> list[Row]:
    """Measure how diverse the outputs of a source are: the mean over all pairs.

    Args:
        faces: the group.
        distances: one metric each.
        seed: for the rows.
    """
    rows: dict[str, list[Row]] = {one.metric: [] for one in distances}
    for direction in faces.directions:
        batches: dict[str, list[Tensor]] = {one.metric: [] for one in distances}
        single = 0
        for block in faces.blocks(direction):
            if block.shape[1] < FEWEST_OUTPUTS:
                single += len(block)
                continue
            for one in distances:
                batches[one.metric].append(one.diversity(block).double())
        for one in distances:
            every = torch.cat([torch.empty(0), *batches[one.metric]])
            text = one.definition + faces.note("lpips")
            row = _row(faces, one.metric, text, direction, n=len(every), seed=seed)
            if single:
                reason = f"sources with one output; expected {FEWEST_OUTPUTS} or more; list more"
                rows[one.metric].append({**row, "reason": reason, "samples": single})
            if not len(every):
                continue
            means = torch.stack([batch.mean() for batch in batches[one.metric]])
            row["value"] = float((means if one.metric == LPIPS_STARGAN_V2 else every).mean())
            if len(every) > 1:
                wide = NORMAL_95 * float(every.std()) / len(every) ** 0.5
                row |= {"ci_low": row["value"] - wide, "ci_high": row["value"] + wide}
            rows[one.metric].append(row)
    return with_means(rows)


def networks(family: str, *, image_size: int, device: Device = "cpu") -> dict[str, Any]:
    """Load the networks of FID or of LPIPS whose weights are here; nothing is fetched.

    Args:
        family: "fid" or "lpips".
        image_size: pixels a side of the model; StarGAN v2's real images pass through this size.
        device: of the networks.

    Returns:
        By metric its network, or the error that says why it is missing and how to get it.
    """
    load = trained_extractor if family == "fid" else trained_lpips
    return {metric: attempt(load, metric, image_size, device) for metric in DEFINITIONS[family]}


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
    widths = [convolution.out_channels for convolution, *_ in classifier.who]
    return LPIPS(
        f"diversity, {label}",
        nn.Sequential(*(layer for stage in classifier.who for layer in stage)),
        [torch.full((width,), 1 / width) for width in widths],
        f"mean squared difference of the maps of {label}, unit length, all pairs of a source's "
        "outputs, mean over sources; no LPIPS",
        normalised=False,
        device=device,
    )


# What a face keeps of its source: this project's own measures, held against chance, which is the
# same output and another source


POSE, CONTOUR, FOUND = ("pose_error", "contour_f", "face_found")
LEAST_PIXELS = 128  # a side; smaller pictures are enlarged for the detector
CANNY, BLUR = (50.0, 150.0), 1.0  # thresholds on 8 bits; sigma in pixels at 128
TOLERANCE = 0.008  # of the diagonal, as in DAVIS (Perazzi et al. 2016)


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
    """
    if not (output.any() and source.any()):
        return float(output.any() == source.any())
    near_source, near_output = (
        cv2.distanceTransform((~one).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        <= np.ceil(TOLERANCE * np.hypot(*output.shape))
        for one in (source, output)
    )
    precision, recall = near_source[output].mean(), near_output[source].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def poses(images: Sequence[Picture]) -> list[Array | None]:
    """Pose of each picture; small ones are enlarged, which changes no proportion.

    Raises:
        DataError: the detector is not installed.
    """
    scale = max(1.0, LEAST_PIXELS / max(min(images[0].shape[:2]), 1)) if images else 1.0
    larger = [
        cv2.resize(one, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC).astype(np.uint8)
        for one in images
    ]
    return [None if one is None else pose(one) for one in detect(larger)]


Compared = Iterator[tuple[str, bool, float]]  # metric, whether by chance, value


def kept(before: Tensor, after: Tensor, *_: Tensor) -> Compared:
    """Compare outputs with their sources, (n, 3, H, W) uint8; by chance, with the next source."""
    sources, outputs = (list(x.permute(0, 2, 3, 1).contiguous().numpy()) for x in (before, after))
    first, second = poses(sources), poses(outputs)
    drawn, lines = [*map(edges, sources)], [*map(edges, outputs)]
    for n, own in enumerate(second):
        yield FOUND, False, float(own is not None)
        for other in {n, (n + 1) % len(first)}:
            yield CONTOUR, n != other, contour_f(lines[n], drawn[other])
            theirs = first[other]
            if own is not None and theirs is not None:
                yield POSE, n != other, float(np.abs(own - theirs).mean())


def preservation(
    faces: Faces,
    *,
    seed: int,
    compare: Callable[..., Compared] = kept,
    family: str = "preservation",
) -> list[Row]:
    """Measure what outputs keep of their sources, or whom they show.

    Args:
        faces: the group; without pairs of source and output it has no rows.
        seed: of the bootstrap over outputs.
        compare: takes what :class:`Faces` pairs and yields values.
        family: of the metrics in :data:`DEFINITIONS`.

    Raises:
        DataError: the detector is not installed.
    """
    rows: dict[str, list[Row]] = {metric: [] for metric in DEFINITIONS[family]}
    for direction in faces.directions if faces.pairs else ():
        assert faces.pairs is not None
        found: dict[tuple[str, bool], list[float]] = defaultdict(list)
        for block in faces.pairs(direction):
            for metric, chance, value in compare(*block):
                found[metric, chance].append(value)
        for metric, text in DEFINITIONS[family].items():
            if values := found[metric, False]:
                samples = [(value, 1.0, str(n)) for n, value in enumerate(values)]
                known = ratio(samples, seed=seed)
                chances = found[metric, True]
                known["chance"] = float(np.mean(chances)) if chances else None
                rows[metric].append(_row(faces, metric, text, direction, **known))
    return with_means(rows)
