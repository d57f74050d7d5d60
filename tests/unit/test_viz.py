"""Figures, players, progress lines: drawn, kept, readable; what cannot be made says so."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
pytest.importorskip("ipywidgets")

from PIL import Image

from tests.conftest import ROOT, refuses
from tests.unit.store_factory import encoded, face, make_store, tone
from tests.unit.test_convert import loaded
from tests.unit.training_factory import shared_store
from xfavot.audio.io import save_waveform
from xfavot.audio.vocoder import GriffinLim
from xfavot.config import RunConfig
from xfavot.convert import Converter, Grid, Panel, Task
from xfavot.data.sample import Example
from xfavot.data.store import Store
from xfavot.errors import ConfigError, DataError
from xfavot.evaluation import matching
from xfavot.parameters import Figures
from xfavot.viz import drawing as drawing_room
from xfavot.viz import explorer, progress, widgets
from xfavot.viz.drawing import conversions, title_of
from xfavot.viz.paper_figures import Material, excused

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
    row = {"face": FACE_PANEL, "voice": MEL_PANEL, "latent": Panel(label="code 0 (f)")}
    many: dict[str, Any] = {"columns": (output,) * 3, "rows": (row[task.guidance],) * 2}
    return Grid(task=task, note="toy at step 7, split val", cells=((output,) * 3,) * 2, **many)


@pytest.mark.parametrize("task", list(Task), ids=lambda t: t.value)
def test_a_sheet_shows_sources_references_and_conversions(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "samples" / f"{task.value}.png"
    drawing = conversions(grid(task)).save(path)
    fields = drawing.figure.axes
    speakers = 2 if task.guidance == "voice" else 0  # their faces stand beside reference voices
    shown = sum(bool(axes.images) for axes in fields)
    assert shown == 3 + 2 * (3 + (task.guidance != "latent")) + speakers
    dashed = [axes for axes in fields if any(line.get_linestyle() == "--" for line in axes.lines)]
    assert len(dashed) == (6 if task.value == "a2a" else 0)  # the pitch of the reference
    texts = [text.get_text() for text in drawing.figure.texts]
    assert texts[0] == title_of(task)
    assert texts[1].endswith("toy at step 7, split val")
    data, _ = drawing._repr_png_()
    assert data == path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["Software"].startswith("xfavot")


def test_curves_group_terms_and_passes() -> None:
    records: list[dict[str, Any]] = [
        {"step": s, "a2i/latent/sty": 1.0, "i2i/sty": 2.0, "xm": 3.0, "s_per_step": 1.0, "ok": True}
        for s in range(1, 300)
    ]
    drawing = drawing_room.curves(records)
    assert [axes.get_title("left") for axes in drawing.figure.axes] == ["sty", "xm"]
    assert drawing.render().startswith(b"\x89PNG")
    assert drawing.render("pdf").startswith(b"%PDF")
    assert b"CreationDate" not in drawing.render("pdf")  # drawn again, it is the same file
    refuses(DataError, "no record holds a term", drawing_room.curves, [{"step": 1}])


def test_players_do_not_normalise_and_embed_six_at_most(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.wav" for i in range(9)]
    for path in paths:
        save_waveform(path, 0.01 * tone(150.0, 0.1, RNG))
    html = widgets.players(paths).html
    assert html.count("<audio") == widgets.MOST_PLAYERS == 6
    assert "3 more" in html
    quiet = np.full(100, 0.25, np.float32)
    for wave, peak in ((quiet, 0.25), (quiet * 9, 1.0)):  # clipped, not refused
        html = widgets.players({"a <b>": wave}).html
        assert "a &lt;b&gt;" in html
        wav = base64.b64decode(html.split("base64,")[1].split('"')[0])
        assert abs(np.frombuffer(wav[44:], "<i2")).max() == pytest.approx(peak * 32767, abs=1)


@pytest.fixture(scope="module")
def converter() -> Converter:
    return Converter(loaded(), name="toy", vocoder=GriffinLim(iterations=2))


SEEN: dict[str, Any] = {"face": face((90, 60, 40), 32), "waveform": tone(180.0, 0.4, RNG)}
PEOPLE = [Example(label=f"s1 ({sex})", speaker=f"mini/{sex}", gender=sex, **SEEN) for sex in "fm"]


def test_the_explorer_converts_and_takes_files(converter: Converter, tmp_path: Path) -> None:
    given = [*PEOPLE, PEOPLE[0]]
    e = explorer.Explorer(converter, given, folder=tmp_path / "kept")
    assert list(e.examples) == ["s1 (f)", "s1 (m)", "s1 (f) #2"]
    assert "<img" in e.result.value
    for output in ("face", "voice"):
        for guidance in explorer.GUIDANCE.values():
            e.output.value, e.guidance.value = output, guidance
            assert "<img" in e.result.value
            players = {"face": guidance == "voice", "voice": 2 + (guidance == "voice")}[output]
            assert e.result.value.count("<audio") == players
    before = e.result.value
    e.reference.value = "code 7"
    assert e.result.value != before
    path = tmp_path / "mine.wav"
    save_waveform(path, tone(150.0, 0.3, RNG))
    e.upload.value = [upload("../../mine.wav", path.read_bytes())]
    assert (e.output.value, e.source.value) == ("voice", "mine.wav")
    e.guidance.value = "voice"
    assert "mine.wav" in e.reference.options
    e.reference.value = "mine.wav"
    heard = converter.style_of_voice(e.examples["mine.wav"].waveform).gender
    assert e.gender.value == "fm".index(heard)
    e.output.value = "face"
    assert "mine.wav" not in e.source.options
    shown = e.result.value
    e.upload.value = [upload("page.exe", b"<html>")]
    assert "expected a picture, a sound or a film" in e.said.value
    assert e.result.value == shown
    assert "page.exe" not in e.reference.options
    e.recorder.content = encoded("webm", "libopus", tone(150.0, 0.5, RNG), 48_000)
    assert (e.source.value, e.output.value) == ("recording 1", "voice")


def test_the_explorer_slides_between_styles_and_keeps_results(
    converter: Converter, tmp_path: Path
) -> None:
    e = explorer.Explorer(converter, PEOPLE, folder=tmp_path / "kept")
    e.guidance.value = "latent"
    e.reference.value, e.second.value = "code 1", "code 2"

    def of(code: int, head: str) -> Any:
        return converter.style_of_latent(code, gender=head).vector

    e.gender.value, e.mix.value = 0.0, 0.25
    torch.testing.assert_close(e.style().vector, 0.75 * of(1, "f") + 0.25 * of(2, "f"))
    e.mix.value, e.gender.value = 0.0, 0.75
    torch.testing.assert_close(e.style().vector, 0.25 * of(1, "f") + 0.75 * of(1, "m"))
    before, shown = e.style().vector, e.result.value
    e.moves[0].value = 2.0
    moved = e.style()
    styles = [
        e._style(kind, one.label, one.gender).vector for one in PEOPLE for kind in ("face", "voice")
    ]
    spread = float(torch.cat(styles).var(dim=0, correction=0).sum())
    assert 0 < float((moved.vector - before).norm()) / 2 <= spread**0.5
    assert e.result.value != shown
    e._keep()
    e._keep()  # nothing is overwritten
    files = sorted((tmp_path / "kept").iterdir())
    assert [file.name for file in files] == ["s1-f_after_code-1.png", "s1-f_after_code-1_2.png"]
    with Image.open(files[0]) as image:
        assert image.info["directions"] == "+2.00, +0.00, +0.00"
        assert image.info["gender"] == "0.25 f + 0.75 m"
        assert (image.info["source"], image.info["reference"]) == ("s1 (f)", "code 1")
    assert explorer.Explorer(converter, PEOPLE, folder=tmp_path / "kept").gallery.value.count(
        "<figure"
    ) == len(files)


def upload(name: str, content: bytes) -> dict[str, Any]:
    when = datetime.datetime.now(datetime.UTC)
    made = {"name": name, "type": "", "size": len(content), "content": memoryview(content)}
    return made | {"last_modified": when}


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [("a.png", b"", "is empty"), ("page.jpg", b"<html>", "upload 'page.jpg'.* is text")],
)
def test_uploads_are_checked(name: str, content: bytes, match: str, converter: Converter) -> None:
    refuses(DataError, match, explorer.read_upload, name, content, converter)


def test_progress_lines(capsys: pytest.CaptureFixture[str]) -> None:
    progress.line("mini: s1 made")
    record = {"step": 20, "steps": 300, "s_per_step": 1.234, "eta_s": 3900.0, "a2i/adv": 0.5}
    progress.line(record | {"i2i/adv": 0.7, "a2i/latent/sty": 0.00012, "xm": 2.0, "cyc": 1.0})
    progress.line({"network": "f0", "step": 3, "pitch": 0.25})
    assert capsys.readouterr().out.splitlines() == [
        "mini: s1 made",
        "step  20/300  1.23 s/step  1 h 05 min left  adv 0.6  sty 1.2e-04  cyc 1  xm 2",
        "f0  step      3  pitch 0.25",
    ]
    assert [progress.duration(s) for s in (-1, 42, 200)] == ["0 s", "42 s", "3 min 20 s"]


@pytest.mark.parametrize(
    ("name", "form", "codec", "rate"),
    [
        ("clip.m4a", "ipod", "aac", 24000),
        ("clip.webm", "webm", "libopus", 48000),
        ("clip.txt", "wav", "pcm_s16le", 24000),
    ],
)
def test_uploads(name: str, form: str, codec: str, rate: int, converter: Converter) -> None:
    wave = np.sin(np.arange(rate) * 2 * np.pi * 150 / rate).astype(np.float32) / 4
    sample = explorer.read_upload(name, encoded(form, codec, wave, rate), converter)
    assert sample.face is None
    assert sample.waveform is not None
    assert len(sample.waveform) == pytest.approx(24000, abs=2000)


NAMES = ("\u1d81\u1d84", "\u1d8a\u1d8d")  # of matplotlib's own fonts, STIXGeneral alone has these


def named_grid() -> Grid:
    one = grid(Task.A2I)
    columns = tuple(dataclasses.replace(FACE_PANEL, label=f"{name} (m)") for name in NAMES)
    cells = tuple(line[:2] for line in one.cells)
    return dataclasses.replace(one, columns=columns, cells=cells)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("known", [True, False])
def test_names_of_any_script(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a font that has them, or numbered with a note; a glyph that is missing is an error."""
    fonts = list(drawing_room.fontManager.ttflist) if known else []
    monkeypatch.setattr(drawing_room.fontManager, "ttflist", fonts)
    monkeypatch.setattr(drawing_room, "NUMBERS", {})
    drawing_room._fallbacks.cache_clear()
    picture = conversions(named_grid())
    picture.render()
    drawing_room._fallbacks.cache_clear()
    titles = [axes.get_title("center") for axes in picture.figure.axes]
    for numbered, name in zip(("name 1", "name 2"), NAMES, strict=True):
        assert f"{name if known else numbered} (m)" in titles
    assert (drawing_room.NOTE in [text.get_text() for text in picture.figure.texts]) is not known


