"""Networks that come with the package: found in the right order, right under any statistics."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.store_factory import make_store
from xfavot import config, weights
from xfavot.audio.mel import MEL, Standardiser
from xfavot.config import RunConfig
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import ConfigError, WeightsError
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.training import keeping, pretrain

OWN = Standardiser(torch.linspace(-3.0, -1.0, 80), torch.linspace(0.5, 1.5, 80))
RUNS = Standardiser(torch.linspace(-2.0, -2.5, 80), torch.linspace(1.2, 0.4, 80))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("data")
    return make_store(root, corpus="grid", kind="audio", genders="fm", seconds=0.6)


@pytest.fixture
def cfg(store: Store, tmp_path: Path) -> RunConfig:
    return config.resolve(
        dataset="grid",
        preset="smoke",
        device="cpu",
        data_root=str(store.path.parent),
        run_root=str(tmp_path / "runs"),
    )


@pytest.fixture
def shipped(cfg: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an F0 and a content network of the smoke preset's widths."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    sizes: dict[str, dict[str, int]] = {
        "f0": {"mel_bins": 80, "f0_width": cfg.model.f0_width},
        "content": {
            "mel_bins": 80,
            "content_width": cfg.model.content_width,
            "content_channels": cfg.model.content_channels,
            "depth": 1,
        },
    }
    for name, arguments in sizes.items():
        torch.manual_seed(1)
        network = keeping.KINDS[name](**arguments)
        record: dict[str, Any] = {
            "network": name,
            "contract": MEL.as_dict(),
            "arguments": arguments,
            "standardiser": {"mean": OWN.mean.tolist(), "std": OWN.std.tolist()},
            "measures": {"val/clips": 3.0, "val/voicing_error": 0.25, "val/f/clips": 1.0},
        }
        keeping.keep(tmp_path / name, network, record)
        (tmp_path / name / keeping.WEIGHTS).rename(folder / f"{name}.safetensors")
    monkeypatch.setattr(weights, "FOLDER", folder)
    return folder


def with_source(cfg: RunConfig, source: str) -> RunConfig:
    return dataclasses.replace(cfg, pretrain=dataclasses.replace(cfg.pretrain, source=source))


@pytest.mark.parametrize("name", ["f0", "content"])
def test_a_shipped_network_hears_the_same_under_any_statistics(shipped: Path, name: str) -> None:
    log_mel = -2.0 + torch.randn(1, 1, 80, 30, generator=torch.Generator().manual_seed(0))
    path = shipped / f"{name}.safetensors"
    own = keeping.load_network(path).network
    assert torch.equal(own.input_scale, torch.ones(80))
    moved = keeping.load_network(path, RUNS).network
    wanted = own.features(OWN.standardise(log_mel))
    torch.testing.assert_close(
        moved.features(RUNS.standardise(log_mel)), wanted, rtol=1e-3, atol=1e-4
    )
    assert not torch.allclose(own.features(RUNS.standardise(log_mel)), wanted, atol=1e-2)
    assert not moved.training
    assert not any(parameter.requires_grad for parameter in moved.parameters())


def test_shipped_networks_spare_the_training(shipped: Path, cfg: RunConfig, store: Store) -> None:
    said: list[Any] = []
    f0, content = (
        pretrain.ensure_network(name, cfg, [store], RUNS, said.append) for name in keeping.KINDS
    )
    assert isinstance(f0.network, F0Network)
    assert isinstance(content.network, ContentNetwork)
    assert f0.metrics["val/voicing_error"] == 0.25
    torch.testing.assert_close(f0.network.input_scale, RUNS.std / OWN.std)
    ending = " network that comes with the package: val/clips 3, val/voicing_error 0.250"
    assert [r["message"] for r in said] == [f"f0{ending}", f"content{ending}"]
    assert not Path(cfg.run_root, "auxiliary").exists()


def test_a_network_kept_for_this_recipe_goes_before(
    shipped: Path, cfg: RunConfig, store: Store
) -> None:
    statistics = mel_statistics([store], split="train")
    trained = pretrain.ensure_network("f0", with_source(cfg, "train"), [store], statistics)
    assert trained.path.parent == Path(cfg.run_root, "auxiliary")
    assert pretrain.ensure_network("f0", cfg, [store], statistics).path == trained.path
    asked = pretrain.ensure_network("f0", with_source(cfg, "shipped"), [store], statistics)
    assert asked.path == shipped / "f0.safetensors"


def test_a_shipped_content_network_needs_no_transcripts(
    shipped: Path, cfg: RunConfig, tmp_path: Path
) -> None:
    mute = make_store(tmp_path / "data", corpus="voxceleb", kind="audio", transcript="")
    cfg = dataclasses.replace(cfg, data_root=str(tmp_path / "data"))
    found = pretrain.ensure_network("content", cfg, [mute], RUNS)
    assert found.path == shipped / "content.safetensors"
    assert not (tmp_path / "data" / "mini").exists()


def test_other_widths_are_trained_or_refused(shipped: Path, cfg: RunConfig, store: Store) -> None:
    wider = dataclasses.replace(cfg, model=dataclasses.replace(cfg.model, f0_width=6))
    assert pretrain.ensure_network("f0", wider, [store], RUNS).path.parent.name == "auxiliary"
    with pytest.raises(WeightsError, match=r"'shipped'.*'f0_width': 6"):
        pretrain.ensure_network("f0", with_source(wider, "shipped"), [store], RUNS)
    with pytest.raises(ConfigError, match=r"pretrain.source is 'trian'.*train"):
        with_source(cfg, "trian")


def test_damaged_shipped_weights_are_refused(shipped: Path, cfg: RunConfig, store: Store) -> None:
    path = shipped / "f0.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="install the package again"):
        pretrain.ensure_network("f0", cfg, [store], RUNS)
    path.unlink()
    assert pretrain.ensure_network("f0", cfg, [store], RUNS).path.parent.name == "auxiliary"
