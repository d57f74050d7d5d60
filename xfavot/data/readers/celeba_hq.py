"""CelebA-HQ: aligned faces, images only.

Layouts: StarGAN v2's tree ``{train,val}/{female,male}/*.jpg``, whose ``val`` is the validation
split; or the raw images in one folder with an attribute list of CelebA or CelebAMask-HQ that has a
column `Male`, where up to 1,000 images a gender are put aside for validation, as the paper has it.
The segmentation masks of CelebAMask-HQ are no faces and are left out. The faces are aligned already
and are only resized.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

from xfavot.data.readers.source import (
    VAL_SHARE,
    Clip,
    Genders,
    Reject,
    Source,
    fraction,
    of_kind,
    read_text,
)

LAYOUT = (
    "{train,val}/{female,male}/*.jpg (StarGAN v2's tree), or a folder of *.jpg with an attribute "
    "list *attr*.txt or *attr*.csv that has a column Male"
)
VAL_PER_GENDER = 1000  # STATED
MASKS = "mask-anno"  # in the name of CelebAMask-HQ's folder of segmentation masks
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}
_GENDERS = {"female": "f", "male": "m"}
_TITLES = frozenset({"image_id", "image", "image_name", "filename", "file", "name", "id"})
_VALUES = {"1": "m", "-1": "f", "0": "f"}  # of the column Male


def read_attributes(path: Path) -> Genders:
    """Read an attribute list: gender by the image's name without suffix; empty without `Male`."""
    lines = read_text(path).splitlines()
    start = 0
    for line in lines[:3]:
        start += 1
        separator = "," if "," in line else None
        titles = [cell.strip() for cell in line.split(separator)]
        if "Male" in titles:
            break
    else:
        return Genders(path)
    name_at = next((i for i, title in enumerate(titles) if title.casefold() in _TITLES), -1)
    untitled = name_at < 0  # the name's column then stands before the first title
    width, male_at = len(titles) + untitled, titles.index("Male") + untitled
    rows: list[tuple[int, str, str | None]] = []
    for number, line in enumerate(lines[start:], start + 1):
        cells = [cell.strip() for cell in line.split(separator)]
        if len(cells) == width:
            name = PurePath(cells[max(name_at, 0)]).stem
            rows.append((number, name, _VALUES.get(cells[male_at])))
        elif any(cells):
            rows.append((number, line.strip()[:40], None))
    return Genders(path, rows)


def read_mapping(path: Path) -> dict[int, str]:
    """Read CelebA-HQ's number to the name in CelebA, without suffix (idx, orig_idx, orig_file)."""
    rows = [line.split() for line in read_text(path).splitlines()]
    return {
        int(row[0]): PurePath(row[2]).stem for row in rows if len(row) == 3 and row[0].isdigit()
    }


def scan(source: Source) -> Iterator[Clip | Reject]:
    """Yield every image of a tree, else every image that an attribute list names, once."""
    raw: list[Path] = []
    tables: list[Genders] = []
    mapping: dict[int, str] = {}
    tree = False
    for place, files in source.folders:
        parts = ["", *(part.casefold() for part in place.parts)]
        gender = _GENDERS.get(parts[-1], "")
        pictures = [] if any(MASKS in part for part in parts) else of_kind(files, "picture")
        raw += pictures
        for path in pictures if gender else ():
            tree = True
            yield _clip(source, path, gender, _SPLITS.get(parts[-2], ""))
        for path in files:
            name = path.name.casefold()
            if name.endswith((".txt", ".csv")) and "attr" in name:
                tables.append(read_attributes(path))
            elif name.endswith(".txt") and "mapping" in name:
                mapping |= read_mapping(path)
    for table in tables:
        yield from table.malformed()
    if not tree:
        tables = [table for table in tables if table.codes]
        yield from _listed(source, raw, tables, mapping)


def _listed(
    source: Source, raw: list[Path], tables: list[Genders], mapping: dict[int, str]
) -> Iterator[Clip | Reject]:
    """Yield the images that an attribute list names; say what it does not name."""
    genders: dict[str, tuple[Path, str]] = {}
    for path in raw:
        number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1
        keys = (path.stem, str(number), mapping.get(number, ""))  # 00004 is found as 4 too
        gender = next(filter(None, (table.gender(*keys) for table in tables)), "")
        if gender:
            genders.setdefault(path.stem, (path, gender))
        elif tables:
            yield Reject(path, "not in the attribute list", "no row gives this image a gender")
        else:
            detail = "neither female/ or male/ above it nor an attribute list beside it"
            yield Reject(path, "no gender folder", detail)
    held: set[Path] = set()  # for validation: a tenth, at most 1,000, of each gender
    for code in ("f", "m"):
        group = [path for path, gender in genders.values() if gender == code]
        group.sort(key=lambda path: fraction(path.name, seed=source.seed))
        held.update(group[: min(VAL_PER_GENDER, round(VAL_SHARE * len(group)))])
    for path, gender in genders.values():
        yield _clip(source, path, gender, "val" if path in held else "train")
    for table in tables:
        yield from table.unused()


def _clip(source: Source, path: Path, gender: str, split: str) -> Clip:
    name = path.relative_to(source.root).as_posix()
    return Clip(name, "image", gender=gender, split=split, images=(path,), aligned=True)
