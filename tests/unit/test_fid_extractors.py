"""Extractors of FID: how images are brought to a network, missing and wrong weights, names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import images as images_evaluation
from xfavot.evaluation.images import available_metrics, to_bytes, to_floats


def pictures(count: int, side: int, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("side", "size"), [(128, 128), (96, 64), (320, 128)])
def test_ancestors_input_is_that_of_torchvisions_transforms(side: int, size: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image_module = pytest.importorskip("PIL.Image")
    chain = transforms.Compose(
        [
            transforms.Resize([size, size]),
            transforms.Resize([299, 299]),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    x = pictures(2, side)
    expected = [chain(image_module.fromarray(one.permute(1, 2, 0).numpy())) for one in x]
    found = images_evaluation.stargan_v2_input(x, size)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-6)


def test_bytes_are_those_that_torchvision_saves(tmp_path: Path) -> None:
    save_image = pytest.importorskip("torchvision.utils").save_image
    image_module = pytest.importorskip("PIL.Image")
    x = torch.randn(3, 50, 40) * 0.8  # beyond [-1, 1] here and there
    save_image((x + 1) / 2, tmp_path / "x.png")
    saved = np.asarray(image_module.open(tmp_path / "x.png"))
    assert np.array_equal(to_bytes(x).permute(1, 2, 0).numpy(), saved)
    ends = to_floats(torch.tensor([0, 255], dtype=torch.uint8))
    assert ends.tolist() == [-1, 1]


def stub(dims: int = 4) -> images_evaluation.Extractor:
    def network(x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x.mean(1), (1, dims)).flatten(1)

    return images_evaluation.substitute("a stub", network, dims=dims, fingerprint="stub 1")


def test_substitute_has_its_own_name() -> None:
    extractor = stub()
    assert extractor.metric == "frechet, a stub"
    assert "no FID" in extractor.definition
    x = pictures(70, 8)
    expected = (x.float() / 127.5 - 1).mean((1, 2)).unflatten(1, (4, 2)).mean(2)
    torch.testing.assert_close(extractor.features(x), expected)
    assert extractor.features(x[:0]).shape == (0, 4)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 8, 8), pictures(1, 8)[0], pictures(2, 8)[:, :1]]
)
def test_images_of_another_kind(images: Tensor) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(n, 3, H, W\), RGB"):
        stub().features(images)


def test_real_statistics_are_read_back(tmp_path: Path) -> None:
    opened: list[int] = []

    def batches() -> Iterator[Tensor]:
        opened.append(1)
        yield from torch.split(pictures(30, 8), 13)

    first = stub().real_moments(batches, images="train, female", folder=tmp_path)
    again = stub().real_moments(batches, images="train, female", folder=tmp_path)
    assert first.count == again.count == 30
    assert torch.equal(first.scatter, again.scatter)
    assert len(opened) == 1
    stub().real_moments(batches, images="train, male", folder=tmp_path)
    stub(dims=2).real_moments(batches, images="train", folder=tmp_path)
    assert len(opened) == 3


def test_every_missing_metric_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XFAVOT_OFFLINE", raising=False)
    lines: list[str] = []
    found = available_metrics(image_size=64, cache=tmp_path, on_log=lines.append)
    assert not found.extractors
    assert not found.distances
    sets = {
        "fid_stargan_v2": "inception_torchvision",
        "fid_pytorch": "inception_fid",
        "lpips_stargan_v2": "lpips_stargan_v2",
        "lpips_alex": "alexnet",
    }
    assert found.missing.keys() == sets.keys()
    for line, (metric, name) in zip(lines, sets.items(), strict=True):
        assert line == f"{metric} is not available: {found.missing[metric]}"
        assert f"python -m xfavot.cli fetch-weights {name}" in line
        assert "licence: " in line


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    pytest.importorskip("torchvision")
    pytest.importorskip("pytorch_fid")
    torch.manual_seed(0)
    return {
        "inception_torchvision": images_evaluation.imagenet_inception(),
        "inception_fid": images_evaluation.tensorflow_inception(),
    }


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("xfavot.weights.fetched.path", lambda name, cache=None: tmp_path / name)
    return tmp_path


def make(name: str) -> images_evaluation.Extractor:
    return (
        images_evaluation.fid_stargan_v2(image_size=64)
        if "torchvision" in name
        else images_evaluation.pytorch_fid()
    )


@pytest.mark.parametrize("name", ["inception_torchvision", "inception_fid"])
def test_weights_are_those_of_the_file(
    name: str, networks: dict[str, nn.Module], weights_folder: Path
) -> None:
    state = networks[name].state_dict()
    older = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(older, weights_folder / name)
    extractor = make(name)
    inputs: list[Tensor] = []
    hook = networks[name].fc.register_forward_pre_hook(lambda m, given: inputs.append(given[0]))
    x = pictures(2, 64)
    with torch.no_grad():
        networks[name](extractor.prepare(x))
    hook.remove()
    found = extractor.features(x)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, inputs[0])
    assert float(found.std()) > 0
    assert extractor.definition == images_evaluation.FID_DEFINITIONS[extractor.metric]
    assert ("pytorch" in extractor.metric) == (name == "inception_fid")


def test_weights_of_another_network(networks: dict[str, nn.Module], weights_folder: Path) -> None:
    name = "Mixed_7c.branch1x1.conv.weight"
    state = networks["inception_fid"].state_dict()
    wrong = {**state, name: state[name][:7], "more": state[name]}
    torch.save(wrong, weights_folder / "inception_fid")
    with pytest.raises(WeightsError, match=r"2 of .* expected tensors do not fit"):
        make("inception_fid")
