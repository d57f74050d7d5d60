"""Speaker similarity, word error, melody, content: against their packages and by hand."""

from __future__ import annotations

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests.conftest import Patch, refuses
from tests.unit.store_factory import make_store
from tests.unit.training_factory import shared_store
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL
from xfavot.audio.vocoder import Vocoder
from xfavot.data.store import Store
from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import voice_networks as networks
from xfavot.evaluation import voices
from xfavot.evaluation.voice_networks import SpeakerEncoder
from xfavot.evaluation.voices import CER, WER, count_errors, normalise
from xfavot.mini.generate import PACK

RATE = 24_000


def sounding(hz: float = 120.0, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
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
    x = sounding()
    theirs = resemblyzer.VoiceEncoder("cpu", verbose=False)
    quiet = resemblyzer.preprocess_wav(at_30_dbfs(x), source_sr=RATE)  # without its pauses
    wanted = theirs.embed_utterance(at_30_dbfs(quiet))
    np.testing.assert_allclose(encoder.embed(x), wanted, atol=1e-6)


def test_speaker_similarity_does_not_depend_on_level(encoder: SpeakerEncoder) -> None:
    x = np.concatenate([sounding(), np.zeros(RATE, np.float32)])
    low, quiet, loud, high = map(encoder.embed, (x, 0.01 * x, 3.0 * x, sounding(240)))
    assert min(low @ quiet, low @ loud) > 0.9999
    assert low @ high < 0.95
    for bad in (np.zeros(RATE), np.full(RATE, np.nan), np.zeros((2, 9)), np.zeros(0)):
        refuses(DataError, "speaker similarity", encoder.embed, bad.astype(np.float32))


MEASURES: dict[str, Callable[[], Any]] = {
    "pocketsphinx": lambda: networks.PocketsphinxGrid().hear,
    "espnet": lambda: networks.Espnet().hear,
    "whisper": lambda: networks.Whisper().hear,
    "resemblyzer": lambda: SpeakerEncoder().embed,
    "nisqa": lambda: networks.Nisqa(networks.NISQA),
    "nisqa_tts": lambda: networks.Nisqa(networks.NISQA_TTS),
    "distill_mos": networks.DistillMos,
    "swift_f0": networks.SwiftF0,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_a_function_of_its_clip_alone(name: str) -> None:
    try:
        measure, another = (MEASURES[name]() for _ in range(2))
    except WeightsError as error:
        pytest.skip(str(error))
    clips = [sounding(hz, seconds) for hz, seconds in ((100, 1.0), (230, 0.7), (150, 1.2))]
    in_order = [measure(clip) for clip in clips]
    backwards = [measure(clip) for clip in clips[::-1]][::-1]
    for one, other in zip([*in_order, in_order[-1]], [*backwards, another(clips[-1])], strict=True):
        np.testing.assert_equal(one, other)


def test_whisper_writes_what_is_said(tmp_path: Path, monkeypatch: Patch) -> None:
    """Half minutes, bytes in GPT-2's spelling, digits in words."""
    heard: list[tuple[int, ...]] = []

    class Network:
        def __init__(self, name: str, files: dict[str, bytes], **_: Any) -> None:
            assert json.loads(files["config.json"])["suppress_ids"] == []

        def generate(self, mel: Any, prompts: list[list[str]], **_: Any) -> list[Any]:
            heard.append(mel.shape)
            assert prompts == [list(networks.Whisper.PROMPT)]
            return [Mock(sequences_ids=[[1, 2, 0]])]

    library, package = Mock(), networks.external.package
    library.models.Whisper, library.StorageView.from_array = Network, lambda x: x

    def given(name: str, **how: Any) -> Any:
        return library if name == "ctranslate2" else package(name, **how)

    monkeypatch.setattr(networks.external, "package", given)
    pieces = ["<|end|>", "\u0120caf\u00c3\u00a9,", "\u01207"]
    (tmp_path / "pieces.json").write_text(json.dumps(pieces), encoding="utf-8")
    monkeypatch.setattr(networks.fetched, "path", lambda name: tmp_path / "pieces.json")
    whisper = networks.Whisper()
    assert whisper.hear(np.zeros(24_000 * 31, np.float32)).split() == ["caf\u00e9,", "seven"] * 2
    assert heard == [(1, 80, 3000)] * 2
    tone = np.sin(np.arange(16_000) * 2 * np.pi * 1000 / 16_000).astype(np.float32)
    mel = whisper.features(tone)
    assert 26 <= mel[:, 50].argmax() <= 29  # 1 kHz on Slaney's scale of 80 bands up to 8 kHz
    assert mel.max() - mel.min() == 2.0  # eight decades
    assert mel[0, 2000] == mel.min()


def test_whisper_hears_the_embedded_corpus() -> None:
    try:
        whisper = networks.Whisper()
    except WeightsError as error:
        pytest.skip(str(error))
    with zipfile.ZipFile(PACK) as pack:
        name = next(name for name in sorted(pack.namelist()) if name.endswith(".opus"))
        words = load_waveform(pack.read(name))
    assert len(whisper.hear(words).split()) >= 4


def test_distill_mos_agrees_with_its_own_program() -> None:
    wave = sounding(seconds=9.6)  # longer than what the network sees at once
    theirs = pytest.importorskip("distillmos").ConvTransformerSQAModel().eval()
    with torch.no_grad():
        wanted = float(theirs(torch.from_numpy(networks.at_16_khz(wave))[None]))
    assert networks.DistillMos()(wave) == {"distill_mos": pytest.approx(wanted, abs=1e-5)}


def test_swift_f0_on_the_frames_of_the_mel(monkeypatch: Patch) -> None:
    """Between its own frames, at one level, and not where there is silence."""
    heard: list[np.ndarray] = []

    def run(wanted: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert wanted == ["pitch", "confidence"]
        assert (float(given["fmin"]), float(given["fmax"])) == (60.0, 600.0)
        heard.append(given["audio"])
        frames = given["audio"].shape[1] // 256
        sure = np.where(np.arange(frames) < 70, 0.5, 0.49)
        return [100.0 + np.arange(frames)[None], sure[None]]

    library = Mock(**{"InferenceSession.return_value.run": run})
    monkeypatch.setattr(networks.external, "package", lambda name, extra: library)
    monkeypatch.setattr(networks.fetched, "path", lambda name: Path(name))
    track = networks.SwiftF0()
    wave = sounding(seconds=1.6)
    wave[:12_000] = 0  # half a second
    f0 = track(wave)
    assert (f0.dtype, len(f0)) == (np.float32, 24_000 * 16 // 3000 + 1)
    assert not f0[:39].any()  # the first frame of the network after the silence is the 31st
    assert f0[40] == pytest.approx(100 + 31.25, abs=0.01)  # of 0.5 s
    assert f0[80] == pytest.approx(100 + 62.5, abs=0.01)  # of 1 s
    assert f0[87] > 0  # 1.088 s
    assert not f0[91:].any()  # after 1.12 s the network is not sure
    np.testing.assert_array_equal(track(0.01 * wave), f0)
    np.testing.assert_allclose(heard[1], heard[0], atol=1e-6)
    assert track(np.zeros(10, np.float32)).tolist() == [0.0]


def test_swift_f0_beside_world(monkeypatch: Patch) -> None:
    try:
        track = networks.SwiftF0()
    except WeightsError as error:
        loaded = voices.measures("f0")
        assert "swift-f0" in str(loaded["voicing_agreement_swift_f0"])
        pytest.skip(str(error))
    for hz in (110.0, 230.0):
        f0 = track(sounding(hz))
        assert (f0 > 0).mean() > 0.9
        assert np.median(f0[f0 > 0]) == pytest.approx(hz, rel=0.01)
    monkeypatch.setattr(voices, "load_waveform", lambda file: sounding(float(file.name)))
    made = Mock(source=Path("110"), output=Path("220"))
    names = ("voicing_agreement", "voicing_agreement_swift_f0")
    for name in names:
        measure: Any = voices.measures("f0")[name]
        assert measure(Mock(), made)[name][0] > 0.9


def test_nisqa_over_shifts_beside_the_plain_score(monkeypatch: Patch) -> None:
    heard: list[int] = []

    def network(wave: np.ndarray) -> dict[str, float]:
        if len(wave) < 3600:
            raise DataError("too short")
        heard.append(len(wave))
        return {"nisqa": 3.0 + len(heard) / 10, "nisqa_noisiness": 2.0}

    seconds = 1.0
    monkeypatch.setattr(voices, "load_waveform", lambda file: sounding(seconds=seconds))
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
        ("It\u2019s WELL-known -- 'Please', call_Stella!", "it's well known please call stella"),
        ("\ufeff\ufb01sh  & chips\n", "fish chips"),
        ("naïve Łódź, 24", "naïve łódź 24"),
        ("cats' rock 'n' roll", "cats rock n roll"),
        (" ... ", ""),
    ],
)
def test_normalisation(text: str, plain: str) -> None:
    assert normalise(text) == plain == normalise(plain)


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
    refuses(DataError, "has no word", count_errors, " ?! ", "hello")


def test_grammar_knows_grid_alone() -> None:
    assert networks.in_grid_grammar("Bin blue at A two now")
    assert not networks.in_grid_grammar("set white with w zero please")  # GRID has no w
    assert "| z.)" in networks.grid_grammar()


def espnet_model(folder: Path, **files: str) -> Path:
    names = {"asr_model_file": "exp/a.pth", **files}
    meta = {"yaml_files": {"asr_train_config": "exp/config.yaml"}, "files": names}
    (folder / "exp").mkdir(parents=True)
    (folder / "meta.yaml").write_text(yaml.safe_dump(meta), encoding="utf-8")
    (folder / "exp" / "config.yaml").write_text("bpemodel: exp/bpe.model\n")
    torch.save({"w": torch.zeros(1)}, folder / "exp" / "a.pth")
    return folder


def test_files_of_an_espnet_model(tmp_path: Path, monkeypatch: Patch) -> None:
    folder, library = espnet_model(tmp_path / "model"), Mock()
    library.Speech2Text = Mock(side_effect=lambda **given: given | {"at": os.getcwd()})
    monkeypatch.setattr(networks.external, "package", lambda *_, **__: library)
    given = networks.Espnet(folder)._network
    assert given["asr_train_config"] == str(folder / "exp" / "config.yaml")
    assert given["asr_model_file"] == str(folder / "exp" / "a.pth")
    assert given["at"] == str(folder)  # whose files are named from here
    assert given["lm_weight"] == 0
    torch.save(torch.nn.Linear(1, 1), folder / "exp" / "a.pth")  # a pickle that names a class
    refuses(WeightsError, "was not run", networks.Espnet, folder)
    (tmp_path / "secret.pth").write_text("x")
    for outside in ("../secret.pth", "exp/absent.pth"):  # elsewhere, missing
        with pytest.raises(WeightsError, match=Path(outside).name):
            networks.Espnet(espnet_model(tmp_path / Path(outside).stem, lm_file=outside))


def test_agreement_by_hand() -> None:
    rise = np.linspace(100, 200, 20)
    source = np.array([0, 0, *rise], "float32")
    turned = np.array([0, 100, *rise[::-1]], "float32")
    level = np.where(source > 0, 120, 0).astype("float32")
    for other, voicing, correlation in (
        (2 * source, 1.0, pytest.approx(1)),  # an octave up
        (turned, 21 / 22, pytest.approx(-0.98, abs=0.02)),
        (level, 1.0, None),
        (0 * source, 2 / 22, None),
    ):
        assert voices.agreement(source, other) == (pytest.approx(voicing), correlation)
    flat = np.full(100, 120, np.float32)
    assert voices.agreement(flat, flat[:96])[0] == 1.0
    for one, other, told in ((100, 90, "100 and 90 frames"), (0, 3, "0 and 3")):
        refuses(DataError, told, voices.agreement, flat[:one], flat[:other])  # another rhythm
    for frames, hz, sex in ((20, 120, "m"), (20, 210, "f"), (9, 210, "")):
        assert voices.gender_by_pitch(np.full(frames, hz, np.float32)) == sex


def test_content_reader_and_likeness() -> None:
    read = networks.content_reader()
    _, features = read(sounding(seconds=1.0))
    assert features.dim() == 2
    assert voices.likeness(features, features) == pytest.approx(1, abs=1e-5)
    _, noise = read(np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32))
    assert voices.likeness(features, noise) < 0.95
    refuses(DataError, "changes the rhythm", voices.likeness, features, features[:, :20])
    assert voices.character_errors("Bin blue!", "bin glue") == (1, 8)
    refuses(DataError, "no letter", voices.character_errors, "?", "a")


widgets = pytest.importorskip("xfavot.viz.widgets")
pytest.importorskip("pyworld")
WITHOUT = {"splits": ("train", "val"), "clips": 4}


class Played(Vocoder):
    """A vocoder that plays a tone of the store's kind, whatever it is asked for."""

    def __init__(self, name: str, hertz: float, gain: float = 1.0) -> None:
        super().__init__(name=name)
        self.hertz, self.gain = hertz, gain

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        time = torch.arange(samples) / MEL.sample_rate
        turns = 2 * torch.pi * self.hertz * time
        return self.gain * sum((0.2 * torch.sin(turns * h) / h for h in range(1, 6)), turns * 0)


store = shared_store(corpus="grid", kind="audio", genders="fmfm", seconds=0.8, **WITHOUT)


def test_clips_are_held_out_and_of_women_and_men_in_turn(store: Store, tmp_path: Path) -> None:
    made = voices.copies([Played("a", 100.0)], [store], clips=4)
    items = [copy.clip.item for copy in made]
    assert [(item.gender, item.split) for item in items] == [("f", "val"), ("m", "val")] * 2
    assert len({item.id for item in items}) == 4
    for copy, item in zip(made, items, strict=True):
        lengths = {name: len(sound) for name, sound in copy.sounds.items()}
        assert lengths == dict.fromkeys(("recording", "a"), item.sample_count)
    short = make_store(tmp_path, corpus="short", kind="audio", genders="f", seconds=0.2)
    with pytest.raises(DataError, match=r"without a clip of 0\.4 to 15 s"):
        voices.copies([Played("a", 100.0)], [short])


def test_measures_of_known_changes(tmp_path: Path, monkeypatch: Patch) -> None:
    absent = Mock(side_effect=WeightsError("Resemblyzer is not installed"))
    monkeypatch.setattr(networks, "SpeakerEncoder", absent)
    store = make_store(tmp_path, corpus="grid", kind="audio", genders="f", seconds=0.8, **WITHOUT)
    pitch = 210.0  # the factory's
    pitches = {"same": pitch, "sharp": pitch * 2 ** (1 / 24), "octave": 2 * pitch}
    played = [Played(name, hertz) for name, hertz in pitches.items()]
    said: list[str] = []
    made = voices.copies([*played, Played("silent", pitch, 0.0)], [store], clips=2)
    found = voices.copy_table(made, on_log=said.append)
    assert said == ["speaker similarity is not available: Resemblyzer is not installed"]
    found = found.loc["grid", "val"]  # a line a vocoder
    assert list(found.index) == sorted([*pitches, "silent"])
    assert set(found["clips"]) == {2}
    assert found.loc["same", "f0_cents"] < 2
    assert found.loc["same", "voicing_error"] < 0.1
    assert found.loc["sharp", "f0_cents"] == pytest.approx(50.0, abs=2.0)
    assert found.loc["sharp", "gross_pitch_error"] < 0.05
    assert found.loc["octave", "gross_pitch_error"] > 0.95
    assert found.loc["silent", "voicing_error"] > 0.9
    measured = set(found.loc["silent"].dropna().index)
    assert measured == {"clips", "log_mel_db", "voicing_error"}  # without pitch, no error of it


def test_distance_of_mels_by_hand() -> None:
    wave = 0.1 * torch.randn(12_000, generator=torch.Generator().manual_seed(0))
    assert voices.mel_distance_db(wave, wave) == 0.0
    assert voices.mel_distance_db(wave, 0.5 * wave) == pytest.approx(6.02, abs=0.01)
    faint = wave + 1e-6 * torch.sin(2 * torch.pi * 3000 / MEL.sample_rate * torch.arange(12_000))
    assert voices.mel_distance_db(wave, faint) < 0.01
