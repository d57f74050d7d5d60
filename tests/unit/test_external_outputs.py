"""Scores of outputs that any system made: what is measured, what is missing and why, the files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
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
from xfavot.evaluation import images, manifest, protocol, rows, voice_networks, voices
from xfavot.evaluation.images import LPIPS, Extractor, to_floats, unit_package
from xfavot.evaluation.protocol import Evaluation
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
    place = tmp_path_factory.mktemp("external")
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
    name = voice_networks.SPHINX_GRID

    def hear(self, wave: np.ndarray, rate_hz: int) -> str:
        return "place blue at b two now"


@pytest.fixture(scope="module")
def small_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(voices, "SpeakerEncoder", lambda **_: Encoder())
        patch.setattr(voices, "load_recogniser", lambda *_, **__: Recogniser())
        yield


def opened(file: Path, **options: Any) -> Evaluation:
    given = {"recogniser": voice_networks.SPHINX_GRID, "weights": file.parent / "none"}
    return protocol.of_manifest(file, folder=file.parent / "scores", **(given | options))


@pytest.fixture(scope="module")
def evaluation(folder: Path, small_networks: None) -> Evaluation:
    return opened(folder / "list.csv")


def reasons(evaluation: Evaluation) -> dict[tuple[str, str], tuple[str, int]]:
    _, missing = evaluation.results()
    return {(one["task"], one["metric"]): (one["reason"], one["samples"]) for one in missing}


def test_voices(evaluation: Evaluation) -> None:
    scores, _ = evaluation.results()
    found = {row["metric"]: row["value"] for row in scores if row["system"] == "ours"}
    assert found["unusable_outputs"] == pytest.approx(1 / 5)
    assert found["speaker_similarity"] > 0.99
    assert found["word_error"] == pytest.approx(1 / 6)
    assert found["gender_agreement_f0"] == 1.0
    assert found["speaker verification AUC, all pairs"] == 1.0
    assert found["f0_correlation"] > 0.9  # one melody, whatever the pitch
    assert 0 < found["content_likeness"] <= 1
    assert "nisqa" not in found
    truth = {row["metric"]: row["value"] for row in scores if row["system"] == "ground truth"}
    assert truth["word_error"] == pytest.approx(1 / 6)
    assert "speaker_similarity" not in truth  # one utterance a person
    assert {row["n"] for row in scores if row["metric"] == "word_error"} == {4, 1}
    missing = reasons(evaluation)
    assert "fetch-weights nisqa," in missing["a2a", "nisqa"][0]
    assert missing["a2a", "nisqa"][1] == 4
    assert "silent" in missing["a2a", "all"][0]


def test_a_family_is_a_table_with_what_is_missing(evaluation: Evaluation) -> None:
    table = evaluation.measure("nisqa")
    assert table["value"].isna().all()
    assert set(table["metric"]) == {"nisqa", "nisqa_tts"}
    assert table["reason"].str.contains("fetch-weights").all()
    words = evaluation.measure("word_error")
    assert list(words["metric"]) == ["word_error", "character_error"] * 2
    assert words["definition"].str.contains("heard by pocketsphinx_grid").all()
    assert opened(Path(evaluation.folder.parent / "list.csv"), metrics=["f0"]).measure("fid").empty


def test_manifest_without_transcripts_or_people(folder: Path, small_networks: None) -> None:
    file = folder / "bare.csv"
    file.write_text(
        "task,source,reference,output,model\na2a,source.wav,carl.wav,out_carl.wav,ours\n"
        "z2a,source.wav,,out_dirk.wav,ours\n"
    )
    evaluation = opened(file)
    missing = reasons(evaluation)
    assert "no transcript" in missing["a2a", "word_error"][0]
    assert "fill the column speaker" in missing["a2a", "speaker verification"][0]
    assert "a latent code is nobody's" in missing["z2a", "speaker_similarity"][0]
    assert "sex of the reference is not known" in missing["z2a", "gender_agreement_f0"][0]
    scores, _ = evaluation.results()
    (one,) = [r for r in scores if (r["task"], r["metric"]) == ("a2a", "speaker_similarity")]
    assert (one["n"], one["ci_low"]) == (1, None)  # one row, no interval
    assert "word_error" not in {row["metric"] for row in scores}


def test_recogniser_is_never_replaced(folder: Path) -> None:
    with pytest.raises(DataError, match="'whisper' is not known"):
        opened(folder / "list.csv", recogniser="whisper")


def test_image_guided_voices_are_held_against_the_persons_utterances(folder: Path) -> None:
    rows = [f"a2a,source.wav,{name}.wav,out_{name}.wav,other,,{name}," for name in ("anna", "carl")]
    rows.append("i2a,source.wav,berta.wav,out_berta.wav,ours,,anna,f")
    (folder / "faces.csv").write_text(HEADER + "\n".join(rows))
    listed = manifest.read(folder / "faces.csv")
    assert manifest.utterances(listed) == {
        "anna": [folder / "anna.wav"],
        "carl": [folder / "carl.wav"],
    }


def colours(file: Path, kind: str, gender: str) -> np.ndarray:
    """Know people by one colour and one pitch."""
    person = list(PITCH).index(file.stem.removeprefix("out_").removeprefix("face_"))
    return np.eye(len(PITCH))[person] * (1 + (kind == "face"))


def faces(folder: Path, name: str) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for number, who in enumerate(PITCH):
        for stem in (f"face_{who}", f"out_face_{who}"):
            pixels = rng.integers(0, 60, (40 + number, 36, 3)) + 40 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{stem}.png")
        reference = f"{who}.wav" if name == "a2i" else f"face_{who}.png"
        lines.append(f"{name},face_anna.png,{reference},out_face_{who}.png,ours,,{who},")
    (folder / f"{name}.csv").write_text(HEADER + "\n".join(lines))
    return folder / f"{name}.csv"


def test_audio_guided_faces(folder: Path) -> None:
    evaluation = opened(faces(folder, "a2i"))
    assert "no verifier was given" in reasons(evaluation)["a2i", "cross-modal verification"][0]
    (folder / "out_face_dirk.png").write_bytes(b"<html>")
    evaluation = opened(folder / "a2i.csv")
    evaluation.embed = colours
    scores, missing = evaluation.results()
    found = {row["metric"]: row["value"] for row in scores}
    assert found["cross-modal verification AUC, all pairs"] == 1.0
    assert found["unusable_outputs"] == pytest.approx(1 / 4)
    assert not any(name.startswith("fid") for name in found)
    assert {one["metric"] for one in missing} >= {"fid_stargan_v2", "lpips_alex", "all"}
    assert any("text, not an image" in one["reason"] for one in missing)


def test_distances_of_faces_in_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    distance = LPIPS("lpips_test", layers, [torch.ones(1, 4, 1, 1)], unit_package, definition="d")
    mean = Extractor("fid_test", "means", lambda x: x.mean((2, 3)), to_floats, num_features=3)
    made = {"fid": ([mean], {"fid_x": "why"}), "lpips": ([distance], {})}
    monkeypatch.setattr(images, "networks", lambda family, **_: made[family])
    evaluation = opened(faces(folder, "i2i"), image_size=32, metrics=("fid", "lpips"))
    scores, missing = evaluation.results()
    found: dict[str, Any] = {row["metric"]: row for row in scores}
    assert found["fid_test"]["value"] == pytest.approx(0, abs=0.05)
    assert "against 4 faces of the manifest" in found["fid_test"]["definition"]
    (group,) = evaluation.groups
    x = to_floats(next(iter(group.blocks("")))[0])
    both = [distance(x[i : i + 1], x[j : j + 1]) for i in range(4) for j in range(i)]
    assert found["lpips_test"]["value"] == pytest.approx(float(torch.stack(both).mean()), rel=1e-4)
    assert [one["metric"] for one in missing] == ["fid_x"]


def test_a_source_that_is_no_picture(folder: Path) -> None:
    pytest.importorskip("facenet_pytorch", reason="the detector's weights are not installed")
    evaluation = opened(faces(folder, "i2i"), metrics=("preservation",))
    assert {row["metric"] for row in evaluation.results()[0]} >= {"contour_f", "face_found"}
    (folder / "face_anna.png").write_bytes(b"no picture")
    table = opened(folder / "i2i.csv").measure("preservation")
    assert set(table["metric"]) == {"pose_error", "contour_f", "face_found"}
    assert table["reason"].str.contains("face_anna").all()


def test_ratio_by_hand() -> None:
    found = rows.ratio([(1, 2, "a"), (2, 8, "b")], seed=1)
    assert (found["value"], found["n"]) == (0.3, 2)
    assert found["ci_low"] <= 0.3 <= found["ci_high"]
    assert rows.ratio([(1, 2, "a"), (2, 8, "a")], seed=1)["ci_low"] is None


def test_style_encoders_say_what_fits(folder: Path) -> None:
    Image.new("RGB", (64, 64), (90, 120, 30)).save(folder / "square.png")
    model = Converter(loaded(), name="toy", vocoder=GriffinLim(iterations=1))
    embed = protocol.style_embedder(model, aligned=True)
    seen, heard = embed(folder / "square.png", "face", "f"), embed(folder / "carl.wav", "voice", "")
    assert seen.shape == heard.shape == (8,)
    assert not np.array_equal(seen, embed(folder / "square.png", "face", "m"))
    with pytest.raises(DataError, match="fill the column gender"):
        embed(folder / "square.png", "face", "")
    with pytest.raises(DataError, match="silent"):
        embed(folder / "out_silent.wav", "voice", "m")
    with pytest.raises(CheckpointError):
        opened(folder / "list.csv", checkpoint=str(folder / "absent"))


def test_scores_on_the_disk(evaluation: Evaluation, folder: Path) -> None:
    scores, _ = evaluation.results()
    table = evaluation.save()
    back = artifact.from_csv(table.with_name("scores.csv").read_text("utf-8"))
    assert [row["value"] for row in back] == [row["value"] for row in scores]
    for row in artifact.plain_rows("scores", back, "smoke"):
        artifact.require_columns(row["metric"], row)
        assert row["definition"]
    missing = artifact.from_csv(table.with_name("missing.csv").read_text("utf-8"))
    assert {row["metric"] for row in missing} >= {"nisqa", "nisqa_tts", "all"}
    origin = json.loads(table.with_name("scores.json").read_text("utf-8"))
    assert len(origin["manifest_sha256"]) == 64
    assert str(folder) not in table.with_name("scores.csv").read_text("utf-8")
    text = " ".join(table.read_text("utf-8").split())
    assert "| ours | a2a | | | | word_error | 0.167 |" in text
    assert "- word_error: errors over words" in text
    assert not [file for file in table.parent.iterdir() if file.name.startswith(".")]
    with pytest.raises(DataError, match="cannot be written"):
        dataclasses.replace(evaluation, folder=folder / "source.wav").save()
    (folder / "silent.csv").write_text(HEADER + "z2a,source.wav,,out_silent.wav,ours,,,")
    with pytest.raises(DataError, match=r"nothing could be measured; .*silent"):
        opened(folder / "silent.csv", metrics=("f0",)).save()
