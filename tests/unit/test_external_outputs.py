"""Outputs of any system: their list and its faults, what is measured, what is missing and why."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Patch, refuses
from tests.unit.test_convert import loaded
from xfavot import report
from xfavot.audio.io import save_waveform
from xfavot.audio.vocoder import GriffinLim
from xfavot.convert import converter as converter_convert
from xfavot.convert.converter import Converter, Task
from xfavot.errors import CheckpointError, ConfigError, DataError
from xfavot.evaluation import images, manifest, protocol, voice_networks, voices
from xfavot.evaluation.images import LPIPS, Extractor, to_floats
from xfavot.evaluation.protocol import Evaluation
from xfavot.parameters import Evaluate

LANDMARKS = [(22.0, 26.0), (42.0, 26.0), (32.0, 36.0), (25.0, 46.0), (39.0, 46.0)]
HEADER = "task,source,reference,output,model,transcript,speaker,gender\n"
PITCH = {"anna": 210.0, "berta": 240.0, "carl": 100.0, "dirk": 130.0}
SAID = "place blue at a two now"


def buzz(hz: float, seconds: float = 1.0) -> np.ndarray:
    t = np.arange(int(24_000 * seconds)) / 24_000
    glide = hz * (t + 0.03 * np.sin(2 * np.pi * 1.5 * t))
    return (0.1 * sum(np.sin(2 * np.pi * k * glide) / k for k in range(1, 12))).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people and one source; outputs in the reference's pitch, and two that are none."""
    place = tmp_path_factory.mktemp("external")
    save_waveform(place / "source.wav", buzz(120))
    lines = []
    for name, hz in PITCH.items():
        gender = "f" if hz > 165 else "m"
        save_waveform(place / f"{name}.wav", buzz(hz, 0.7))
        save_waveform(place / f"out_{name}.wav", buzz(1.02 * hz))
        lines.append(f"a2a,source.wav,{name}.wav,out_{name}.wav,ours,{SAID},{name},{gender}")
    save_waveform(place / "out_silent.wav", np.zeros(24_000))
    save_waveform(place / "out_short.wav", buzz(210)[:743])
    lines += [f"a2a,source.wav,anna.wav,out_{n}.wav,ours,,anna,f" for n in ("silent", "short")]
    (place / "list.csv").write_text(HEADER + "\n".join(lines), encoding="utf-8")
    return place


def pitch(wave: np.ndarray) -> float:
    """The loudest frequency in Hz."""
    return float(np.abs(np.fft.rfft(wave[:12_000], 24_000)).argmax())