# The paper's figures: what they show is what was made


metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Converter:
    path = tmp_path_factory.mktemp("model")
    for part in ("model", "ema"):
        (path / f"{part}.safetensors").write_bytes(b"weights")
    run = RunConfig(name="toy", preset="smoke", model=loaded().config.model)
    return Converter(loaded(config=run, path=path), name="toy", vocoder=GriffinLim(iterations=2))


store = shared_store(corpus="mini", genders="ffmm", clips=2, splits=("train", "val"))


def material(model: Converter, stores: tuple[Store, ...], out: Path) -> Material:
    cfg = Figures.resolve(dataset="mini", device="cpu", out=str(out), triplets=2)
    known: dict[str, Any] = {"cfg": cfg, "systems": {"toy": model}}
    return Material(stores=stores, avatars=stores, split="val", **known)


def test_different_people_are_drawn(model: Converter, store: Store, tmp_path: Path) -> None:
    at = material(model, (store,), tmp_path)
    assert at.has("Fig. 1", "face", "voice", "avatar")
    voices = at.draw("voice", count=2, seed=0)
    faces = at.draw("face", count=2, seed=1, avoid=voices)
    assert not {e.speaker for e in voices} & {e.speaker for e in faces}
    assert {e.gender for e in voices} == {"f", "m"}
    assert {len(e.waveform) <= 2.4 * 24_000 for e in voices if e.waveform is not None} == {True}
    assert "toy at step" in at.note


