"""Who speaks in `mini`: hidden factors that drive face and voice, and what only the eye sees.

Four factors are shared by both modalities: sex, age, size and liveliness. The rest of a person
(skin, hair, glasses, beard, features) shows in the face alone and makes sixteen people easy to tell
apart. Every random number comes from a stream of its own, keyed by (seed, what, speaker, clip), so
nothing depends on the number of workers or on the order of the work.

A speaker's number says who it is, whatever the size of the corpus: of every sixteen numbers the
first eight are women and the others men, and a corpus takes the lowest of both. So s01 and s09 are
the first woman and the first man of any corpus of a seed, and there are gaps in the names where the
number of speakers is no multiple of sixteen.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

SCHEMA = 4  # raise when pictures or sounds change, so that old ones are not taken for new

Colour = tuple[int, int, int]


def table(name: str) -> list[dict[str, str]]:
    """Read the rows of a table that lies beside this file."""
    with Path(__file__).with_name(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _colours(text: str) -> tuple[Colour, ...]:
    """Read sRGB colours in hexadecimal."""
    return tuple((red, green, blue) for red, green, blue in map(bytes.fromhex, text.split()))


SKINS = _colours("fadeca f3cdb0 e8bb98 d9a67f c08a62 a06c4a 7e5238 5e3d2c")
_HAIR = ["black", "brown", "chestnut", "auburn", "ginger", "blond", "platinum"]
HAIRS = dict(zip(_HAIR, _colours("262022 543626 7a482c 8a3a24 b85c2e d0aa70 ecd6a8"), strict=True))
GREY: Colour = (196, 196, 200)
EYES = _colours("5c3c24 4678a0 548058 3c2a20 806032 6e8494")
VIVID = _colours("ce3e3a 228284 e2962c 3e5cb0 844a98 3c9256")
QUIET = _colours("484e5c 76685c c4bcb0 364254 78807c 584042")
LOOKS = table("looks.csv")  # combinations that occur in people, all different
_STEPS = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)  # R3 sequence (plastic root)
_ROW = 8  # numbers of one sex in a row
MOST_SPEAKERS = 1_000
TWIN = "twin_"  # begin of the name of a picture in a pose that others share
TWINS = 4  # people drawn in one pose, where such pictures are asked for (A96)
FACTORS = ("age", "size", "liveliness", "jaw", "brow", "eye_size", "eye_tilt", "nose", "lips")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One speaker. Unitless factors lie in 0..1; colours are sRGB."""

    speaker: str
    gender: str  # "f" | "m"
    age: float  # hidden: 0 about 20 years, 1 about 75
    size: float  # hidden: small and slight .. tall and broad
    liveliness: float  # hidden: calm .. lively
    skin: Colour
    hair: Colour
    hair_style: str
    glasses: str  # "" | "round" | "square"
    beard: str  # "" | "stubble" | "moustache" | "goatee" | "full"
    eyes: Colour
    clothes: Colour
    collar: str  # "round" | "v" | "shirt" | "high"
    earrings: bool
    freckles: bool
    jaw: float
    brow: float
    eye_size: float
    eye_tilt: float
    nose: float
    lips: float
    texture: int  # seed of the hair's strands


@dataclass(frozen=True, slots=True, kw_only=True)
class Nuisance:
    """What changes from one picture of a person to the next."""

    yaw: float  # -1 left .. 1 right of the picture, about 26 degrees at 1
    pitch: float  # -1 down .. 1 up, about 14 degrees at 1
    roll: float  # degrees
    gaze_x: float
    gaze_y: float
    mouth: float  # 0 closed .. 1 open
    blink: bool
    smile: float  # added to the person's own
    light: float  # degrees, 0 frontal, positive from the right
    light_height: float  # degrees above the horizon
    light_strength: float  # 0 flat .. 1 strong
    warmth: float  # -1 cool .. 1 warm
    hue: float  # of the background, 0..1
    tone: float  # brightness of the background, 0..1


def stream(seed: int, *key: int | str) -> np.random.Generator:
    """A generator of its own for one purpose: equal keys give equal numbers on every machine."""
    words = [seed]
    for part in key:
        words.extend([part] if isinstance(part, int) else list(part.encode()))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(words)))