def melody(wave: np.ndarray) -> np.ndarray:
    """In place of WORLD, which takes seconds."""
    return (pitch(wave) * (1 + 0.1 * np.sin(np.arange(len(wave) // 300 + 1)))).astype(np.float32)


class Encoder:
    """The pitch of a voice as its speaker."""

    def embed(self, wave: np.ndarray) -> np.ndarray:
        angle = np.log2(pitch(wave) / 100)
        return np.array([np.cos(angle), np.sin(angle)])


class Recogniser:
    name = voice_networks.SPHINX_GRID

    def hear(self, wave: np.ndarray) -> str:
        return "place blue at b two now"


@pytest.fixture(scope="module", autouse=True)
def small_networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with Patch.context() as patch:
        patch.setenv("XFAVOT_WEIGHTS", str(tmp_path_factory.mktemp("none")))
        patch.setattr(voice_networks, "SpeakerEncoder", Encoder)
        patch.setattr(voices, "world_f0", melody)
        patch.setitem(voice_networks.RECOGNISERS, "pocketsphinx_grid", Recogniser)
        yield


def opened(file: Path, metrics: str = "all", **given: Any) -> Evaluation:
    given = {"recogniser": voice_networks.SPHINX_GRID, "out": str(file.with_suffix(""))} | given
    cfg = Evaluate.resolve(manifest=str(file), metrics=metrics, device="cpu", **given)
    return protocol.of_manifest(cfg)


def listed(file: Path, *lines: str) -> Path:
    file.write_text(HEADER + "\n".join(lines))
    return file


@pytest.fixture(scope="module")
def evaluation(folder: Path) -> Evaluation:
    return opened(folder / "list.csv")


def reasons(evaluation: Evaluation) -> dict[tuple[str, str], tuple[str, int]]:
    _, missing = evaluation.results()
    return {(one["task"], one["metric"]): (one["reason"], one["samples"]) for one in missing}


def values(evaluation: Evaluation, system: str = "ours") -> dict[str, float]:
    scores, _ = evaluation.results()
    return {row["metric"]: row["value"] for row in scores if row["system"] == system}


# The list


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("s.wav", "r.wav", "o1.wav", "o2.wav"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "list.csv"


def test_a_list_is_read(files: Path) -> None:
    row = f' A2A ,s.wav,{files.with_name("r.wav")},o1.wav, ours ,"hello, you",p1,Female\r\n'
    files.write_bytes(f"{HEADER}\r\n{row}z2a,./s.wav,,o2.wav,ours,,,\r\n".encode())
    first, second = manifest.read(files)
    assert (first.task, first.model, first.gender) == (Task.A2A, "ours", "f")
    assert first.source == files.with_name("s.wav")
    assert (first.transcript, first.who) == ("hello, you", "p1")
    assert (second.reference, second.speaker, second.who) == (None, "", str(first.source))
    mixed = "Model,output,task,reference,source\nm,o1.wav,a2a,r.wav,s.wav\n"
    files.write_bytes(mixed.encode("utf-8-sig"))
    (row,) = manifest.read(files)
    assert (row.model, row.output.name, row.transcript) == ("m", "o1.wav", "")


ROW = f"{HEADER}a2a,s.wav,r.wav,o1.wav,m,,,\n"
TWO = f"{HEADER}a2a,s.wav,r.wav,o1.wav,m,{{}},p,{{}}\na2a,s.wav,r.wav,o2.wav,m,{{}},p,{{}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lacks task; lacks source"),
        (HEADER, "has no row"),
        (HEADER.replace(",", ";"), "separated by commas"),
        (f"transcripts,{HEADER}", r"has 'transcripts' \(did you mean 'transcript'"),
        (f"task,{HEADER}", "has task twice"),
        (f'{HEADER}"a2a,s.wav\n', "cannot be read"),
        (ROW.replace("a2a", "a2b"), r"line 2 has task 'a2b' \(did you mean"),
        (ROW.replace(",,,", ""), "line 2 has too many or too few cells"),
        (ROW.replace("s.wav", "no.wav"), "line 2 has no file at its source .*no.wav"),
        (ROW.replace("o1.wav", "."), "line 2 has no file at its output"),
        (ROW.replace("r.wav", ""), "line 2 names no reference"),
        (ROW.replace("o1.wav", ""), "line 2 names no output"),
        (ROW.replace("m,,,", "m,,,x"), "line 2 has gender 'x'"),
        (ROW + "a2a,s.wav,r.wav,./o1.wav,m,,,\n", "line 3 repeats the output .*o1.wav as line 2"),
        (TWO.format("", "f", "", "m"), "calls p both as line 2 has it: f and m"),
        (TWO.format("hello", "", "bye", ""), "line 3 has another transcript as line 2"),
        (HEADER + 8 * "a2x,s.wav,r.wav,o1.wav,m,,,\n", "line 6 has task .*; and 3 more"),
        (f"{HEADER}ü".encode("utf-16"), "save it as CSV in UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_faults_of_a_list(files: Path, text: str | bytes | None, expected: str) -> None:
    if text is not None:
        files.write_bytes(text.encode() if isinstance(text, str) else text)
    refuses(DataError, expected, manifest.read, files)


# Voices


def test_voices(evaluation: Evaluation) -> None:
    scores, _ = evaluation.results()
    found = values(evaluation)
    exact = {"unusable_outputs": 2 / 6, "word_error": 1 / 6, "gender_agreement_f0": 1.0}
    exact["speaker verification AUC, all pairs"] = 1.0
    assert {name: found[name] for name in exact} == pytest.approx(exact)
    assert found["speaker_similarity"] > 0.99
    assert found["f0_correlation"] > 0.9  # one melody, whatever the pitch
    assert values(evaluation, "ground truth")["word_error"] == pytest.approx(1 / 6)
    assert {row["n"] for row in scores if row["metric"] == "word_error"} == {4, 1}
    reason, count = reasons(evaluation)["a2a", "nisqa"]
    assert ("fetch-weights nisqa," in reason, count) == (True, 4)
    table = evaluation.measure("nisqa")  # a family is a table with what is missing
    assert table["value"].isna().all()
    assert set(table["metric"]) == {"nisqa", "nisqa_tts"}
    words = evaluation.measure("word_error")
    assert list(words["task"]) == ["a2a"] * 2 + ["sources"] * 2
    assert list(words["metric"]) == ["word_error", "character_error"] * 2
    assert words["definition"].str.contains("heard by pocketsphinx_grid").all()
    unusable = [one["reason"] for one in evaluation.results()[1] if one["metric"] == "all"]
    assert any("silent" in reason for reason in unusable)
    assert any("lasts 0.031 s; expected at least 0.1 s" in reason for reason in unusable)


def test_a_manifest_without_transcripts_or_people(folder: Path) -> None:
    rows = ("a2a,source.wav,carl.wav,out_carl.wav,ours,,,", "z2a,source.wav,,out_dirk.wav,ours,,,")
    metrics = "verification, word_error, speaker_similarity, f0"
    evaluation = opened(listed(folder / "bare.csv", *rows), metrics)
    missing = reasons(evaluation)
    for task, metric, reason in (
        ("a2a", "word_error", "no transcript"),
        ("a2a", "speaker verification", "fill the column speaker"),
        ("z2a", "speaker_similarity", "a latent code is nobody's"),
        ("z2a", "gender_agreement_f0", "sex of the reference is not known"),
    ):
        assert reason in missing[task, metric][0]
    found = {(row["task"], row["metric"]): row for row in evaluation.results()[0]}
    one = found["a2a", "speaker_similarity"]
    assert (one["n"], one["ci_low"]) == (1, None)  # one row, no interval


def test_one_file_that_fails(folder: Path, monkeypatch: Patch) -> None:
    """Whatever a library raises for one file, the others are scored by every metric."""
    rows = [
        f"a2a,{source}.wav,{n}.wav,out_{n}.wav,ours,{SAID},{n},"
        for n, source in zip(PITCH, ("source", "source", "out_short", "source"), strict=True)
    ]
    embed, breaking = Encoder.embed, voices.load_waveform(folder / "out_dirk.wav")

    def breaks(self: Encoder, wave: np.ndarray) -> np.ndarray:
        if np.array_equal(wave, breaking):
            raise RuntimeError("Calculated padded input size per channel: (1)")
        return embed(self, wave)

    monkeypatch.setattr(Encoder, "embed", breaks)
    evaluation = opened(listed(folder / "failing.csv", *rows))
    missing, scores = reasons(evaluation), evaluation.results()[0]
    counts = {row["metric"]: row["n"] for row in scores if row["system"] == "ours"}
    wanted = {"speaker_similarity": 3, "word_error": 4, "f0_correlation": 3, "content_likeness": 3}
    wanted["speaker verification AUC, all pairs"] = 3 * 4  # outputs, references
    assert wanted.items() <= counts.items()
    for metric, part in (
        ("speaker_similarity", "RuntimeError: Calculated padded"),
        ("speaker verification", "RuntimeError: Calculated padded"),
        ("content_likeness", ""),
        ("voicing_agreement", "source and output"),
    ):
        reason, count = missing["a2a", metric]
        assert (part in reason, count) == (True, 1)


def test_finished_scores_survive_a_kill(folder: Path, monkeypatch: Patch) -> None:
    file, metrics = folder / "killed.csv", "speaker_similarity, word_error"
    file.write_bytes((folder / "list.csv").read_bytes())

    def killed() -> None:
        monkeypatch.setattr(Recogniser, "hear", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        opened(file, metrics).results()

    child = multiprocessing.get_context("fork").Process(target=killed)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    monkeypatch.setattr(Encoder, "embed", None)  # nothing that was finished is measured again
    kept = opened(file, metrics)
    assert values(kept)["speaker_similarity"] > 0.99
    assert values(kept)["word_error"] == pytest.approx(1 / 6)
    for part in (kept.folder / protocol.PARTS).iterdir():
        part.write_text(part.read_text()[:50])
    damaged = reasons(opened(file, metrics))  # of a damaged part, it is
    save_waveform(folder / "source.wav", buzz(120, 1.01))
    changed = reasons(opened(file, metrics))  # other files have other scores
    save_waveform(folder / "source.wav", buzz(120))
    for missing in (damaged, changed):
        assert "not callable" in missing["a2a", "speaker_similarity"][0]


# Faces


def colours(file: Path, kind: str, gender: str) -> np.ndarray:
    """Know people by one colour and one pitch."""
    person = list(PITCH).index(file.stem.removeprefix("out_").removeprefix("face_"))
    return np.eye(len(PITCH))[person] * (1 + (kind == "face"))


def faces(folder: Path, task: str, source: str = "face_anna") -> Path:
    rng = np.random.default_rng(0)
    for number, who in enumerate(PITCH):
        for stem in (f"face_{who}", f"out_face_{who}"):
            pixels = rng.integers(0, 60, (40 + number, 36, 3)) + 40 * number
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{stem}.png")
    reference = "{}.wav" if task == "a2i" else "face_{}.png"
    rows = [
        f"{task},{source.format(who)}.png,{reference.format(who)},out_face_{who}.png,ours,,{who},"
        for who in PITCH
    ]
    return listed(folder / f"{task}.csv", *rows)


def test_audio_guided_faces(folder: Path, monkeypatch: Patch) -> None:
    evaluation = opened(faces(folder, "a2i"), "verification")
    assert "no verifier was given" in evaluation.measure("verification")["reason"][0]
    (folder / "out_face_dirk.png").write_bytes(b"<html>")
    evaluation = opened(folder / "a2i.csv", "verification, fid, lpips")
    monkeypatch.setattr(protocol, "style_of", lambda _, *given: colours(*given))
    evaluation.styles = Mock()
    found, (_, missing) = values(evaluation), evaluation.results()
    assert found["cross-modal verification AUC, all pairs"] == 1.0
    assert found["unusable_outputs"] == pytest.approx(1 / 4)
    assert not any(name.startswith("fid") for name in found)
    assert {one["metric"] for one in missing} >= {"fid_stargan_v2", "lpips_alex", "all"}
    assert any("is text" in one["reason"] for one in missing)


def small_distances(monkeypatch: Patch) -> LPIPS:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    distance = LPIPS("lpips_test", layers, [torch.ones(1, 4, 1, 1)], definition="d")
    mean = Extractor("fid_test", "means", lambda x: x.mean((2, 3)), to_floats, num_features=3)
    made = {"fid": {"fid_test": mean, "fid_x": DataError("why")}, "lpips": {"lpips_test": distance}}
    monkeypatch.setattr(images, "networks", lambda family, **_: made[family])
    return distance


def test_distances_of_faces_in_files(folder: Path, monkeypatch: Patch) -> None:
    distance = small_distances(monkeypatch)
    evaluation = opened(faces(folder, "i2i"), "fid, lpips")
    scores, missing = evaluation.results()
    found: dict[str, Any] = {row["metric"]: row for row in scores}
    assert found["fid_test"]["value"] == pytest.approx(0, abs=0.05)
    assert "against 4 faces of the manifest" in found["fid_test"]["definition"]
    (group,) = evaluation.groups
    assert isinstance(group, manifest.Faces)
    x = to_floats(next(iter(group.blocks("")))[0])
    both = [distance.diversity(x[None, [i, j]]) for i in range(4) for j in range(i)]
    assert found["lpips_test"]["value"] == pytest.approx(float(torch.stack(both).mean()), rel=1e-4)
    assert [one["metric"] for one in missing] == ["fid_x"]


def test_pictures_that_are_none(folder: Path, monkeypatch: Patch) -> None:
    small_distances(monkeypatch)
    monkeypatch.setattr(images, "detect", lambda pictures: [None] * len(pictures))
    file = faces(folder, "i2i", "face_{}")  # everybody is a source
    (folder / "face_anna.png").write_bytes(b"no picture")
    evaluation = opened(file, "fid, preservation")
    scores, _ = evaluation.results()
    counts = {row["metric"]: row["n"] for row in scores}
    assert counts == {"unusable_outputs": 4, "fid_test": 4, "contour_f": 3, "face_found": 3}
    missing = reasons(evaluation)
    for metric in ("contour_f", "face_found", "fid_test"):
        reason, count = missing["i2i", metric]
        assert ("face_anna" in reason, count) == (True, 1)


def test_style_encoders_say_what_fits(folder: Path, monkeypatch: Patch) -> None:
    Image.new("RGB", (64, 64), (90, 120, 30)).save(folder / "square.png")
    monkeypatch.setattr(converter_convert, "detect", lambda pictures: [np.array(LANDMARKS)])
    model = Converter(loaded(), name="toy", vocoder=GriffinLim(iterations=1))
    embed = partial(protocol.style_of, model)
    seen, heard = embed(folder / "square.png", "face", "f"), embed(folder / "carl.wav", "voice", "")
    assert seen.shape == heard.shape == (8,)
    assert not np.array_equal(seen, embed(folder / "square.png", "face", "m"))
    refuses(ConfigError, "gender is missing", embed, folder / "square.png", "face", "")
    with pytest.raises(CheckpointError):
        opened(folder / "list.csv", checkpoint=str(folder / "absent"))


# The disk


def test_scores_on_the_disk(evaluation: Evaluation, folder: Path) -> None:
    scores, _ = evaluation.results()
    table = evaluation.save()
    written = {file.name: file.read_text("utf-8") for file in table.parent.glob("*.*")}
    back = report.from_csv(written["scores.csv"])
    assert [row["value"] for row in back] == [row["value"] for row in scores]
    for row in report.plain_rows("scores", back):
        report.require_columns(row["metric"], row)
        assert row["definition"]
    missing = report.from_csv(written["missing.csv"])
    assert {row["metric"] for row in missing} >= {"nisqa", "nisqa_tts", "all"}
    assert len(json.loads(written["scores.json"])["manifest_sha256"]) == 64
    assert str(folder) not in written["scores.csv"]
    text = " ".join(written[table.name].split())
    assert "| ours | a2a | | | | word_error | 0.167 |" in text
    assert "- word_error: errors over words" in text
    with pytest.raises(DataError, match="cannot be written"):
        dataclasses.replace(evaluation, folder=folder / "source.wav").save()
    silent = listed(folder / "silent.csv", "z2a,source.wav,,out_silent.wav,ours,,,")
    refuses(DataError, r"nothing could be measured; .*silent", opened(silent, "f0").save)