def test_missing(model: Converter, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind: dict[str, Any] = {"corpus": "celeba_hq", "kind": "image", "splits": ("val",)}
    silent = make_store(tmp_path / "data", clips=2, **kind)
    at = material(model, (silent,), tmp_path / "out")
    assert at.has("Fig. 6 (a)", "face")
    assert not at.has("Fig. 1", "face", "voice")
    with excused("Fig. 10"):
        matching.style_space(at.converter, at.stores, split="val", seed=0)
    assert not dataclasses.replace(at, avatars=()).has("Fig. 7", "avatar")
    said = capsys.readouterr().out
    for text in (
        "Fig. 1 is missing: split val of mini has no voice of known gender",
        "Fig. 10 is missing",
        "prepare_data.ipynb -p dataset avatars",
    ):
        assert text in said


def test_parameters() -> None:
    several = {"others": " runs/a , runs/b", "study": "asked"}
    cfg = Figures.resolve(checkpoint="runs/c", **several)
    assert cfg.asked.checkpoints == ("runs/c", "runs/a", "runs/b")
    assert (cfg.asked.form, cfg.asked.triplets) == ("faces", 30)
    with pytest.raises(ConfigError, match=r"study is ''; expected the study that was answered"):
        Figures.resolve(answers="folder")


def test_numbers_of_the_style_space_by_hand() -> None:
    """The notebook's cell, on two people whose voices lie apart from their faces."""
    text = (ROOT / "notebooks" / "figures.py").read_text(encoding="utf-8")
    (cell,) = (part for part in text.split("# %%\n") if "gap, count =" in part)
    styles = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8], [0, 0.6, 0.8]])
    kind, who = np.repeat(matching.KINDS, 2), np.array([0, 1, 0, 1])
    known: dict[str, Any] = {"space": matching.StyleSpace(styles, kind, who, [*"ab"], [*"fm"])}
    known |= {"matching": matching, "silhouette_score": metrics.silhouette_score}
    exec(cell, known)
    assert {name: float(value) for name, value, _ in known["found"]} == pytest.approx(
        {
            "silhouette by speaker": (0.6 + (0.68 - 0.4) / 0.68) / 2,
            "silhouette by modality": ((0.7 - 1) / 1 + (0.7 - 0.36) / 0.7) / 2,
            "modality gap": 0.72**0.5,
            "cosine, face and voice of one person": 0.6,
            "cosine, of two people": 0.0,
        }
    )
