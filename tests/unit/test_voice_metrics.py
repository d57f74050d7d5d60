"""Speaker similarity, word error, melody, content: against their packages and by hand."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

from xfavot.audio.f0 import world_f0
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import voice_networks as networks
from xfavot.evaluation import voices
from xfavot.evaluation.voice_networks import SpeakerEncoder
from xfavot.evaluation.voices import CER, WER, count_errors, normalise, similarity

RATE = 24_000


def voice(hz: float = 120.0, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """A buzz through three formants, loud and quiet in turn: voiced to WORLD and to a detector."""
    t = np.arange(int(seconds * rate)) / rate
    buzz = sum(
        np.exp(-(((k * hz - f) / 300) ** 2)) * np.sin(2 * np.pi * k * hz * t)
        for k in range(1, 25)
        for f in (600, 1200, 2500)
    )
    return (0.05 * buzz * (1 + 0.5 * np.sin(2 * np.pi * 4 * t))).astype(np.float32)


def at_30_dbfs(x: np.ndarray) -> np.ndarray:
    """The same sound at a level of -30 dBFS."""
    return np.asarray(x * 10 ** (-30 / 20) / np.sqrt(np.mean(x.astype(np.float64) ** 2)), "float32")


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    pytest.importorskip("webrtcvad")
    return SpeakerEncoder()


def test_embedding_is_that_of_resemblyzer(encoder: SpeakerEncoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import resemblyzer
    x = voice()
    theirs = resemblyzer.VoiceEncoder("cpu", verbose=False)
    quiet = resemblyzer.preprocess_wav(at_30_dbfs(x), source_sr=RATE)  # without its pauses
    wanted = theirs.embed_utterance(at_30_dbfs(quiet))
    np.testing.assert_allclose(encoder.embed(x), wanted, atol=1e-6)


def test_speaker_similarity_does_not_depend_on_level(encoder: SpeakerEncoder) -> None:
    x = np.concatenate([voice(), np.zeros(RATE, np.float32)])
    low, quiet, loud, high = map(encoder.embed, (x, 0.01 * x, 3.0 * x, voice(240)))
    assert similarity(low, quiet) > 0.9999
    assert similarity(low, loud) > 0.9999
    assert similarity(low, high) < 0.95
    assert similarity(low, low, high) == pytest.approx((1 + similarity(low, high)) / 2, abs=1e-6)
    for bad in (np.zeros(RATE), np.full(RATE, np.nan), np.zeros((2, 9)), np.zeros(0)):
        with pytest.raises(DataError, match="speaker similarity"):
            encoder.embed(bad.astype(np.float32))


MEASURES: dict[str, Callable[[], Any]] = {
    "pocketsphinx": lambda: networks.PocketsphinxGrid().hear,
    "espnet": lambda: networks.Espnet().hear,
    "resemblyzer": lambda: SpeakerEncoder().embed,
    "nisqa": lambda: networks.Nisqa(networks.NISQA),
    "nisqa_tts": lambda: networks.Nisqa(networks.NISQA_TTS),
    "content": lambda: networks.ContentReader().read,
    "world": lambda: world_f0,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_a_function_of_its_clip_alone(name: str) -> None:
    make = MEASURES[name]
    try:
        measure = make()
    except WeightsError as error:
        pytest.skip(str(error))
    clips = [voice(hz, seconds) for hz, seconds in ((100, 1.0), (230, 0.7), (150, 1.2))]
    in_order = [measure(clip) for clip in clips]
    backwards = [measure(clip) for clip in clips[::-1]][::-1]
    alone = make()(clips[-1])
    for one, other in zip([*in_order, in_order[-1]], [*backwards, alone], strict=True):
        torch.testing.assert_close(plain(one), plain(other), rtol=0, atol=0)


def plain(found: Any) -> Any:
    """What was measured as tensors and texts by number, so that it can be compared."""
    if isinstance(found, str):
        return torch.tensor([*map(ord, found)])
    if isinstance(found, dict):
        return torch.tensor([*found.values()])
    return [plain(one) for one in found] if isinstance(found, tuple) else torch.as_tensor(found)


def test_nisqa_over_shifts_is_quoted_beside_the_plain_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[int] = []

    def network(wave: np.ndarray) -> dict[str, float]:
        if len(wave) < 3600:
            raise DataError("too short")
        heard.append(len(wave))
        return {"nisqa": 3.0 + len(heard) / 10, "nisqa_noisiness": 2.0}

    seconds = 1.0
    monkeypatch.setattr(voices, "load_waveform", lambda file: voice(seconds=seconds))
    rate = Mock(side_effect=network, metric="nisqa")
    found = {name: value for name, (value, _) in voices._quality(rate, Mock(), Mock()).items()}
    assert heard == [24_000, 23_760, 23_520, 23_280]
    assert (found["nisqa"], found["nisqa_noisiness"]) == (3.1, 2.0)
    assert found["nisqa_over_shifts"] == pytest.approx(3.25)
    assert found["nisqa_spread_of_shifts"] == pytest.approx(np.std([3.1, 3.2, 3.3, 3.4]))
    assert "first 0, 10, 20 and 30 ms" in voices.definition("nisqa_over_shifts", "")
    seconds = 0.16  # long enough for the plain score alone, which stays
    assert set(voices._quality(rate, Mock(), Mock())) == {"nisqa", "nisqa_noisiness"}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Ask her to bring these things, with her.", "ask her to bring these things with her"),
        ("It\u2019s WELL-known -- 'Please', call_Stella!", "it's well known please call stella"),
        ("\ufeff\ufb01sh  & chips\n", "fish chips"),
        ("naïve Łódź, 24", "naïve łódź 24"),
        ("cats' rock 'n' roll", "cats rock n roll"),
        (" ... ", ""),
    ],
)
def test_normalisation(text: str, plain: str) -> None:
    assert normalise(text) == plain
    assert normalise(plain) == plain


def test_error_rates_by_hand_and_by_jiwer() -> None:
    jiwer = pytest.importorskip("jiwer")
    said = ["Place blue in A two, now!", "lay red"]
    heard = ["place blue at two now please", ""]
    errors = [count_errors(a, b) for a, b in zip(said, heard, strict=True)]
    # in -> at, a is lost, please is added; then two words are lost
    assert [one[WER] for one in errors] == [(3, 6), (2, 2)]
    truth, guess = [normalise(x) for x in said], [normalise(x) for x in heard]
    assert pytest.approx(5 / 8) == jiwer.wer(truth, guess)
    characters = sum(one[CER][0] for one in errors) / sum(one[CER][1] for one in errors)
    assert characters == pytest.approx(jiwer.cer(truth, guess))
    assert count_errors("It's red.", "its red")[WER] == (1, 2)
    with pytest.raises(DataError, match="has no word"):
        count_errors(" ?! ", "hello")


def test_grammar_knows_grid_alone() -> None:
    assert networks.in_grid_grammar("Bin blue at A two now")
    assert networks.in_grid_grammar("set white with z zero please")
    assert not networks.in_grid_grammar("set white with w zero please")  # GRID has no w
    assert not networks.in_grid_grammar("please call stella")
    assert "| z.)" in networks.grid_grammar()


def espnet_model(folder: Path, **files: str) -> Path:
    names = {"asr_model_file": "exp/a.pth", **files}
    meta = {"yaml_files": {"asr_train_config": "exp/config.yaml"}, "files": names}
    (folder / "exp").mkdir(parents=True)
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    (folder / "exp" / "config.yaml").write_text("bpemodel: exp/bpe.model\n")
    torch.save({"w": torch.zeros(1)}, folder / "exp" / "a.pth")
    return folder


def test_files_of_an_espnet_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, library = espnet_model(tmp_path / "model"), Mock()
    library.Speech2Text = Mock(side_effect=lambda **given: given | {"at": os.getcwd()})
    monkeypatch.setattr(networks.external, "package", lambda *_, **__: library)
    given = networks.Espnet(folder)._network
    assert given["asr_train_config"] == str(folder / "exp" / "config.yaml")
    assert given["asr_model_file"] == str(folder / "exp" / "a.pth")
    assert given["at"] == str(folder)  # whose files are named from here
    assert given["lm_weight"] == 0
    torch.save(torch.nn.Linear(1, 1), folder / "exp" / "a.pth")  # a pickle that names a class
    with pytest.raises(WeightsError, match="was not run"):
        networks.Espnet(folder)


@pytest.mark.parametrize("outside", ["../secret.pth", "exp/absent.pth"])
def test_files_that_are_missing_or_elsewhere(tmp_path: Path, outside: str) -> None:
    (tmp_path / "secret.pth").write_text("x")
    with pytest.raises(WeightsError, match=Path(outside).name):
        networks.Espnet(espnet_model(tmp_path / "model", lm_file=outside))


def test_agreement_by_hand() -> None:
    rise = np.linspace(100, 200, 20)
    source = np.array([0, 0, *rise], "float32")
    assert voices.agreement(source, 2 * source) == (1.0, pytest.approx(1))  # an octave up
    turned = voices.agreement(source, np.array([0, 100, *rise[::-1]], "float32"))
    assert turned == (pytest.approx(21 / 22), pytest.approx(-0.98, abs=0.02))
    assert voices.agreement(source, np.where(source > 0, 120, 0).astype("float32")) == (1.0, None)
    assert voices.agreement(source, 0 * source) == (pytest.approx(2 / 22), None)
    flat = np.full(100, 120, np.float32)
    assert voices.agreement(flat, flat[:96])[0] == 1.0
    for one, other, told in ((100, 90, "100 and 90 frames"), (0, 3, "0 and 3")):
        with pytest.raises(DataError, match=told):  # another rhythm
            voices.agreement(flat[:one], flat[:other])
    for frames, hz, sex in ((20, 120, "m"), (20, 210, "f"), (9, 210, "")):
        assert voices.gender_by_pitch(np.full(frames, hz, np.float32)) == sex


def test_content_reader_and_likeness() -> None:
    reader = networks.ContentReader()
    heard, features = reader.read(voice(seconds=1.0))
    assert isinstance(heard, str)
    assert features.dim() == 2
    assert voices.likeness(features, features) == pytest.approx(1, abs=1e-5)
    _, noise = reader.read(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32))
    assert voices.likeness(features, noise) < 0.95
    with pytest.raises(DataError, match="changes the rhythm"):
        voices.likeness(features, features[:, :20])
    assert voices.character_errors("Bin blue!", "bin glue") == (1, 8)
    with pytest.raises(DataError, match="no letter"):
        voices.character_errors("?", "a")
