"""Figures, players and progress lines: that they are drawn, kept and readable."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from PIL import Image

from tests.unit.store_factory import face, tone
from xfavot.audio.io import save_waveform
from xfavot.convert import Grid, Panel, Task
from xfavot.data.sample import Example
from xfavot.errors import DataError
from xfavot.viz import figures, progress, widgets

RNG = np.random.default_rng(0)
MEL_PANEL = Panel(
    label="s1 (f)",
    log_mel=RNG.normal(-2, 1, (80, 60)).astype(np.float32),
    f0=np.r_[np.zeros(20), np.full(40, 200.0)].astype(np.float32),
    waveform=tone(200.0, 0.2, RNG),
    speaker_face=face((90, 60, 40), 32),
)
FACE_PANEL = Panel(label="s2 (m)", face=face((20, 160, 90), 32))


def grid(task: Task) -> Grid:
    output = FACE_PANEL if task.output == "face" else MEL_PANEL
    row = {"face": FACE_PANEL, "voice": MEL_PANEL, "latent": Panel(label="code 0, f")}
    return Grid(
        task=task,
        note="toy at step 7, split val",
        columns=(output,) * 3,
        rows=(row[task.guidance],) * 2,
        cells=((output,) * 3,) * 2,
    )


@pytest.mark.parametrize("task", list(Task), ids=lambda t: t.value)
def test_every_grid_is_drawn_and_read_back(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "samples" / f"{task.value}.png"
    drawing = figures.conversion_grid(grid(task)).save(path)
    data, size = drawing._repr_png_()
    assert data == path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.width > 500
        assert image.info["Software"].startswith("xfavot")
    assert size["width"] < 1600
    assert not list(path.parent.glob(".*"))


def test_grids_are_written_and_shown_together(tmp_path: Path) -> None:
    album = figures.conversion_grids({"i2i": grid(Task.I2I)}, folder=tmp_path)
    assert (tmp_path / "grid_i2i.png").is_file()
    assert album._repr_html_().count("<img") == 1


def test_faces_keep_their_colours() -> None:
    sheet = figures.contact_sheet([face((200, 20, 20), 64)], ["one"])
    pixels = np.asarray(Image.open(io.BytesIO(sheet.render())).convert("RGB"))
    middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2 + 30]
    np.testing.assert_allclose(middle, (200, 20, 20), atol=2)


def test_curves_group_terms_and_passes() -> None:
    records: list[dict[str, Any]] = [
        {"step": s, "a2i/latent/sty": 1.0, "i2i/sty": 2.0, "xm": 3.0, "s_per_step": 1.0, "ok": True}
        for s in range(1, 300)
    ]
    drawing = figures.curves(records)
    assert [axes.get_title("left") for axes in drawing.figure.axes] == ["sty", "xm"]
    assert drawing.render().startswith(b"\x89PNG")
    with pytest.raises(DataError, match="no record holds a term"):
        figures.curves([{"step": 1}])


def test_other_figures_draw() -> None:
    assert MEL_PANEL.log_mel is not None
    assert MEL_PANEL.f0 is not None
    mel = figures.mel_grid([MEL_PANEL.log_mel] * 2, ["a", "b"], f0=[MEL_PANEL.f0] * 2)
    assert mel.render("pdf").startswith(b"%PDF")
    assert figures.f0_tracks({"one": MEL_PANEL.f0}).render()
    with pytest.raises(DataError, match="one label each"):
        figures.mel_grid([MEL_PANEL.log_mel], [])
    with pytest.raises(DataError, match=r"\.png or \.pdf"):
        mel.save("figure.jpg")


def test_players_do_not_normalise_and_embed_six_at_most(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.wav" for i in range(9)]
    for path in paths:
        save_waveform(path, 0.01 * tone(150.0, 0.1, RNG))
    html = widgets.players(paths).html
    assert html.count("<audio") == widgets.MOST_PLAYERS == 6
    assert "3 more" in html
    quiet = np.full(100, 0.25, np.float32)
    wav = widgets._audio(quiet).data
    assert abs(np.frombuffer(wav[44:], "<i2")).max() == pytest.approx(0.25 * 32767, abs=1)
    assert widgets._audio(quiet * 9).data  # clipped, not refused
    with pytest.raises(DataError, match="labels"):
        widgets.players(paths, ["one"])


def test_files_are_listed_with_sizes(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "a<b.txt").write_text("x", encoding="utf-8")
    html = widgets.files(tmp_path).html
    assert "samples/" in html
    assert "a&lt;b.txt" in html


class FakeConverter:
    image_size = 32


@pytest.mark.parametrize(
    ("name", "size", "kind", "match"),
    [
        ("a.exe", 10, "face", "expected a face"),
        ("a.wav", 10, "face", "expected a face"),
        ("a.png", 0, "face", "has 0 bytes"),
        ("a.wav", widgets.MOST_UPLOAD_BYTES + 1, "voice", "expected 1 to"),
    ],
)
def test_uploads_are_checked(name: str, size: int, kind: str, match: str) -> None:
    with pytest.raises(DataError, match=match):
        widgets.check_upload(name, size, kind)


def test_an_upload_becomes_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "mine.wav"
    save_waveform(path, tone(150.0, 0.3, RNG))
    converter: Any = FakeConverter()
    example = widgets.read_upload("../../mine.wav", path.read_bytes(), converter)
    assert isinstance(example, Example)
    assert example.label == "mine.wav"
    with pytest.raises(DataError):
        widgets.read_upload("page.jpg", b"<html>", converter)


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress.line("mini: s1 made")
    record = {
        "step": 20,
        "steps": 300,
        "s_per_step": 1.234,
        "eta_s": 3900.0,
        "a2i/adv": 0.5,
        "i2i/adv": 0.7,
        "a2i/latent/sty": 0.00012,
        "xm": 2.0,
        "cyc": 1.0,
    }
    progress.line(record)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "mini: s1 made"
    assert second == (
        "step  20/300  1.23 s/step  1 h 05 min left  adv 0.6  sty 1.2e-04  cyc 1  xm 2"
    )
    assert progress.format_line({"network": "f0", "step": 3, "pitch": 0.25}) == (
        "f0  step      3  pitch 0.25"
    )
    assert [progress.duration(s) for s in (-1, 42, 200)] == ["0 s", "42 s", "3 min 20 s"]
