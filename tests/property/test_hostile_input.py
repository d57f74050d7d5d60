"""Whatever a file or a parameter holds, it is used or refused with one of the package's errors."""

from __future__ import annotations

import dataclasses
import io
import json
import string
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import refuses
from tests.unit.store_factory import encoded, face, make_store, tone
from xfavot import parameters, presets
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL
from xfavot.config import RunConfig, to_dict
from xfavot.data import report
from xfavot.data.readers.layouts import scan
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, ConfigError, DataError
from xfavot.evaluation import classifiers, manifest
from xfavot.image.io import load_image
from xfavot.media import kind_of
from xfavot.report import study
from xfavot.training.checkpoint import (
    SCHEMA,
    going_on,
    read_state,
    restore_optimizers,
    statistics_of,
)
from xfavot.training.loop import read

QUICK = settings(
    max_examples=60,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
VOICE = tone(150.0, 0.2, np.random.default_rng(0))


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(face((90, 60, 40), 32)).save(buffer, kind)
    return buffer.getvalue()


PICTURES = [picture(kind) for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")]
SOUNDS = [
    encoded(form, codec, VOICE, 48_000)
    for form, codec in (
        ("wav", "pcm_s16le"),
        ("flac", "flac"),
        ("webm", "libopus"),
        ("ipod", "aac"),
        ("mp3", "libmp3lame"),
    )
]


@st.composite
def damaged(draw: Any, whole: list[bytes]) -> bytes:
    """A file with some bytes changed, cut somewhere, or followed by others."""
    content = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 12))):
        near = draw(st.sampled_from([64, 512, len(content)]))  # headers matter most
        content[draw(st.integers(0, min(near, len(content)) - 1))] = draw(st.integers(0, 255))
    cut = draw(st.integers(0, len(content)))
    return bytes(content if draw(st.booleans()) else content[:cut]) + draw(st.binary(max_size=8))


@pytest.mark.filterwarnings("ignore")  # Pillow's, of what it skips
@QUICK
@given(content=st.one_of(damaged(PICTURES), st.binary(max_size=200)))
def test_pictures(content: bytes) -> None:
    assert kind_of(content) in (None, "picture", "sound", "film")
    with suppress(DataError):
        pixels = load_image(content)
        assert (pixels.dtype, pixels.shape[2]) == (np.uint8, 3)


@QUICK
@given(content=st.one_of(damaged(SOUNDS), st.binary(max_size=200)))
def test_sounds(content: bytes) -> None:
    assert kind_of(content) in (None, "picture", "sound", "film")
    with suppress(DataError):
        wave = load_waveform(content)
        assert (wave.dtype, wave.ndim, bool(np.isfinite(wave).all())) == (np.float32, 1, True)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)
CLASSES = ("Prepare", "Train", "Baseline", "Pretrain", "Explore", "Evaluate", "Demo", "Paper")


@QUICK
@given(data=st.data(), name=st.sampled_from(CLASSES))
def test_parameters(data: Any, name: str) -> None:
    cls = getattr(parameters, name)
    names = st.sampled_from([one.name for one in dataclasses.fields(cls)] + ["typo"])
    given_ = data.draw(st.dictionaries(names, ODD, min_size=1, max_size=3))
    with suppress(ConfigError):
        assert dataclasses.is_dataclass(cls.resolve(**given_))


@QUICK
@given(text=st.text(alphabet=string.printable, max_size=60))
def test_overrides(text: str) -> None:
    with suppress(ConfigError):
        assert isinstance(presets.parse(text, "overrides"), dict)
    with suppress(ConfigError):
        parameters.Train.resolve(overrides=text)


