"""How the originals of each corpus lie, and which clips they make: one function a corpus.

Each turns a folder into `Clip` records, and rejects what it cannot place. All layouts are those of
the corpora's owners, anything between two of them is taken, too. A table ``speakers.csv`` (speaker,
gender) beside a corpus gives or corrects genders. Where several segments come from one video or
chapter, they stay in one split.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from xfavot.data.readers.source import (
    VAL_SHARE,
    Clip,
    Genders,
    Reject,
    Source,
    fraction,
    media_kind,
    of_kind,
    reader,
)
from xfavot.errors import DataError
from xfavot.mini.speak import DIGITS, SLOTS

HELD_OUT_SHARE = 0.125  # of the utterances of each person of `mini`: 3 of 24


@reader("speakers.csv, factors.json and <speaker>/<sentence>.wav, .txt, _0.png")
def mini(source: Source) -> Iterator[Clip]:
    """Read the corpus that `xfavot.mini.generate` writes.

    Per speaker some utterances are held out for validation, chosen by a hash of the clip's id and
    the seed, so that every speaker has held-out speech and faces. `extra` holds `hidden` (the
    speaker's factors) and `faces` (one dict of nuisance a picture, in the order of `images`).

    Raises:
        DataError: the folder is not such a corpus.
    """
    if not source.speakers.codes:
        raise DataError(
            f"{source.root} has no speakers.csv; expected a folder written by "
            "xfavot.mini.generate; generate the corpus first"
        )
    factors: dict[str, Any] = json.loads(source.text(source.root / "factors.json") or "{}")
    for speaker in sorted(source.speakers.codes):
        waves = sorted((source.root / speaker).glob("*.wav"))
        held_out = _held_out([wave.stem for wave in waves], speaker=speaker, seed=source.seed)
        for wave in waves:
            images = tuple(sorted(wave.parent.glob(f"{wave.stem}_*.png")))
            poses = [dict(factors.get("faces", {}).get(f"{speaker}/{i.stem}", {})) for i in images]
            points = [pose.pop("landmarks", None) for pose in poses]
            known = images and all(point is not None for point in points)
            yield source.clip(
                *("av", speaker, wave.stem),
                transcript=source.words(wave.with_suffix(".txt")),
                split="val" if wave.stem in held_out else "train",
                audio=wave,
                images=images,
                aligned=True,
                landmarks=np.array(points, dtype=np.float32) if known else None,
                extra={"hidden": factors.get("people", {}).get(speaker, {}), "faces": poses},
            )


def _held_out(names: list[str], *, speaker: str, seed: int) -> set[str]:
    """Choose names for validation: at least one where there are two."""
    count = max(1, round(HELD_OUT_SHARE * len(names))) if len(names) > 1 else 0

    def rank(name: str) -> str:
        return hashlib.sha256(f"{seed}/{speaker}/{name}".encode()).hexdigest()

    return set(sorted(names, key=rank)[:count])


# Women among GRID's 34 speakers, checked by eye on 13 of them; s21 has no video.
WOMEN = frozenset({4, 7, 11, 15, 16, 18, 20, 22, 23, 24, 25, 29, 31, 33, 34})
SPEAKERS = range(1, 35)
SECONDS = 3.0  # of every film (75 frames at 25 a second); a shorter one was cut off
# Of each slot of a sentence, the sign that stands for a word in a file's name
WORD_OF: tuple[dict[str, str], ...] = tuple(
    dict(zip("z123456789" if slot is DIGITS else [word[0] for word in slot], slot, strict=True))
    for slot in SLOTS
)
_GRID_SPEAKER = re.compile(r"s(\d{1,2})(?:[_.\- ].*)?", re.IGNORECASE)


@reader(
    "sN/video/*.mpg or sN/*.mpg, with sN/align/*.align or alignments/sN/*.align if at hand",
    "grid_corpus",
)
def grid(source: Source) -> Iterator[Clip | Reject]:
    """Read GRID: films of 33 speakers, each sentence in six slots, spelled by the file's name.

    Layouts: ``sN/*.mpg`` (as Zenodo's archives unpack), ``sN/video/mpg_6000/*.mpg`` (those of the
    corpus's site); alignments in ``alignments/sN/``, ``sN/align/``. Each film is taken once, at its
    best quality. The transcript comes from the alignment, else from the name. Audio is the film's
    own track; the sound files of ``audio_25k/`` are left out.
    """
    films: dict[tuple[str, str], Path] = {}  # of speaker and sentence
    aligns: dict[tuple[str, str], Path] = {}
    for place, files in source.folders:
        parts = (source.root.name, *place.parts)
        numbers = [int(found[1]) for part in parts if (found := _GRID_SPEAKER.fullmatch(part))]
        speaker = f"s{numbers[-1]}" if numbers else ""
        for path in files:
            if path.suffix.casefold() == ".align":
                aligns[speaker, path.stem] = path
            elif media_kind(path) == "film" and not speaker:
                yield Reject(path, "no speaker", "no folder sN above it")
            elif media_kind(path) == "film":
                # the site offers the rate of a video CD beside 6,000 kbit/s
                films[speaker, path.stem] = min(
                    films.get((speaker, path.stem), path), path, key=lambda p: "mpg_vcd" in p.parts
                )
    for (speaker, name), path in sorted(films.items()):
        rows = source.text(aligns.get((speaker, name)) or aligns.get(("", name))).splitlines()
        words = [row.split()[2].casefold() for row in rows if len(row.split()) == 3]
        number = int(speaker[1:])
        yield source.clip(
            *("av", speaker, name),
            known=("f" if number in WOMEN else "m") if number in SPEAKERS else "",
            transcript=" ".join(word for word in words if word not in {"sil", "sp"})
            or sentence_of(name),
            video=path,
            extra={"seconds": SECONDS},
        )


def sentence_of(name: str) -> str:
    """Spell the sentence of a GRID file's name (``bbaf2n``); one that is no code gives ``""``."""
    words = [slot.get(sign, "") for slot, sign in zip(WORD_OF, name.casefold(), strict=False)]
    return " ".join(words) if all(words) and len(name) == len(WORD_OF) else ""


UNLISTED = {"p280": "f"}  # absent from VCTK's list of 0.80, a woman in that of 0.92
_VCTK_SPEAKER = re.compile(r"[ps]\d+")
_RATE = re.compile(r"wav(\d+)", re.IGNORECASE)
_MICROPHONE = re.compile(r"_mic(\d)$", re.IGNORECASE)


@reader(
    "wav48/pNNN/*.wav or wav48_silence_trimmed/pNNN/*_mic1.flac, "
    "with txt/pNNN/*.txt and speaker-info.txt",
    *("vctk-corpus", "vctk-corpus-0.92", "vctk_corpus"),
)
def vctk(source: Source) -> Iterator[Clip | Reject]:
    """Read VCTK: sentences read by 109 English speakers, sound only.

    Layouts: ``wav48/pNNN/*.wav`` (0.80), ``wav48_silence_trimmed/pNNN/*_mic1.flac`` (0.92), copies
    at other rates (``wav22`` ...); ``txt/pNNN/*.txt``; ``speaker-info.txt`` of either release. An
    utterance at two rates or by two microphones is taken once: highest rate, first microphone.
    """
    genders = dict(UNLISTED)
    texts: dict[tuple[str, str], Path] = {}
    takes: dict[tuple[str, str], Path] = {}
    for place, files in source.folders:
        speaker = (place.name or source.root.name).casefold()
        named = _VCTK_SPEAKER.fullmatch(speaker)
        for path in files:
            name = path.stem.casefold()
            if named and path.suffix.casefold() == ".txt":
                texts[speaker, name] = path
            elif path.name.casefold() == "speaker-info.txt":
                rows: list[tuple[int, str, str | None]] = []
                for number, line in enumerate(source.text(path).splitlines(), 1):
                    if (words := line.casefold().split()) and words[0] != "id":
                        who = words[0] if words[0][0].isalpha() else f"p{words[0]}"
                        rows.append((number, who, words[2] if len(words) > 2 else None))
                info = Genders(path, rows)
                genders |= info.codes
                yield from info.notes(unused=False)
            elif media_kind(path) == "sound" and not named:
                yield Reject(path, "no speaker", "no folder pNNN above")
            elif media_kind(path) == "sound":
                key = speaker, _MICROPHONE.sub("", name)
                takes[key] = min(takes.get(key, path), path, key=_rank)
    for (speaker, name), path in sorted(takes.items()):
        words_of = source.words(texts.get((speaker, name)))
        known = genders.get(speaker, "")
        yield source.clip("audio", speaker, name, known, transcript=words_of, audio=path)


def _rank(path: Path) -> tuple[int, int, Path]:
    """Return what orders the takes of an utterance; the least is the best."""
    rate, microphone = _RATE.match(path.parents[1].name), _MICROPHONE.search(path.stem)
    return -int(rate[1]) if rate else 0, int(microphone[1]) if microphone else 0, path


VAL_PER_GENDER = 1000  # STATED
MASKS = "mask-anno"  # in the name of CelebAMask-HQ's folder of segmentation masks
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}
_FOLDERS = {"female": "f", "male": "m"}
_TITLES = frozenset({"image_id", "image", "image_name", "filename", "file", "name", "id"})
_VALUES = {"1": "m", "-1": "f", "0": "f"}  # of the column Male


@reader(
    "{train,val}/{female,male}/*.jpg (StarGAN v2's tree), or a folder of *.jpg with an attribute "
    "list *attr*.txt or *attr*.csv that has a column Male",
    *("celebahq", "celeba-hq", "celebamask-hq"),
)
def celeba_hq(source: Source) -> Iterator[Clip | Reject]:
    """Read CelebA-HQ: aligned faces, images only, which are only resized.

    Layouts: StarGAN v2's tree ``{train,val}/{female,male}/*.jpg``, whose ``val`` is the validation
    split; or the raw images in one folder with an attribute list of CelebA or CelebAMask-HQ that
    has a column `Male`, where up to 1,000 images a gender are put aside for validation, as the
    paper has it. The segmentation masks of CelebAMask-HQ are no faces and are left out.
    """
    raw: list[Path] = []
    tables: list[Genders] = []
    mapping: dict[int, str] = {}  # CelebA-HQ's number to the name in CelebA
    tree = False
    for place, files in source.folders:
        parts = ["", *(part.casefold() for part in place.parts)]
        pictures = [] if any(MASKS in part for part in parts) else of_kind(files, "picture")
        raw += pictures
        if gender := _FOLDERS.get(parts[-1], ""):
            for path in pictures:
                tree = True
                yield _celeba(source, path, gender, _SPLITS.get(parts[-2], ""))
        for path in files:
            name = path.name.casefold()
            if name.endswith((".txt", ".csv")) and "attr" in name:
                tables.append(_attributes(path, source.text(path)))
            elif name.endswith(".txt") and "mapping" in name:
                cells = [line.split() for line in source.text(path).splitlines()]
                rows = [row for row in cells if len(row) == 3 and row[0].isdigit()]
                mapping |= {int(row[0]): PurePath(row[2]).stem for row in rows}
    for table in tables:
        if tree or not table.codes:
            yield from table.notes(unused=False)
    if not tree:
        yield from _listed(source, raw, [table for table in tables if table.codes], mapping)


def _attributes(path: Path, text: str) -> Genders:
    """Read an attribute list: gender by the image's name without suffix; empty without `Male`."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines[:3]) if re.search(r"\bMale\b", line)), -1)
    if start < 0:
        return Genders(path)
    separator = "," if "," in lines[start] else None
    titles = [cell.strip() for cell in lines[start].split(separator)]
    named = [i for i, title in enumerate(titles) if title.casefold() in _TITLES]
    untitled = not named  # the name's column then stands before the first title
    rows: list[tuple[int, str, str | None]] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        cells = [cell.strip() for cell in line.split(separator)]
        if len(cells) == len(titles) + untitled:
            name = PurePath(cells[0 if untitled else named[0]]).stem
            rows.append((number, name, _VALUES.get(cells[titles.index("Male") + untitled])))
        elif any(cells):
            rows.append((number, line.strip()[:40], None))
    return Genders(path, rows)


def _listed(
    source: Source, raw: list[Path], tables: list[Genders], mapping: dict[int, str]
) -> Iterator[Clip | Reject]:
    """Yield the images that an attribute list names, once; say what it does not name."""
    groups: dict[str, dict[str, Path]] = {"f": {}, "m": {}}
    for path in raw:
        number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1
        keys = (path.stem, str(number), mapping.get(number, ""))  # 00004 is found as 4 too
        gender = next(filter(None, (table.gender(*keys) for table in tables)), "")
        if gender:
            groups[gender].setdefault(path.stem, path)
        elif tables:
            yield Reject(path, "not in the attribute list", "no row gives this image a gender")
        else:
            detail = "neither female/ or male/ above it nor an attribute list beside it"
            yield Reject(path, "no gender folder", detail)
    splits: dict[Path, tuple[str, str]] = {}
    for gender, named in groups.items():  # for validation: a tenth, at most 1,000, of each gender
        ranked = sorted(named.values(), key=lambda path: fraction(path.name, seed=source.seed))
        held = min(VAL_PER_GENDER, round(VAL_SHARE * len(ranked)))
        splits |= {path: (gender, "val" if i < held else "train") for i, path in enumerate(ranked)}
    for path in raw:
        if path in splits:
            yield _celeba(source, path, *splits[path])
    for table in tables:
        yield from table.notes()


def _celeba(source: Source, path: Path, gender: str, split: str) -> Clip:
    name = path.relative_to(source.root).as_posix()
    return Clip(name, "image", gender=gender, split=split, images=(path,), aligned=True)


SETS = frozenset({"trainval", "pretrain", "test"})  # of LRS3


@reader(
    "trainval/ID/*.mp4 (or *.wav with *.jpg), gender in speakers.csv (speaker, gender)",
    *("lrs3-ted", "lrs3_ted"),
)
def lrs3(source: Source) -> Iterator[Clip]:
    """Read LRS3: TED talks, films of one speaker a folder; there is no table of speakers.

    Layouts: ``{pretrain,trainval,test}/ID/*.mp4`` with ``*.txt`` beside; or, where only a voice and
    a face of a talk are at hand, ``trainval/ID/*.wav`` and ``*.jpg``: a voice goes with the face of
    its name, else with all faces of its talk. Files outside those three folders are pairs of an
    unknown speaker.
    """
    for place, files in source.folders:
        folder = source.root / place
        named = SETS & {folder.parent.name, source.root.name}
        talk = folder.name if named or folder.name in source.speakers.codes else ""
        films = of_kind(files, "film")
        filmed = {path.stem for path in films}  # sounds and pictures of these are left out
        others = [path for path in files if path.stem not in filmed]
        voices, faces = of_kind(others, "sound"), of_kind(others, "picture")
        gender = source.speakers.gender(talk) if films or voices or faces else ""
        clip = partial(Clip, speaker=f"lrs3/{talk}" if talk else "", gender=gender)
        by_name = {path.stem: (path,) for path in faces}
        used: set[Path] = set()
        for path in (*films, *voices):
            text = source.text(path.with_suffix(".txt")).splitlines()
            spoken = next((line for line in text if line.startswith("Text:")), "")
            images = () if path in films else by_name.get(path.stem) or tuple(faces if talk else ())
            used.update(images)
            yield clip(
                id=(place / path.stem).as_posix(),
                kind="av" if images or path in films else "audio",
                transcript=" ".join(spoken.removeprefix("Text:").split()),
                images=images,
                video=path if path in films else None,
                audio=None if path in films else path,
            )
        for path in faces:
            if path not in used:
                yield clip(id=(place / path.name).as_posix(), kind="image", images=(path,))


LECTURERS = ("chem", "chess", "dl", "eh", "hs")  # the paper uses four and does not tell which
STAGES = ("intervals", "preprocessed", "videos", "test_results")


@reader("SPEAKER/intervals/VIDEO/*.mp4 or SPEAKER/*.mp4, gender in speakers.csv")
def lip2wav(source: Source) -> Iterator[Clip | Reject]:
    """Read Lip2Wav: lectures, films of one speaker a folder; there is no table of speakers.

    Layouts: ``SPEAKER/intervals/VIDEO/cut-N.mp4`` (as the owners' download script cuts them); where
    only their preprocessing is left, ``SPEAKER/preprocessed/VIDEO/cut-N/`` with ``audio.wav`` and
    numbered face crops; ``SPEAKER/*.mp4``. Whole lectures (``videos/``) and results of the owners'
    model (``test_results/``) are left out.
    """
    known = {*LECTURERS, *source.speakers.codes}
    cuts: set[tuple[str, ...]] = set()  # (speaker, video) and (speaker, video, cut)
    crops: list[tuple[tuple[str, ...], Path, list[Path]]] = []
    for place, files in source.folders:
        parts = (source.root.name, *place.parts)
        at = next((i for i, part in enumerate(parts[1:], 1) if part in STAGES), 0)
        stage, below = parts[at] if at else "", parts[at + 1 :] if at else ()
        speaker = parts[at - 1] if at else next((p for p in reversed(parts) if p in known), "")
        films = of_kind(files, "film")
        if stage in ("videos", "test_results"):
            continue
        if stage == "preprocessed" and not films:
            crops.append(((speaker, *below), place, files))
        for path in films:
            if not speaker:
                detail = f"no folder {', '.join(LECTURERS)} or of speakers.csv above it"
                yield Reject(path, "no speaker", detail)
                continue
            cuts |= {(speaker, *below), (speaker, *below, path.stem)}
            group = {"group": place.as_posix()} if len(place.parts) > 1 else {}
            yield _lecture(source, speaker, place / path.stem, group, video=path)
    for key, place, files in crops:
        voice, *_ = (*of_kind(files, "sound"), None)
        faces = sorted(of_kind(files, "picture"), key=lambda path: (len(path.stem), path.stem))
        if voice and faces and key not in cuts:
            group = {"group": place.parent.as_posix()}
            yield _lecture(source, key[0], place, group, audio=voice, images=tuple(faces))


def _lecture(source: Source, speaker: str, name: Path, extra: dict[str, str], **files: Any) -> Clip:
    gender = source.speakers.gender(speaker)
    return Clip(name.as_posix(), "av", f"lip2wav/{speaker}", gender, extra=extra, **files)


META = ("vox1_meta.csv", "vox2_meta.csv")
_SCALES = frozenset({"1.6", "1.3", "2.0"})  # crop factors, a folder level of the face archives


@reader(
    "Name/video/segment.{flac,wav} with segment.jpg, or wav/idNNNNN/video/*.wav with "
    "unzippedFaces/Name/1.6/video/*.jpg; gender in vox1_meta.csv or speakers.csv",
    *("voxceleb1", "vox1"),
)
def voxceleb(source: Source) -> Iterator[Clip | Reject]:
    """Read VoxCeleb: voices of celebrities with faces of the same video.

    Layouts: ``Name/video/segment.{flac,jpg}`` (one face a segment); or VoxCeleb1's ``wav/idNNNNN/
    video/*.wav`` beside face frames ``unzippedFaces/Name/1.6/video/*.jpg``. Gender, and the
    official test speakers, come from ``vox1_meta.csv`` (tab-separated); ``speakers.csv``, by id or
    by name, completes it. A segment has the face of its name, else all faces without a segment.
    """
    people: dict[str, tuple[str, str, bool]] = {}  # by id and name: id, name, of the test set
    genders: dict[str, str] = {}
    for path in sorted(path for _, files in source.folders for path in files if path.name in META):
        lines = [line for line in source.text(path).splitlines() if line.strip()]
        table = csv.reader(lines[1:], delimiter="\t" if "\t" in "".join(lines[:1]) else ",")
        rows = [[cell.strip() for cell in row] for row in table]
        meta = Genders(path, [(n, r[0], r[2] if r[2:] else None) for n, r in enumerate(rows, 2)])
        genders |= meta.codes
        for row in rows:
            if row[2:] and row[0] in meta.codes:
                test = "test" in map(str.casefold, row[3:])
                people[row[0]] = people[row[1]] = row[0], row[1], test
        yield from meta.notes(unused=False)
    videos: defaultdict[tuple[str, str], dict[str, dict[str, Path]]]
    videos = defaultdict(lambda: {"sound": {}, "picture": {}})  # kind and place to file
    for place, files in source.folders:
        parts = tuple(part for part in place.parts if part not in _SCALES)
        at = next((i for i, part in enumerate(parts[:-1]) if part in people), len(parts) - 2)
        for path in of_kind(files, "sound", "picture"):
            if at < 0:
                yield Reject(path, "no speaker", "no Name/video/ above")
                continue
            speaker = people[parts[at]][0] if parts[at] in people else parts[at]
            name = "/".join((*parts[at + 2 :], path.stem))
            videos[speaker, parts[at + 1]][media_kind(path)].setdefault(name, path)
    for (speaker, video), segments in sorted(videos.items(), key=lambda entry: entry[0]):
        voices, faces = segments["sound"], segments["picture"]
        number, name, test = people.get(speaker, (speaker, speaker, False))
        clip = partial(
            Clip,
            speaker=f"voxceleb/{speaker}",
            gender=source.speakers.gender(number, name) or genders.get(speaker, ""),
            split="unseen" if test else "",
            extra={"group": f"{speaker}/{video}"},
        )
        lone = tuple(path for name, path in sorted(faces.items()) if name not in voices)
        for name, voice in sorted(voices.items()):
            images = (faces[name],) if name in faces else lone
            kind = "av" if images else "audio"
            yield clip(id=f"{speaker}/{video}/{name}", kind=kind, audio=voice, images=images)
        for path in () if voices else lone:
            yield clip(id=f"{speaker}/{video}/{path.stem}", kind="image", images=(path,))


@reader("SUBSET/SPEAKER/CHAPTER/*.flac with *.trans.txt, and SPEAKERS.TXT")
def librispeech(source: Source) -> Iterator[Clip | Reject]:
    """Read LibriSpeech: audiobooks, sound only; for the F0, content and vocoder networks.

    Layout: ``{train-clean-100, test-other ...}/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt``, and
    ``SPEAKERS.TXT`` for the genders beside, above or below the subsets. Not in the paper.
    """
    places = (source.root, source.root.parent, source.root / "LibriSpeech")
    paths = [place / name for place in places for name in ("SPEAKERS.TXT", "speakers.txt")]
    table = next(filter(Path.is_file, paths), paths[0])
    lines = enumerate(source.text(table).splitlines(), 1)
    cells = [(number, line.split("|")) for number, line in lines if not line.startswith(";")]
    listed = Genders(table, [(number, row[0].strip(), row[1]) for number, row in cells if row[2:]])
    for place, files in source.folders:
        speaker = place.parts[-2] if len(place.parts) > 1 else ""
        texts: dict[str, str] = {}
        for path in files:
            if path.name.casefold().endswith(".trans.txt"):
                for line in source.text(path).splitlines():
                    name, _, words = line.partition(" ")
                    texts[name] = " ".join(words.split()).casefold()
        for path in of_kind(files, "sound"):
            if not speaker.isdecimal():
                yield Reject(path, "no speaker", "no SPEAKER/CHAPTER/ above")
                continue
            yield source.clip(
                *("audio", speaker, path.stem, listed.gender(speaker)),
                transcript=texts.get(path.stem, ""),
                audio=path,
                extra={"group": f"{speaker}/{place.name}"},
            )


@reader("female/*.png and male/*.png, or below aligned/ where the faces are cropped already")
def avatars(source: Source) -> Iterator[Clip]:
    """Read a folder of pictures of (stylised) faces, images only.

    A folder ``female`` or ``male`` above a picture gives its gender. Each goes through face
    detection; where none is found in a stylised face, ``aligned/`` above a picture says that it is
    a crop in CelebA-HQ's framing already.
    """
    for place, files in source.folders:
        parts = {part.casefold() for part in place.parts}
        gender = next((code for folder, code in _FOLDERS.items() if folder in parts), "")
        for path in files:
            if media_kind(path, look=True) == "picture":
                name = (place / path.name).as_posix()
                aligned = "aligned" in parts
                yield Clip(name, "image", gender=gender, images=(path,), aligned=aligned)


@reader(
    "SPEAKER/*.mp4, or SPEAKER/NAME.wav with SPEAKER/NAME.jpg; gender in speakers.csv",
    "talking_clips",
)
def clips(source: Source) -> Iterator[Clip | Reject]:
    """Read a folder of talking people of your own; what a file is, its content decides.

    Layout: films, or a voice and a face of one name, anywhere below the folder. The first folder
    level names the speaker, as it is written there (``Anna`` and ``anna`` are two); files that lie
    in the folder itself are of unknown speakers, whose genders ``speakers.csv`` gives by file name.
    ``NAME.txt`` beside a clip is its transcript. A sound file beside a film of its name goes before
    the film's own track; a picture beside it is left out.
    """
    for place, files in source.folders:
        speaker = place.parts[0] if place.parts else ""
        named: dict[str, dict[str, Path]] = {}  # stem and kind to file
        for path in files:
            kind = media_kind(path, look=True)
            first = named.setdefault(path.stem, {}).setdefault(kind, path)
            if kind and first != path:
                yield Reject(path, "second copy", f"{first} is taken")
        for stem, parts in sorted(named.items()):
            film, voice, face = (parts.get(kind) for kind in ("film", "sound", "picture"))
            heard, seen = film or voice, film or face
            if heard or seen:
                yield Clip(
                    (place / stem).as_posix(),
                    "av" if heard and seen else "audio" if heard else "image",
                    f"clips/{speaker}" if speaker else "",
                    source.speakers.gender(speaker or stem),
                    source.words(source.root / place / f"{stem}.txt"),
                    audio=voice,
                    images=(face,) if face and not film else (),
                    video=film,
                )
