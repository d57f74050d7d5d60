"""Scores of foreign outputs: what is measured, what is missing and why, in the tables' columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.test_convert import loaded
from xfavot.audio.io import save_waveform
from xfavot.audio.vocoder import GriffinLim
from xfavot.convert.converter import Converter
from xfavot.errors import CheckpointError, DataError
from xfavot.evaluation import manifest, voices
from xfavot.evaluation.images import LPIPS, Metrics, substitute, unit_package
from xfavot.evaluation.rows import Group, Ledger, Sample
from xfavot.report import artifact

HEADER = "task,source,reference,output,model,transcript,speaker,gender\n"
PITCH = {"anna": 210.0, "berta": 240.0, "carl": 100.0, "dirk": 130.0}


def buzz(hz: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(24_000 * seconds)) / 24_000
    glide = hz * (t + 0.03 * np.sin(2 * np.pi * 1.5 * t))
    return (0.1 * sum(np.sin(2 * np.pi * k * glide) / k for k in range(1, 12))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people; outputs in the reference's pitch, one of them silent, and one source for all."""
    place = tmp_path_factory.mktemp("foreign")
    save_waveform(place / "source.wav", buzz(120))
    lines = []
    for name, hz in PITCH.items():
        gender = "f" if hz > 165 else "m"
        save_waveform(place / f"{name}.wav", buzz(hz, 0.7))
        save_waveform(place / f"out_{name}.wav", buzz(1.02 * hz))
        lines.append(
            f"a2a,source.wav,{name}.wav,out_{name}.wav,ours,place blue at a two now,{name},{gender}"
        )
    save_waveform(place / "out_silent.wav", np.zeros(24_000))
    lines.append("a2a,source.wav,anna.wav,out_silent.wav,ours,,anna,f")
    (place / "list.csv").write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return place


class Encoder:
    """The pitch of a voice as its speaker."""

    def embed(self, wave: np.ndarray, rate_hz: int) -> np.ndarray:
        peak = np.abs(np.fft.rfft(wave[:12_000], 24_000)).argmax()
        angle = np.log2(peak / 100)
        return np.array([np.cos(angle), np.sin(angle)])


class Recogniser:
    name = voices.SPHINX_GRID

    def hear(self, wave: np.ndarray, rate_hz: int) -> str:
        return "place blue at b two now"


@pytest.fixture
def ledger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(voices, "SpeakerEncoder", lambda **_: Encoder())
    monkeypatch.setattr(voices, "load_recogniser", lambda *_, **__: Recogniser())
    return manifest.score(
        folder / "list.csv", recogniser=voices.SPHINX_GRID, cache=folder / "no weights"
    )


def values(ledger: Ledger, system: str) -> dict[str, float]:
    return {row["metric"]: row["value"] for row in ledger.rows if row["system"] == system}


def test_voices(ledger: Ledger) -> None:
    found = values(ledger, "ours")
    assert found["unusable_outputs"] == pytest.approx(1 / 5)
    assert found["speaker_similarity"] > 0.99
    assert found["word_error"] == pytest.approx(1 / 6)
    assert found["gender_agreement_f0"] == 1.0
    assert found["speaker verification AUC, all pairs"] == 1.0
    assert found["f0_correlation"] > 0.9  # one melody, whatever the pitch
    assert 0 < found["content_likeness"] <= 1
    assert "nisqa" not in found
    truth = values(ledger, "ground truth")
    assert truth["word_error"] == pytest.approx(1 / 6)
    assert "speaker_similarity" not in truth  # one utterance a person
    assert {row["n"] for row in ledger.rows if row["metric"] == "word_error"} == {4, 1}


def test_rows_are_the_tables_and_reasons_are_told(ledger: Ledger) -> None:
    for row in artifact.plain_rows("foreign", ledger.rows, "smoke"):
        artifact.require_columns(row["metric"], row)
        assert row["definition"]
    reasons = {(m.system, m.metric): (m.reason, m.samples) for m in ledger.missing}
    assert "fetch-weights nisqa," in reasons["ours", "nisqa"][0]
    assert reasons["ours", "nisqa"][1] == 4
    assert "silent" in reasons["ours", "all"][0]


