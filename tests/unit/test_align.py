"""Pictures of every form are read, and faces framed as in CelebA-HQ wherever they stand."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import Patch, refuses
from tests.unit.store_factory import encoded
from xfavot.data.readers.layouts import scan
from xfavot.errors import DataError, ShapeError
from xfavot.image import align, io
from xfavot.image.align import align_face, align_points, align_quad, detect
from xfavot.image.io import load_frames, load_image, resize_image, save_image, to_bytes, to_float
from xfavot.mini.draw import draw_face
from xfavot.mini.people import nuisance, people

FACE = np.array([[40, 50], [60, 50], [50, 60], [42, 70], [58, 70]], dtype=np.float64)
TOLERANCE = 0.06  # of the width of the crop
# Where the landmarks of an aligned frontal face lie, in widths of the crop (x, y): left eye, right
# eye, nose, left and right corner of the mouth, as the picture shows them. Eyes and mouth follow
# from the framing; the spread is the mean of MTCNN's landmarks on CelebA-HQ, GRID, LRS3, VoxCeleb.
ALIGNED: NDArray[np.float32] = np.array(
    [[0.379, 0.477], [0.621, 0.477], [0.5, 0.625], [0.4, 0.747], [0.6, 0.747]], dtype=np.float32
)


def turned(points: NDArray[np.float64], degrees: float, scale: float) -> NDArray[np.float64]:
    """Turn points about (200, 150) after scaling."""
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - points.mean(axis=0)) * scale @ turn.T + np.array([200.0, 150.0])


def test_quad_by_hand() -> None:
    # eyes 20 apart at y 50, mouth 20 below: half side max(2 x 20, 1.8 x 20) = 40, centre (50, 52)
    np.testing.assert_allclose(align_quad(FACE), [[10, 12], [10, 92], [90, 92], [90, 12]])


def test_framing_undoes_turn_scale_and_shift() -> None:
    for degrees, scale in ((-40.0, 0.5), (0.0, 3.0), (25.0, 3.0), (180.0, 0.5)):
        moved = turned(FACE, degrees, scale)
        ours = align_points(moved, moved, 128)
        np.testing.assert_allclose(ours, align_points(FACE, FACE, 128), atol=1e-3)
    average = align_points(ALIGNED * 100.0, ALIGNED * 100.0, 1)
    assert np.abs(average - ALIGNED).max() < 0.02  # the canonical places


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_pixels_follow_the_landmarks(degrees: float) -> None:
    moved = turned(FACE, degrees, 2.0)
    image = np.zeros((300, 400, 3), np.uint8)
    rows, columns = np.mgrid[:300, :400]
    for k, (x, y) in enumerate(moved[[0, 1, 4]]):  # red, green, blue dots
        image[np.hypot(columns + 0.5 - x, rows + 0.5 - y) < 6, k] = 255
    crop = align_face(image, moved, 128).astype(float)
    assert crop.shape == (128, 128, 3)
    wanted = align_points(moved, moved, 128)[[0, 1, 4]]
    rows, columns = np.mgrid[:128, :128]
    for k in range(3):
        weight = crop[..., k] / crop[..., k].sum()
        centre = [(weight * (columns + 0.5)).sum(), (weight * (rows + 0.5)).sum()]
        np.testing.assert_allclose(centre, wanted[k], atol=0.7)


def test_a_large_picture_is_filtered_not_sampled() -> None:
    checks = np.indices((2000, 2000)).sum(axis=0) % 2 * 255
    image = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    assert np.abs(align_face(image, FACE * 18 + 60, 64).astype(float) - 127.5).max() < 12


def test_the_border_fades_instead_of_repeating_the_face() -> None:
    image = np.full((100, 100, 3), 100, np.uint8)
    image[10:20] = 250  # a bar that a mirror would repeat above the edge
    crop = align_face(image, FACE - [0, 40], 128)
    assert align.outside_share(image.shape, FACE - [0, 40]) == pytest.approx(28 / 80, abs=0.02)
    assert crop[:20].max() < 200


def test_landmarks_that_are_no_face() -> None:
    picture = np.zeros((50, 50, 3), np.uint8)
    for points in (np.zeros((4, 2)), np.full((5, 2), np.nan), np.ones((5, 2))):
        refuses((DataError, ShapeError), "landmarks", align_face, picture, points, 32)


def test_images_are_written_and_read_back(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    save_image(tmp_path / "new" / "ä b.png", pixels, {"made by": "a test"})
    np.testing.assert_array_equal(load_image(tmp_path / "new" / "ä b.png"), pixels)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["ä b.png"]
    assert resize_image(pixels, 8).shape == (8, 8, 3)
    match = r"float64.*expected uint8"
    refuses(DataError, match, save_image, tmp_path / "x.png", pixels.astype(float))
    refuses(DataError, "suffix", save_image, tmp_path / "x.nothing", pixels)


def test_bad_images_say_what_they_are(tmp_path: Path) -> None:
    for given, message in (
        (tmp_path / "face.jpg", "cannot be opened"),
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "is text, neither"),
        (b"\xff\xd8\xff\xe0\0 broken", "cannot be read as an image"),
    ):
        refuses(DataError, message, load_image, given)


def scene() -> NDArray[np.uint8]:
    """Draw a large face in the middle, a middling one and a small one to the right of it."""
    noise = np.random.default_rng(0).integers(90, 130, (300, 500, 3)).astype(np.uint8)
    places = ((50, 60, 200), (20, 320, 100), (180, 390, 80))  # top, left, side
    for number, (top, left, side) in enumerate(places):
        drawn, _ = draw_face(people(8, seed=0)[2 * number], nuisance(0, 2 * number, 0, 0))
        noise[top : top + side, left : left + side] = resize_image(drawn, side)
    return noise


def test_the_main_face_is_the_large_one_near_the_middle() -> None:
    pytest.importorskip("facenet_pytorch")
    picture = scene()
    noise = np.random.default_rng(0).integers(0, 255, (120, 120, 3)).astype(np.uint8)
    points, *none = detect([picture, noise, noise[:10, :10]])
    assert none == [None, None]
    assert points.dtype == np.float32
    assert np.abs(points - (ALIGNED * 200 + [60, 50])).max() < 25
    shifted = detect([picture[:, 260:]])[0]  # without the large face
    assert shifted[:, 0].min() > 60
    (thrice,) = detect([picture.repeat(3, axis=0).repeat(3, axis=1)])  # scaled down inside
    np.testing.assert_allclose(np.asarray(thrice) / 3, points, atol=3)


def test_faces_are_those_of_facenet_pytorch() -> None:
    package = pytest.importorskip("facenet_pytorch")
    picture = scene()
    theirs = package.MTCNN(keep_all=True, min_face_size=24, device="cpu")
    wanted = theirs.detect(Image.fromarray(picture), landmarks=True)  # boxes, chances, points
    found = align.find_faces(picture, smallest=24)
    assert [len(part) for part in found] == [3, 3, 3]
    ours, other = (np.argsort(boxes[:, 0].astype(float)) for boxes in (found[0], wanted[0]))
    for one, its in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one[ours], its[other].astype(float), atol=0.01)


def test_detection_without_its_weights(monkeypatch: Patch) -> None:
    align._networks.cache_clear()
    monkeypatch.setattr(align.importlib.util, "find_spec", lambda name: None)
    refuses(DataError, r"facenet-pytorch==2\.6\.0", detect, [np.zeros((100, 100, 3), np.uint8)])


def test_boxes_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [0, 0, 5, 10], [20, 0, 30, 10]], np.float32)
    score = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    # shares of the union: 90/110 of the first two, 50/100 and 40/110 of the third with them
    assert align._distinct(boxes, score, 0.7).tolist() == [1, 2, 3]
    assert align._distinct(boxes, score, 0.9).tolist() == [1, 0, 2, 3]
    assert align._distinct(boxes, score, 0.3).tolist() == [1, 3]
    # of the smaller: 40/50 of the third
    assert align._distinct(boxes, score, 0.7, of_smaller=True).tolist() == [1, 3]
    assert align._distinct(boxes[:0], score[:0], 0.5).tolist() == []
    box = np.array([[10, 20, 30, 60]], np.float32)
    moved = align._moved(box, np.array([[0.1, 0.0, -0.1, 0.5]], np.float32))
    np.testing.assert_allclose(moved, [[12, 20, 28, 80]])
    np.testing.assert_allclose(align._square(box), [[0, 20, 40, 60]])


def deviations(crops: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Return the largest distance of an eye or the mouth from its place, in widths, a crop."""
    found = [points for points in detect(crops) if points is not None]
    assert len(found) == len(crops)
    offsets = np.stack(found) / crops[0].shape[0] - ALIGNED
    mouths = offsets[:, 3:].mean(axis=1, keepdims=True)
    return np.linalg.norm(np.hstack([offsets[:, :2], mouths]), axis=2).max(axis=1)


