"""The command line for people: conversions, what it says and refuses, completion."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import Patch
from tests.unit.store_factory import face, provenance_of, tone
from tests.unit.test_convert import loaded
from xfavot import cli
from xfavot.audio.io import load_waveform, save_waveform
from xfavot.audio.vocoder import GriffinLim
from xfavot.convert import Converter
from xfavot.image.io import save_image

Said = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: Patch) -> Path:
    """A folder with a face and two voices, and a model that is not the one that ships."""
    save_image(tmp_path / "me.jpg.png", face((90, 60, 40), 128))
    (tmp_path / "me.jpg.png").rename(tmp_path / "me.jpg")  # its content counts
    for name, pitch in (("me", 120.0), ("friend", 210.0)):
        save_waveform(tmp_path / f"{name}.wav", tone(pitch, 1.0, np.random.default_rng(0)))
    (tmp_path / "broken.wav").write_bytes(b"RIFF\0\0\0\0WAVE" + bytes(40))
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "page.png").write_text("<html>not found</html>")
    made = Converter(loaded(), name="toy", vocoder=GriffinLim(iterations=1))
    monkeypatch.setattr(Converter, "from_pretrained", lambda name, **_: made)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", ["me.jpg", "me.wav"])
def test_every_kind_of_conversion(source: str, here: Path, capsys: Said) -> None:
    convert = ["convert", "--source", source, "--aligned"]
    guides = {"i": ["--reference", "me.jpg", "--gender", "f"], "a": ["--reference", "friend.wav"]}
    guides["z"] = ["--latent", "3", "--gender", "m"]
    output = {"me.jpg": "i", "me.wav": "a"}[source]
    names = {"i": "me_after_me", "a": "me_after_friend", "z": "me_after_latent_3"}
    for letter, guide in guides.items():
        for number in ("", "_2"):  # nothing is overwritten
            assert cli.main([*convert, *guide]) == 0
            file = Path(f"{names[letter]}{number}{cli.SUFFIX[cli._kind('', source)]}")
            said = capsys.readouterr().out
            assert f"task: {letter}2{output} (guidance to output)\n" in said
            assert f"source: {source}\n" in said
            assert f"wrote {file}, in " in said
            if output == "i":
                with Image.open(file) as image:
                    assert (image.size, image.info["checkpoint"]) == ((32, 32), "toy")
            else:
                assert (len(load_waveform(file)), provenance_of(file)["step"]) == (24_000, "7")
    (here / "out").mkdir()
    assert cli.main([*convert, *guide, "--output", "out"]) == 0
    assert len([*(here / "out").iterdir()]) == 1


LATENT = ["--latent", "3", "--gender", "f"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--source", "nothing.png", *LATENT], "nothing.png: cannot be opened"),
        (["--source", "page.png", *LATENT], "page.png: is text"),
        (["--source", "noise.bin", *LATENT], "noise.bin is neither picture, sound nor film"),
        (["--source", "broken.wav", *LATENT], "broken.wav"),
        (["--source", "me.jpg", "--reference", "me.jpg"], "gender is missing"),
        (["--source", "me.jpg", "--latent", "3"], "expected exactly one of them"),
        (["--source", "me.jpg", *LATENT, "--output", "x.wav"], "x.wav does not end in .png"),
        (["--source", "me.wav", *LATENT, "--output", "friend.wav"], "friend.wav is there already"),
    ],
)
def test_what_cannot_be_converted_is_told(
    given: list[str], message: str, here: Path, capsys: Said
) -> None:
    before = {path: path.read_bytes() for path in here.iterdir()}
    assert cli.main(["convert", "--aligned", *given]) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in here.iterdir()} == before


def test_a_shell_completes_commands_options_and_presets(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        out = tmp_path / "completions"
        asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"}
        how = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
        command = [sys.executable, "-c", "from xfavot import cli; cli.main()"]
        subprocess.run(
            command, env=os.environ | asked | how | {"_ARGCOMPLETE_IFS": "\n"}, check=True
        )
        return [word.strip() for word in out.read_text("utf-8").splitlines()]

    assert {"convert", "train"} <= {*completed("xfavot ")}
    assert completed("xfavot train --configuration comp") == ["companion"]


def test_training_takes_parameters_as_options(monkeypatch: Patch, capsys: Said) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(cli, "_train", lambda given: seen.append(given) or 0)
    options = ["--dataset", "grid", "--steps", "300", "--overrides", '{"loss.xm": 0.5}']
    assert cli.main(["train", "-p", "seed", "3", *options]) == 0
    overrides = '{"loss.xm": 0.5}'
    assert seen == [{"seed": 3, "dataset": "grid", "steps": 300, "overrides": overrides}]
    with pytest.raises(SystemExit):
        cli.main(["train", "--stepz", "3"])
    assert "--stepz" in capsys.readouterr().err
