"""CelebA-HQ: aligned faces, images only.

Layouts: StarGAN v2's tree ``{train,val}/{female,male}/*.jpg``, whose ``val`` is the validation
split; or the raw images in one folder with an attribute list that has a column `Male` (see
`xfavot.data.readers.attributes`), where up to 1,000 images a gender are put aside for validation,
as the paper has it. The segmentation masks of CelebAMask-HQ are no faces and are left out. The
faces are aligned already and are only resized.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from xfavot.data.readers import read_text
from collections.abc import Iterator
from pathlib import Path
from xfavot.data.readers import MALFORMED, UNUSED, VAL_SHARE, Clip, LeftOut, Reject, corpus_folder, fraction, media_kind, note, walk


# Attribute lists of CelebA and CelebAMask-HQ: which image shows a man


ATTRIBUTE = "Male"
_TITLES = frozenset({"image_id", "image", "image_name", "filename", "file", "name", "id"})
_VALUES = {"1": "m", "-1": "f", "0": "f"}


@dataclass(frozen=True, slots=True)
class AttributeList:
    """Image to gender, by name without suffix; it remembers which rows were of use.

    Attributes:
        path: the list.
        genders: ``"f"`` or ``"m"`` by name.
        malformed: rows that do not fit or contradict each other, for people.
        used: names that an image has asked for.
    """

    path: Path
    genders: dict[str, str]
    malformed: list[str]
    used: set[str] = field(default_factory=set)

    def gender(self, stem: str, mapping: Mapping[int, str]) -> str:
        """Return the gender of an image, ``""`` if no row tells.

        Args:
            stem: the image's name without suffix; ``00004`` is found as ``4`` too.
            mapping: CelebA-HQ's number to the name in CelebA.
        """
        number = int(stem) if stem.isascii() and stem.isdigit() else -1
        for name in (stem, str(number), mapping.get(number, "")):
            if name in self.genders:
                self.used.add(name)
                return self.genders[name]
        return ""

    def unused(self) -> list[str]:
        """Return the names that no image has asked for."""
        return [name for name in self.genders if name not in self.used]


def read_attributes(path: Path) -> AttributeList:
    """Read an attribute list; one without a column `Male` is empty."""
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines[:3]):
        separator = "," if "," in line else None
        titles = [cell.strip() for cell in line.split(separator)]
        if ATTRIBUTE in titles:
            return _read_rows(path, lines, number + 1, titles, separator)
    return AttributeList(path, {}, [])


def _read_rows(
    path: Path, lines: list[str], start: int, titles: list[str], separator: str | None
) -> AttributeList:
    name_at = next((i for i, title in enumerate(titles) if title.casefold() in _TITLES), -1)
    untitled = name_at < 0  # the name's column then stands before the first title
    width, male_at = len(titles) + untitled, titles.index(ATTRIBUTE) + untitled
    genders: dict[str, str] = {}
    malformed: list[str] = []
    contradictory: set[str] = set()
    for number, line in enumerate(lines[start:], start + 1):
        cells = [cell.strip() for cell in line.split(separator)]
        if not any(cells):
            continue
        name = PurePath(cells[max(name_at, 0)]).stem if len(cells) == width else ""
        code = _VALUES.get(cells[male_at], "") if name else ""
        if not code:
            malformed.append(f"line {number} ({line.strip()[:40]!r})")
        elif genders.setdefault(name, code) != code:
            malformed.append(f"line {number} ({name} is {genders[name]!r} elsewhere)")
            contradictory.add(name)
    for name in contradictory:
        del genders[name]
    return AttributeList(path, genders, malformed)


def read_mapping(path: Path) -> dict[int, str]:
    """Read CelebA-HQ's number to the name in CelebA, without suffix (idx, orig_idx, orig_file)."""
    rows = [line.split() for line in read_text(path).splitlines()]
    return {
        int(row[0]): PurePath(row[2]).stem for row in rows if len(row) == 3 and row[0].isdigit()
    }