def test_real_faces_lie_at_their_places(real_corpus: Path) -> None:
    pytest.importorskip("facenet_pytorch")
    pytest.importorskip("av")
    framed = sorted((real_corpus / "celeba_hq").glob("*/*/*.jpg"))[::12]
    assert np.mean(deviations([resize_image(load_image(p), 128) for p in framed]) < TOLERANCE) > 0.9
    pictures = [load_image(p) for p in sorted((real_corpus / "voxceleb").glob("*/*/*.jpg"))[::26]]
    films = sorted((real_corpus / "grid").glob("s*/video/*.mpg"))[::14]
    pictures += [frame for film in films for frame in load_frames(film, 2)]
    found = [points for points in detect(pictures) if points is not None]
    crops = [align_face(*pair, 128) for pair in zip(pictures, found, strict=True)]
    assert np.mean(deviations(crops) < TOLERANCE) >= 0.95


def test_bytes_and_floats_agree_for_arrays_and_tensors() -> None:
    every = np.arange(256, dtype=np.uint8)
    floats = to_float(every)
    assert floats.dtype == np.float32
    assert (floats[0], floats[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_float(torch.from_numpy(every)).numpy(), floats)
    np.testing.assert_array_equal(to_bytes(floats), every)
    between = np.linspace(-1.5, 1.5, 4001, dtype=np.float32)
    np.testing.assert_array_equal(to_bytes(torch.from_numpy(between)).numpy(), to_bytes(between))
    assert to_bytes(np.array([-7.0, 0.0, 7.0])).tolist() == [0, 128, 255]


def grey(level: int = 100) -> Image.Image:
    return Image.new("L", (8, 6), level)


SILENCE = np.zeros(0, np.float32)


PICTURES = {  # and what all pixels are, once read
    "grey.png": (grey(), (100, 100, 100)),
    "bilevel.png": (Image.new("1", (8, 6), 1), (255, 255, 255)),
    "deep.png": (Image.fromarray(np.full((6, 8), 100 * 257, np.uint16)), (100, 100, 100)),
    "clear.png": (Image.new("RGBA", (8, 6), (9, 9, 9, 0)), (255, 255, 255)),
    "half.png": (Image.new("LA", (8, 6), (0, 127)), (128, 128, 128)),
    "palette.png": (Image.new("RGB", (8, 6), (9, 99, 199)).quantize(), (9, 99, 199)),
    "cmyk.jpg": (Image.new("CMYK", (8, 6), (0, 255, 255, 0)), (254, 0, 0)),
    "a BMP.png": (Image.new("RGB", (8, 6), (9, 99, 199)), (9, 99, 199)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_mode_come_in_one_way(tmp_path: Path, name: str) -> None:
    path, (picture, expected) = tmp_path / name, PICTURES[name]
    picture.save(path, "BMP" if "BMP" in name else None)
    got = load_image(path)
    assert (got.shape, got.dtype) == ((6, 8, 3), np.uint8)
    np.testing.assert_allclose(got.reshape(-1, 3).mean(0), expected, atol=1)
    with Image.open(path) as image:
        arrays = [np.asarray(image)] if image.mode in {"L", "RGB", "RGBA", "LA", "I;16"} else []
        for same in (path.read_bytes(), image, *arrays):
            np.testing.assert_array_equal(load_image(same), got)


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3] = 255  # the upper half as the camera saw it
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    got = load_image(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(load_image(image), got)
    assert got.shape == (8, 6, 3)
    assert (got[:, 3:] == 255).all()
    assert (got[:, :3] == 0).all()


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_of_an_animation_the_first_picture_is_taken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    grey(200).save(path, save_all=True, append_images=[grey(20)], duration=40)
    assert abs(float(load_image(path).mean()) - 200) < 4
    (tmp_path / "avatars").mkdir()
    os.link(path, tmp_path / "avatars" / path.name)
    assert [*scan("avatars", tmp_path, 0).clips] == [path.name]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 30_000])
def test_pictures_that_are_huge_or_of_floats_are_refused(tmp_path: Path, side: int) -> None:
    grey().save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[16:24] = struct.pack(">II", side, side)  # it promises more than it has
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    refuses(DataError, r"pixels", load_image, bytes(data))
    Image.new("F", (8, 6), 0.5).save(tmp_path / "a.tif")
    refuses(DataError, "save it with 8 bits a channel", load_image, tmp_path / "a.tif")


def test_films_are_turned_upright() -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48] = 255  # the upper left quarter
    data = bytearray(encoded("mp4", "", SILENCE, pictures=[pixels] * 3, video="mpeg4"))
    place = data.index(b"tkhd") + 44  # the matrix of the track's header
    data[place : place + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    (got,) = load_frames(bytes(data), 1)
    assert got.shape == (96, 64, 3)
    assert got[:48, 32:].mean() > 250  # a quarter clockwise: the upper right one
    assert got[:48, :32].mean() < 5
    assert got[48:].mean() < 5


def test_of_a_long_film_the_same_frames_are_sought_as_counted(monkeypatch: Patch) -> None:
    levels = [np.full((48, 64, 3), level, np.uint8) for level in range(200)]
    settings = {"g": "12", "bf": "2"}
    path = encoded("mp4", "", SILENCE, pictures=levels, video="mpeg4", shown=settings)
    counted = load_frames(path, 4)
    monkeypatch.setattr(io, "SEEK_SECONDS", 0.5)
    monkeypatch.setattr(io, "itertools", None)  # frames are not to be counted from the start
    sought = load_frames(path, 4)
    for expected, got in zip(counted, sought, strict=True):
        np.testing.assert_array_equal(got, expected)
    np.testing.assert_allclose([f.mean() for f in sought], [25, 75, 125, 175], atol=3)