def test_manifest_without_transcripts_or_people(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voices, "SpeakerEncoder", lambda **_: Encoder())
    monkeypatch.setattr(voices, "load_recogniser", lambda *_, **__: Recogniser())
    file = folder / "bare.csv"
    file.write_text(
        "task,source,reference,output,model\na2a,source.wav,carl.wav,out_carl.wav,ours\n"
        "z2a,source.wav,,out_dirk.wav,ours\n"
    )
    ledger = manifest.score(file, recogniser=voices.SPHINX_GRID, cache=tmp_path)
    reasons = {(m.task, m.metric): m.reason for m in ledger.missing}
    assert "no transcript" in reasons["a2a", "word_error"]
    assert "fill the column speaker" in reasons["a2a", "speaker verification"]
    assert "no voice of the reference's person" in reasons["z2a", "speaker_similarity"]
    assert "sex of the reference is not known" in reasons["z2a", "gender_agreement_f0"]
    (one,) = [r for r in ledger.rows if (r["task"], r["metric"]) == ("a2a", "speaker_similarity")]
    assert (one["n"], one["ci_low"]) == (1, None)  # one row, no interval
    assert "word_error" not in {row["metric"] for row in ledger.rows}


def test_recogniser_is_never_replaced(folder: Path) -> None:
    with pytest.raises(DataError, match="'whisper' is not known"):
        manifest.score(folder / "list.csv", recogniser="whisper")


def test_face_led_voices_are_held_against_the_persons_utterances(folder: Path) -> None:
    rows = [
        f"a2a,source.wav,{name}.wav,out_{name}.wav,other,,{name}," for name in ("anna", "carl")
    ] + ["i2a,source.wav,berta.wav,out_berta.wav,ours,,anna,f"]
    (folder / "faces.csv").write_text(HEADER + "\n".join(rows))
    listed = manifest.read(folder / "faces.csv")
    assert manifest.utterances(listed) == {
        "anna": [folder / "anna.wav"],
        "carl": [folder / "carl.wav"],
    }


class Colours:
    """Verifier that knows people by one colour and one pitch."""

    name = "colours"

    def embed(self, file: Path, kind: str, gender: str) -> np.ndarray:
        person = list(PITCH).index(file.stem.removeprefix("out_").removeprefix("face_"))
        return np.eye(len(PITCH))[person] * (1 + (kind == "face"))