LAYOUT = (
    "{train,val}/{female,male}/*.jpg (StarGAN v2's tree), or a folder of *.jpg with an attribute "
    "list *attr*.txt or *attr*.csv that has a column Male"
)
VAL_PER_GENDER = 1000  # STATED
MASKS = "mask-anno"  # in the name of CelebAMask-HQ's folder of segmentation masks
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}
_GENDERS = {"female": "f", "male": "m"}


def scan(source: Path, *, seed: int) -> Iterator[Clip | Reject | LeftOut]:
    """Yield every image."""
    root = corpus_folder(source, "celeba_hq")
    raw: list[Path] = []
    lists: list[AttributeList] = []
    mapping: dict[int, str] = {}
    tree = False
    for folder, files in walk(root):
        for path in files:
            name = path.name.casefold()
            if name.endswith((".txt", ".csv")) and "attr" in name:
                lists.append(read_attributes(path))
            elif name.endswith(".txt") and "mapping" in name:
                mapping |= read_mapping(path)
        images = [path for path in files if media_kind(path) == "picture"]
        parts = [part.casefold() for part in folder.relative_to(root).parts]
        gender = _GENDERS.get(parts[-1], "") if parts else ""
        if any(MASKS in part for part in parts):
            for path in images:
                yield LeftOut(source=path, why="segmentation masks")
        elif gender:
            tree = tree or bool(images)
            split = _SPLITS.get(parts[-2], "") if len(parts) > 1 else ""
            for path in images:
                yield _clip(path, root, gender=gender, split=split)
        else:
            raw += images
    lists = [table for table in lists if table.genders or table.malformed]
    for table in lists:
        if table.malformed:
            detail = note(len(table.malformed), "rows have no name or no Male", table.malformed)
            yield Reject(source=table.path, reason=MALFORMED, detail=detail)
    if tree:
        for path in raw:
            yield LeftOut(source=path, why="images outside female/ and male/, which are taken")
    elif not lists:
        for path in raw:
            yield Reject(
                source=path,
                reason="no gender folder",
                detail="neither female/ or male/ above it nor an attribute list beside it",
            )
    else:
        yield from _listed(raw, lists, mapping, root, seed=seed)


def _listed(
    raw: list[Path], lists: list[AttributeList], mapping: dict[int, str], root: Path, *, seed: int
) -> Iterator[Clip | Reject]:
    """Yield the images that an attribute list names, each once; say what it does not name."""
    taken: dict[str, Path] = {}
    genders: dict[Path, str] = {}
    for path in raw:
        gender = next(filter(None, (table.gender(path.stem, mapping) for table in lists)), "")
        if not gender:
            detail = "no row of it gives this image a gender"
            yield Reject(source=path, reason="not in the attribute list", detail=detail)
        elif path.stem in taken:
            detail = f"{taken[path.stem]} is taken"
            yield Reject(source=path, reason="second copy", detail=detail)
        else:
            taken[path.stem] = path
            genders[path] = gender
    held = _held_out(genders, seed=seed)
    for path, gender in genders.items():
        yield _clip(path, root, gender=gender, split="val" if path in held else "train")
    for table in lists:
        unused = table.unused()
        if unused:
            detail = note(len(unused), f"of {len(table.genders):,} rows have no image", unused)
            yield Reject(source=table.path, reason=UNUSED, detail=detail)


def _held_out(genders: dict[Path, str], *, seed: int) -> set[Path]:
    """Choose the validation images of a raw folder: a tenth, at most 1,000, of each gender."""
    held: set[Path] = set()
    for code in ("f", "m"):
        group = sorted(
            (path for path, gender in genders.items() if gender == code),
            key=lambda path: fraction(path.name, seed=seed),
        )
        held.update(group[: min(VAL_PER_GENDER, round(VAL_SHARE * len(group)))])
    return held


def _clip(path: Path, root: Path, *, gender: str, split: str) -> Clip:
    name = path.relative_to(root).as_posix()
    return Clip(id=name, kind="image", gender=gender, split=split, images=(path,), aligned=True)
