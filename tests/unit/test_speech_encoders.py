"""Encoders of speech that others trained: opened, judged by association, teachers of content."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import Patch, refuses
from tests.unit.store_factory import make_store
from xfavot import config
from xfavot.data.store import Store, mel_statistics
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import association
from xfavot.models.pretrained import SpeechEncoder, similarities
from xfavot.training import pretrain, speech

library: Any = pytest.importorskip("transformers", reason="the extra `encoders` is not installed")
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
CONVOLUTIONS = {
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (5, 64),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
}
WAVE = np.random.default_rng(0).normal(0, 0.1, 36_000).astype(np.float32)  # 1.5 s


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders as transformers saves them, with random weights."""
    root = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    wave = library.Wav2Vec2FeatureExtractor()
    spectrogram = library.ASTFeatureExtractor(max_length=64)
    kinds = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2"}
    for name, kind in kinds.items():
        settings = getattr(library, f"{kind}Config")(**SMALL, **CONVOLUTIONS)
        getattr(library, f"{kind}Model")(settings).save_pretrained(root / name)
        wave.save_pretrained(root / name)
    library.ASTModel(library.ASTConfig(**SMALL, max_length=64)).save_pretrained(root / "ast")
    spectrogram.save_pretrained(root / "ast")
    return root


@pytest.fixture
def root(made: Path, monkeypatch: Patch) -> Path:
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(made))
    return made


@pytest.mark.parametrize(
    ("name", "hop_s", "count"),
    [("hubert", 0.02, 75), ("wavlm", 0.02, 75), ("wav2vec2", 0.02, 75), ("ast", 0.1, 15)],
)
def test_encoders_hear_speech_of_any_length(
    root: Path, name: str, hop_s: float, count: int
) -> None:
    encoder = SpeechEncoder(name)
    told = encoder(WAVE)
    assert encoder.hop_s == pytest.approx(hop_s)
    assert told.shape == (count, 16)  # AST: three windows
    assert encoder.embed(WAVE).shape == (16,)
    assert np.allclose(encoder.embed(4 * WAVE), encoder.embed(WAVE), atol=1e-3) == (name != "ast")
    refuses(DataError, "expected .N,. finite ones", encoder, WAVE[:100])
    refuses(DataError, "expected .N,. finite ones", encoder, np.full(24_000, np.nan))


def test_what_does_not_fit_is_named(root: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path))
    shutil.copytree(root / "hubert", folder := tmp_path / "encoder")
    settings = json.loads((folder / "config.json").read_bytes())

    def refused(said: str, **changes: Any) -> None:
        (folder / "config.json").write_text(json.dumps(settings | changes))
        refuses(WeightsError, said, SpeechEncoder, "encoder")

    refused(
        "model_type is 'mert_model'; expected one of: wav2vec2, hubert", model_type="mert_model"
    )
    refused("tensors are missing or do not fit.*layer_norm.bias", hidden_size=32)
    refused("1[0-9] tensors are missing.*encoder.layers.2", num_hidden_layers=3)
    (folder / "preprocessor_config.json").unlink()
    refused("preprocessor_config.json")
    refuses(WeightsError, "absent cannot be used", SpeechEncoder, "absent")


def test_voices_may_be_heard_by_such_an_encoder(root: Path, tmp_path: Path) -> None:
    store = make_store(tmp_path / "data", clips=2)
    said: list[str] = []
    pairs = association.read_pairs([store], tmp_path / "kept", said.append, voices="hubert")
    assert pairs.features.shape == (8, association.FACE + 16)
    (store, item), encoder = pairs.clip(3), SpeechEncoder("hubert")
    told = encoder.embed(store.waveform(item))
    assert pairs.of("voice", np.array([3]))[0].numpy() == pytest.approx(told, abs=2e-3)
    heads = association.fit(pairs, np.arange(len(pairs.speakers)), steps=2, seed=0)
    association.save(heads, file := tmp_path / "heads.safetensors", voices="hubert")
    x = torch.randn(2, 16)
    assert torch.equal(association.load(file)("voice", x), heads("voice", x))


def test_moments_are_compared_whatever_the_number_of_values() -> None:
    x = torch.randn(9, 4)
    turned = torch.linalg.qr(torch.randn(7, 4)).Q
    torch.testing.assert_close(similarities(x @ turned.T + 3), similarities(x))
    assert not torch.allclose(similarities(x.flip(0)), similarities(x))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "data", corpus="grid", kind="audio", genders="fm", seconds=[1.0])


def test_a_teacher_shapes_what_the_content_network_compares(
    root: Path, store: Store, tmp_path: Path
) -> None:
    places = {"data_root": str(store.path.parent), "run_root": str(tmp_path / "runs")}
    more: dict[str, Any] = {"dataset": "grid", "preset": "smoke", "device": "cpu", **places}
    plain = config.resolve(**more)
    taught = config.resolve(**more, overrides={"pretrain.teacher": "hubert"})
    assert config.config_id(plain) != config.config_id(taught)
    lesson = dataclasses.replace(plain.pretrain, teacher="", content_steps=30, content_lr=0.01)
    known, lengths = mel_statistics([store], split="train"), {"batch_size": 4}
    lesson = dataclasses.replace(lesson, **lengths)

    def how_far(teacher: str) -> float:
        settings = dataclasses.replace(lesson, teacher=teacher)
        cfg = dataclasses.replace(plain, pretrain=settings)
        network, _ = pretrain.train("content", cfg, [store], known)
        clips = speech.clips_of([store], "train", needs="transcript")
        batch = speech.content_batch(
            clips, batch_size=8, seed=5, step=1, teacher=SpeechEncoder("hubert")
        )
        assert [len(one) for one in batch[-1]] == ((batch[1] + 1) // 2).tolist()
        with torch.no_grad():
            return float(speech.content_loss(network, known, *batch)["taught"])

    assert how_far("hubert") < 0.8 * how_far("")
    trained = pretrain.ensure_network("content", taught, [store], known)
    assert trained.record["teacher"] == "hubert"
    assert pretrain.ensure_network("content", plain, [store], known).path != trained.path
    insists = dataclasses.replace(taught.pretrain, source="shipped")
    cfg = dataclasses.replace(taught, pretrain=insists)
    refuses(
        WeightsError,
        "without pretrain.teacher",
        pretrain.ensure_network,
        "content",
        cfg,
        [store],
        known,
    )