def faces(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    lines = []
    for number, name in enumerate(PITCH):
        for stem in (f"face_{name}", f"out_face_{name}"):
            pixels = rng.integers(0, 60, (40 + number, 36, 3)) + 40 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{stem}.png")
        lines.append(f"a2i,face_anna.png,{name}.wav,out_face_{name}.png,ours,,{name},")
    return lines


def test_faces_led_by_voices(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "a2i.csv").write_text(HEADER + "\n".join(faces(folder)))
    ledger = manifest.score(folder / "a2i.csv", verifier=Colours(), cache=folder / "none")
    found = values(ledger, "ours")
    assert found["cross-modal verification AUC, all pairs"] == 1.0
    assert found["unusable_outputs"] == 0
    assert {m.metric for m in ledger.missing} >= {"fid_stargan_v2", "lpips_alex"}
    assert not any(row["metric"].startswith("fid") for row in ledger.rows)
    alone = manifest.score(folder / "a2i.csv", cache=folder / "none")
    reasons = {m.metric: m.reason for m in alone.missing}
    assert "no verifier was given" in reasons["cross-modal verification"]


def test_distances_of_faces_from_files(folder: Path) -> None:
    (folder / "i2i.csv").write_text(
        HEADER
        + "\n".join(
            line.replace("a2i", "i2i")
            .replace(".wav", ".png")
            .replace("anna.png,", "anna.png,face_", 1)
            for line in faces(folder)
        )
    )
    listed = manifest.read(folder / "i2i.csv")
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    distance = LPIPS("lpips_test", layers, [torch.ones(1, 4, 1, 1)], unit_package, definition="d")
    extractor = substitute("means", lambda x: x.mean((2, 3)), dims=3, fingerprint="means")
    metrics = Metrics(extractors=[extractor], distances=[distance], missing={"fid_x": "why"})
    ledger, group = Ledger(), Group(system="ours", task="i2i", dataset="d")
    manifest.score_faces(group, listed, listed, metrics, ledger, size=32)
    rows: dict[str, Any] = {row["metric"]: row for row in ledger.rows}
    assert rows["frechet, means"]["value"] == pytest.approx(0, abs=0.05)
    assert "against 4 faces of the manifest" in rows["frechet, means"]["definition"]
    images = torch.stack([manifest._read(one.output, 32) for one in listed]).float()
    both = [
        distance(images[i : i + 1] / 127.5 - 1, images[j : j + 1] / 127.5 - 1)
        for i in range(4)
        for j in range(i)
    ]
    assert rows["lpips_test"]["value"] == pytest.approx(float(torch.stack(both).mean()), rel=1e-4)
    assert [m.metric for m in ledger.missing] == ["fid_x"]


def test_broken_picture_is_counted(folder: Path) -> None:
    lines = faces(folder)
    (folder / "out_face_dirk.png").write_bytes(b"<html>")
    (folder / "broken.csv").write_text(HEADER + "\n".join(lines))
    listed = manifest.read(folder / "broken.csv")
    ledger, group = Ledger(), Group(system="ours", task="a2i", dataset="d")
    manifest.score_faces(group, listed, listed, Metrics(missing={}), ledger, size=32)
    assert ledger.rows[0]["value"] == pytest.approx(1 / 4)
    assert "text, not an image" in ledger.missing[0].reason


def test_ledger_counts_equal_reasons_and_ratios() -> None:
    ledger, group = Ledger(seed=1), Group(system="s", task="a2a", dataset="d")
    ledger.lacks(group, "m", "why")
    ledger.lacks(group, "m", "why", 2)
    assert [(m.reason, m.samples) for m in ledger.missing] == [("why", 3)]
    ledger.mean(group, "rate", [Sample(1, 2, "a"), Sample(2, 8, "b")], "errors over words")
    (row,) = ledger.rows
    assert (row["value"], row["n"]) == (0.3, 2)
    assert row["ci_low"] <= 0.3 <= row["ci_high"]
    ledger.mean(group, "nothing", [], "")
    assert len(ledger.rows) == 1


def test_each_file_is_read_once_by_each(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "load_recogniser", lambda *_, **__: Recogniser())
    tools = voices.VoiceTools(voices.SPHINX_GRID, cache=folder / "none")
    calls: list[Path] = []
    load = voices.load_waveform
    monkeypatch.setattr(voices, "load_waveform", lambda f: (calls.append(f), load(f))[1])
    for _ in range(3):
        tools.f0(folder / "anna.wav")
        with pytest.raises(DataError, match="silent"):
            tools.hear(folder / "out_silent.wav")
    assert calls == [folder / "anna.wav", folder / "out_silent.wav"]
    for name in PITCH:
        tools.wave(folder / f"{name}.wav")
        tools.wave(folder / f"out_{name}.wav")
    assert len(tools._waves) == voices.KEPT_WAVES


def test_style_encoders_as_verifier(folder: Path) -> None:
    faces(folder)
    Image.new("RGB", (64, 64), (90, 120, 30)).save(folder / "square.png")
    model = Converter(loaded(), name="toy", vocoder=GriffinLim(iterations=1))
    verifier = manifest.StyleVerifier(model, aligned=True)
    seen = verifier.embed(folder / "square.png", "face", "f")
    heard = verifier.embed(folder / "carl.wav", "voice", "")
    assert seen.shape == heard.shape == (8,)
    assert not np.array_equal(seen, verifier.embed(folder / "square.png", "face", "m"))
    with pytest.raises(DataError, match="fill the column gender"):
        verifier.embed(folder / "square.png", "face", "")
    with pytest.raises(DataError, match="silent"):
        verifier.embed(folder / "out_silent.wav", "voice", "m")
    assert verifier.name == "the style encoders of toy"


def test_scores_on_the_disk(ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    table = manifest.save(ledger, folder / "list.csv", tmp_path / "scores")
    back = artifact.from_csv(table.with_name("scores.csv").read_text("utf-8"))
    assert [row["value"] for row in back] == [row["value"] for row in ledger.rows]
    missing = artifact.from_csv(table.with_name("missing.csv").read_text("utf-8"))
    assert {row["metric"] for row in missing} >= {"nisqa", "nisqa_tts", "all"}
    origin = json.loads(table.with_name("scores.json").read_text("utf-8"))
    assert len(origin["manifest_sha256"]) == 64
    assert str(folder) not in table.with_name("scores.csv").read_text("utf-8")
    text = table.read_text("utf-8")
    assert "| ours | a2a | word_error | 0.167 |" in text
    assert "- word_error: errors over words" in text
    assert not [file for file in table.parent.iterdir() if file.name.startswith(".")]
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        manifest.save(ledger, folder / "list.csv", tmp_path / "file")
    with pytest.raises(DataError, match="no row to write"):
        manifest.save(Ledger(), folder / "list.csv", tmp_path / "empty")


def test_no_checkpoint_is_no_verifier(tmp_path: Path) -> None:
    assert manifest.verifier_of("") is None
    with pytest.raises(CheckpointError):
        manifest.verifier_of(str(tmp_path / "absent"))