@st.composite
def changed(draw: Any, whole: Any) -> bytes:
    """A JSON document in which something at any depth is gone or another value, or a part of it."""
    content = json.loads(json.dumps(whole))
    for _ in range(draw(st.integers(1, 2))):
        at = content
        while at:
            name = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if isinstance(at[name], dict | list) and draw(st.integers(0, 3)):
                at = at[name]
                continue
            at[name] = draw(ODD)
            if draw(st.booleans()):
                del at[name]
            break
    text = json.dumps(content).encode()
    return text[: draw(st.sampled_from([len(text)] * 9 + [len(text) // 2]))]


STATE: dict[str, Any] = {"schema": SCHEMA, "bytes": {}, "mel": MEL.as_dict(), "step": 3}
STATE |= {"config": to_dict(RunConfig()), "speakers": ["mini/s01"], "data": "0123"}
STATE |= {"mel_mean": [0.0] * 80, "mel_std": [1.0] * 80, "content_depth": 1}
STATE |= {"trained": {"M": [1, 2, 3], "G_A": [6]}}


@QUICK
@given(content=changed(STATE))
def test_states_of_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text(json.dumps(STATE), encoding="utf-8")
    assert read_state(tmp_path) == STATE
    (tmp_path / "state.json").write_bytes(content)
    with suppress(CheckpointError, ConfigError):
        statistics_of(read_state(tmp_path))
        going_on(tmp_path, RunConfig(), "0123")


LAYERS = torch.nn.Linear(2, 2)
SAVED = io.BytesIO()
torch.save({"model": torch.optim.Adam(LAYERS.parameters()).state_dict()}, SAVED)


@QUICK
@given(content=damaged([SAVED.getvalue()]))
def test_optimisers_of_checkpoints(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "optimizer.pt").write_bytes(content)
    with suppress(CheckpointError):
        restore_optimizers(tmp_path, {"model": torch.optim.Adam(LAYERS.parameters())})


FACTORS = {
    "people": {"s01": {"age": 0.5}},
    "faces": {"s01/a_0": {"yaw": 1, "landmarks": [[1] * 2] * 5}},
}
TABLE = b"task,source,reference,output,model,gender\na2a,a.wav,a.wav,a_0.png,x,f\n"
LISTS: dict[str, tuple[Any, Any]] = {  # files: what is in them, and their reader, given the folder
    "factors.json": (changed(FACTORS), lambda folder: scan("mini", folder, 0)),
    "speakers.csv": (damaged([b"speaker,gender\ns01,f\n"]), lambda folder: scan("mini", folder, 0)),
    "outputs.csv": (
        st.one_of(
            damaged([TABLE]),
            st.sampled_from([b"~no/a.wav", b"a" * 300]).map(
                lambda name: TABLE.replace(b"a_0.png", name)
            ),
        ),
        lambda folder: manifest.read(folder / "outputs.csv"),
    ),
    "metrics.jsonl": (
        st.one_of(damaged([b'{"step": 1, "g/a2a/sty": 0.5}\n' * 2]), st.just(b"5\n")),
        lambda folder: [record["step"] for record in read(folder / "metrics.jsonl")],
    ),
    "key.json": (
        changed(
            {"schema": 1, "study": "a", "form": "faces", "dataset": "mini", "seed": 0}
            | {"questions": {}, "sheets": {}, "automatic": [{}], "provenance": {}}
        ),
        lambda folder: study.result_rows(study.open_study(folder), []),
    ),
}


@pytest.mark.parametrize("name", LISTS)
@QUICK
@given(data=st.data())
def test_lists_and_tables(data: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / "s01").mkdir(exist_ok=True)
    for file in ("a.wav", "s01/a.wav", "s01/a_0.png"):
        (tmp_path / file).write_bytes(b"x")
    (tmp_path / "speakers.csv").write_text("speaker,gender\ns01,f\n", encoding="utf-8")
    content, call = LISTS[name]
    (tmp_path / name).write_bytes(data.draw(content))
    with suppress(CheckpointError, DataError):
        call(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store"), corpus="toy", genders="f", clips=1)


def test_a_header_that_ends_too_early(store: Store) -> None:
    """NumPy's reader of headers gives up on it in its own way."""
    file = store.path / "faces.npy"
    before = file.read_bytes()
    file.write_bytes(before.replace(b"}", b"(", 1))
    refuses(DataError, "faces.npy is damaged", Store.open, store.path)
    file.write_bytes(before)


@QUICK
@given(data=st.data())
def test_prepared_stores(data: Any, store: Store) -> None:
    names = ["store.json", "manifest.csv", "index.npz", "faces.npy", "quarantine.csv"]
    file = store.path / data.draw(st.sampled_from([*names, "factors.json"]))
    before = file.read_bytes() if file.exists() else b'{"faces": [{"yaw": 1.0}]}'
    try:
        file.write_bytes(data.draw(damaged([before])))
        with suppress(DataError):
            again = Store.open(store.path)
            for item in again.items:
                again.waveform(item), again.log_mel(item), again.f0_hz(item)
                [again.face(item, i) for i in range(min(item.face_count, 2))]
            report._facts(again), classifiers._poses(again)
    finally:
        file.write_bytes(before)
