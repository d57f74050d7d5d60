"""CelebA-HQ: aligned faces, images only.

Layouts: StarGAN v2's tree ``{train,val}/{female,male}/*.jpg``, whose ``val`` is the validation
split; or the raw images in one folder with an attribute list that has a column `Male` (CelebA's
``list_attr_celeba.txt`` form, as CelebAMask-HQ ships it), where up to 1,000 images a gender are put
aside for validation, as the paper has it. The faces are aligned already and are only resized.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from xfavot.data.readers import (
    IMAGE_SUFFIXES,
    VAL_SHARE,
    Clip,
    Reject,
    corpus_folder,
    fraction,
    read_text,
    walk,
)

LAYOUT = (
    "{train,val}/{female,male}/*.jpg (StarGAN v2's tree), or a folder of *.jpg with an attribute "
    "list *attr*.txt that has a column Male"
)
VAL_PER_GENDER = 1000  # STATED
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}
_GENDERS = {"female": "f", "male": "m"}


def read_attributes(path: Path) -> dict[str, str]:
    """Read image name to gender of an attribute list; lines that do not fit are left out."""
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines[:3]):
        names = line.replace(",", " ").split()
        if "Male" not in names:
            continue
        rows = [row.replace(",", " ").split() for row in lines[number + 1 :]]
        full = [row for row in rows if len(row) > len(names) - names.count("image_id")]
        offset = names.index("Male") - len(names)  # from the right: the name may have no title
        return {row[0]: "m" if row[offset] == "1" else "f" for row in full}
    return {}


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject]:
    """Yield every image."""
    root = corpus_folder(source, "celeba_hq")
    raw: list[Path] = []
    attributes: dict[str, str] = {}
    for folder, files in walk(root):
        for path in files:
            if path.suffix.casefold() == ".txt" and "attr" in path.name.casefold():
                attributes |= read_attributes(path)
        images = [path for path in files if path.suffix.casefold() in IMAGE_SUFFIXES]
        parts = [part.casefold() for part in folder.relative_to(root).parts]
        gender = _GENDERS.get(parts[-1], "") if parts else ""
        if not gender:
            raw += images
            continue
        split = _SPLITS.get(parts[-2], "") if len(parts) > 1 else ""
        for path in images:
            yield _clip(path, root, gender=gender, split=split)
    if raw and not attributes:
        for path in raw:
            yield Reject(
                source=path,
                reason="no gender folder",
                detail="neither female/ or male/ above it nor an attribute list beside it",
            )
        return
    held = _held_out({path: attributes.get(path.name, "") for path in raw}, seed=seed)
    for path in raw:
        gender = attributes.get(path.name, "")
        yield _clip(path, root, gender=gender, split="val" if path in held else "train")


def _held_out(genders: dict[Path, str], *, seed: int) -> set[Path]:
    """Choose the validation images of a raw folder: a tenth, at most 1,000, of each gender."""
    held: set[Path] = set()
    for code in ("f", "m", ""):
        group = sorted(
            (path for path, gender in genders.items() if gender == code),
            key=lambda path: fraction(path.name, seed=seed),
        )
        held.update(group[: min(VAL_PER_GENDER, round(VAL_SHARE * len(group)))])
    return held


def _clip(path: Path, root: Path, *, gender: str, split: str) -> Clip:
    name = path.relative_to(root).as_posix()
    return Clip(id=name, kind="image", gender=gender, split=split, images=(path,), aligned=True)
