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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import refuses
from tests.unit.store_factory import encoded, face, make_store, tone
from xfavot import parameters, presets
from xfavot.audio.io import load_waveform
from xfavot.audio.mel import MEL
from xfavot.config import RunConfig, from_dict, to_dict
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, ConfigError, DataError
from xfavot.image.io import load_image
from xfavot.media import kind_of
from xfavot.training.checkpoint import SCHEMA, read_state

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


@QUICK
@given(data=st.data())
def test_states_of_checkpoints(data: Any, tmp_path: Path) -> None:
    config = to_dict(RunConfig())
    state: dict[str, Any] = {"schema": SCHEMA, "bytes": {}, "mel": MEL.as_dict(), "config": config}
    section = data.draw(st.sampled_from([state, config, *(config[k] for k in ("model", "train"))]))
    section[data.draw(st.sampled_from(sorted(section)))] = data.draw(ODD)
    text = json.dumps(state)
    cut = data.draw(st.sampled_from([len(text), len(text) // 2, 0]))
    (tmp_path / "state.json").write_text(text[:cut], encoding="utf-8")
    with suppress(CheckpointError, ConfigError):
        from_dict(read_state(tmp_path)["config"])


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
    name = data.draw(st.sampled_from(["store.json", "manifest.csv", "index.npz", "faces.npy"]))
    file = store.path / name
    before = file.read_bytes()
    try:
        file.write_bytes(data.draw(damaged([before])))
        with suppress(DataError):
            again = Store.open(store.path)
            for item in again.items:
                again.waveform(item), again.log_mel(item), again.f0_hz(item)
                [again.face(item, i) for i in range(min(item.face_count, 2))]
    finally:
        file.write_bytes(before)