def _mix(a: Colour, b: Colour, amount: float) -> Colour:
    red, green, blue = (round(x + (y - x) * amount) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _greying(hair: Colour, amount: float) -> Colour:
    """Hair that loses its colour before it turns white, as hair does."""
    level = round(sum(hair) / 3)
    return _mix(_mix(hair, (level, level, level), min(1.0, 1.7 * amount)), GREY, amount)


def numbers(speakers: int) -> list[int]:
    """Numbers of the speakers of a corpus, from 0, rising; one more woman where it is odd."""
    ranks = [(woman, rank) for rank in range((speakers + 1) // 2) for woman in (True, False)]
    return sorted(
        2 * _ROW * (rank // _ROW) + rank % _ROW + (0 if woman else _ROW)
        for woman, rank in ranks[:speakers]
    )


def sex_and_rank(number: int) -> tuple[str, int]:
    """Gender ("f" or "m") of a speaker's number and the rank, from 0, among those of that sex."""
    row, place = divmod(number, _ROW)
    return ("m" if row % 2 else "f"), _ROW * (row // 2) + place


def person(number: int, *, seed: int) -> Person:
    """The speaker of a number, from 0, a pure function of number and seed."""
    gender, rank = sex_and_rank(number)
    woman = gender == "f"
    draw = stream(seed, "person", number)
    shift = stream(seed, "hidden", int(woman)).uniform(size=3)
    hidden = ((shift + (rank + 1) * np.array(_STEPS)) % 1.0).tolist()
    age, size, liveliness = hidden
    looks = [look for look in LOOKS if look["sex"] == gender]
    order = stream(seed, "looks", int(woman)).permutation(len(looks))
    if rank >= _ROW:  # factors and voices follow the rank, too: looks must not tell of them
        others = stream(seed, "ranks", int(woman)).permutation(MOST_SPEAKERS // 2 - _ROW)
        rank = _ROW + int(others[rank - _ROW])
    # every further lap joins another cut to skin and hair; every twelfth, other glasses and beard
    lap, place = divmod(rank, len(looks))
    cut = place + 5 * lap
    face, style, rest = (
        looks[int(order[number % len(looks)])]
        for number in (place, cut, cut + 7 * (lap // len(looks)))
    )
    skin = int(face["skin"])
    grey = float(np.clip((age - 0.74) / 0.14, 0.0, 1.0)) * 0.92
    wardrobe = stream(seed, "clothes", int(woman)).permutation(len(VIVID))
    colour = int(wardrobe[rank % len(wardrobe)])
    any_eyes = int(draw.integers(len(EYES)))
    eyes = 0 if skin >= 5 else any_eyes if skin < 3 else 3
    collar = ("round", "v", "shirt", "high")[int(draw.integers(4))]
    earrings = bool(woman and draw.random() < 0.6)
    factors = [age, size, liveliness, *draw.uniform((0, 0, 0, -1, 0, 0), 1).tolist()]
    return Person(
        **{name: round(value, 4) for name, value in zip(FACTORS, factors, strict=True)},
        speaker=f"s{number + 1:02d}",
        gender=gender,
        skin=SKINS[skin],
        hair=_greying(HAIRS[face["hair"]], grey),
        hair_style=style["style"],
        glasses=rest["glasses"],
        beard=rest["beard"],
        eyes=EYES[eyes],
        clothes=_mix(QUIET[colour], VIVID[colour], float(np.clip(1.4 * liveliness - 0.2, 0, 1))),
        collar=collar,
        earrings=earrings,
        freckles=skin == 0 and face["hair"] == "ginger",
        texture=int(draw.integers(2**31)),
    )


def people(speakers: int, *, seed: int) -> tuple[Person, ...]:
    """The speakers of a corpus, half of them women (one more where the number is odd).

    Args:
        speakers: how many, at least 2.
        seed: of the corpus.

    Returns:
        One :class:`Person` each, in the order of their numbers. The hidden factors of one sex fill
        the unit cube evenly.
    """
    return tuple(person(number, seed=seed) for number in numbers(speakers))


def twin(seed: int, number: int, rank: int, speakers: int) -> tuple[int, Nuisance]:
    """Group and pose of a person's picture that others have a twin of, people in that very pose.

    Args:
        seed: of the corpus.
        number: the speaker's, from 0.
        rank: of the picture among the speaker's, from 0; every rank has groups of its own.
        speakers: how many the corpus has; on them it depends who is in a group.

    Returns:
        The group, of :data:`TWINS` people or, the last of a rank, fewer; and its pose.
    """
    order = stream(seed, "twins", rank).permutation(numbers(speakers)).tolist()
    group = order.index(number) // TWINS
    return group, nuisance(seed, MOST_SPEAKERS + rank, group, 0)


def nuisance(seed: int, number: int, clip: int, face: int) -> Nuisance:
    """Pose, gaze, mouth, light and background of one picture, a pure function of its key."""
    draw = stream(seed, "face", number, clip, face)
    yaw, pitch = draw.uniform(-1, 1, 2)
    roll, *gaze = draw.normal(size=3) * (1.8, 0.45, 0.3)
    mouth = max(0.0, draw.uniform(-0.7, 1.0))
    smile, *light = draw.uniform((-0.25, -65, 15, 0.25), (0.25, 65, 55, 1))
    warmth, *wall = draw.uniform((-1, 0, 0), 1)
    values = [yaw, pitch, roll, *np.clip(gaze, -1, 1), mouth, smile, *light, warmth, *wall]
    rounded = (round(float(value), 4) for value in values)
    names = (field.name for field in fields(Nuisance) if field.name != "blink")
    return Nuisance(**dict(zip(names, rounded, strict=True)), blink=bool(draw.random() < 0.05))
