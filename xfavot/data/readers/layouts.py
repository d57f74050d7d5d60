"""How the originals of each corpus lie, and which clips they make: one function a corpus.

Each turns a folder into `Clip` records, and rejects what it cannot place. All layouts are those of
the corpora's owners, anything between two of them is taken, too. A table ``speakers.csv`` (speaker,
gender) beside a corpus gives or corrects genders. Where several segments come from one video or
chapter, they stay in one split.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from xfavot.data import readers
from xfavot.data.corpora import describe
from xfavot.data.readers import VAL_SHARE, Clip, Reject, Source, fraction, media_kind, of_kind
from xfavot.errors import DataError, refusing
from xfavot.mini.people import TWIN
from xfavot.mini.speak import SIGNS, SLOTS

HELD_OUT_SHARE = 0.125  # of the utterances of each person of `mini`: 3 of 24
FEW = 4  # utterances; with fewer, only some people have held-out ones
SPARED = 4  # of these people, every fourth of a sex


def mini(source: Source) -> Iterator[Clip]:
    """Read the corpus that `xfavot.mini.generate` writes.

    Per speaker some utterances are held out for validation, chosen by a hash of the clip's id and
    the seed, so that every speaker has held-out speech and faces; of those who have two or three,
    every fourth of a sex has. `extra` holds `hidden` (the speaker's factors) and `faces`
    (one dict of nuisance a picture, in the order of `images`).

    Raises:
        DataError: the folder is not such a corpus.
    """
    if not source.speakers:
        raise DataError(
            f"{source.root} has no speakers.csv; expected a folder written by "
            "xfavot.mini.generate; generate the corpus first"
        )
    faults, advice = (ValueError, TypeError, AttributeError), "generate the corpus again"
    with refusing(faults, DataError, f"{source.root / 'factors.json'} is damaged", advice):
        factors: dict[str, Any] = json.loads(source.text(source.root / "factors.json") or "{}")
        people = dict(factors.get("people", {}))
        faces = {name: dict(pose) for name, pose in factors.get("faces", {}).items()}
        marks = {name: pose.pop("landmarks", None) for name, pose in faces.items()}
        framed = {n: np.array(m, np.float32).reshape(5, 2) for n, m in marks.items() if m}
    terse: Counter[str] = Counter()  # people of a sex with two or three utterances, so far
    for speaker in sorted(source.speakers):
        waves = sorted((source.root / speaker).glob("*.wav"))
        place = f"{source.seed}/{speaker}/"
        drawn = sorted(waves, key=lambda w: hashlib.sha256((place + w.stem).encode()).hexdigest())
        count = max(1, round(HELD_OUT_SHARE * len(waves))) if waves[1:] else 0
        if 1 < len(waves) < FEW:
            count *= terse[source.speakers[speaker]] % SPARED == 0
            terse[source.speakers[speaker]] += 1
        held_out = drawn[:count]
        for wave in waves:
            images = tuple(sorted(wave.parent.glob(f"{wave.stem}_*.png")))
            names = [f"{speaker}/{image.stem}" for image in images]
            points = [framed[name] for name in names if name in framed]
            yield source.clip(
                *(f"{speaker}/{wave.stem}", "av", speaker),
                transcript=source.words(wave.with_suffix(".txt")),
                split="val" if wave in held_out else "train",
                audio=wave,
                images=images,
                aligned=True,
                landmarks=np.stack(points) if images and len(points) == len(images) else None,
                extra={
                    "hidden": people.get(speaker, {}),
                    "faces": [faces.get(name, {}) for name in names],
                },
            )
        for image in sorted((source.root / speaker).glob(f"{TWIN}*.png")):
            name = f"{speaker}/{image.stem}"
            yield source.clip(
                *(name, "image", speaker),
                split="train",
                images=(image,),
                aligned=True,
                landmarks=framed[name][None] if name in framed else None,
                extra={"hidden": people.get(speaker, {}), "faces": [faces.get(name, {})]},
            )


# Women among GRID's 34 speakers, checked by eye on 13 of them; s21 has no video.
WOMEN = frozenset({4, 7, 11, 15, 16, 18, 20, 22, 23, 24, 25, 29, 31, 33, 34})
SPEAKERS = range(1, 35)
SECONDS = 3.0  # of every film (75 frames at 25 a second); a shorter one was cut off
_GRID_SPEAKER = re.compile(r"/s(\d{1,2})(?:[_.\- ][^/]*)?(?=/)", re.IGNORECASE)


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
        numbers = _GRID_SPEAKER.findall(f"/{source.root.name}/{place.as_posix()}/")
        speaker = f"s{int(numbers[-1])}" if numbers else ""
        for path in files:
            key = speaker, path.stem
            if path.suffix.casefold() == ".align":
                aligns[key] = path
            elif media_kind(path) == "film" and speaker:
                # the site offers the rate of a video CD beside 6,000 kbit/s
                films[key] = min(films.get(key, path), path, key=lambda p: "mpg_vcd" in p.parts)
            elif media_kind(path) == "film":
                yield Reject(path, "no speaker", "no folder sN above it")
    for (speaker, name), path in sorted(films.items()):
        rows = source.text(aligns.get((speaker, name)) or aligns.get(("", name))).splitlines()
        words = [row.split()[2].casefold() for row in rows if len(row.split()) == 3]
        number = int(speaker[1:])
        known = ("f" if number in WOMEN else "m") if number in SPEAKERS else ""
        said = " ".join(word for word in words if word not in {"sil", "sp"}) or sentence_of(name)
        more: dict[str, Any] = {"transcript": said, "extra": {"seconds": SECONDS}}
        yield source.clip(f"{speaker}/{name}", "av", speaker, known, video=path, **more)


def sentence_of(name: str) -> str:
    """Spell the sentence of a GRID file's name (``bbaf2n``); one that is no code gives ``""``."""
    signs = zip(SLOTS, name.casefold(), strict=False)
    words = [word for slot, sign in signs for word in slot if SIGNS[word] == sign]
    return " ".join(words) if len(words) == len(name) == len(SLOTS) else ""


UNLISTED = {"p280": "f"}  # absent from VCTK's list of 0.80, a woman in that of 0.92
_VCTK_SPEAKER = re.compile(r"[ps]\d+")
_RATE = re.compile(r"wav(\d+)", re.IGNORECASE)
_MICROPHONE = re.compile(r"_mic(\d)$", re.IGNORECASE)


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
            key = speaker, _MICROPHONE.sub("", path.stem.casefold())
            if path.name.casefold() == "speaker-info.txt":
                rows = [line.split() for line in source.text(path).casefold().splitlines()]
                named_so = [[re.sub(r"^(?=\d)", "p", r[0]), *r[1:]] for r in rows if r]
                genders |= source.listed(path, [r for r in named_so if r[0] != "id"], 2)
            elif path.suffix.casefold() == ".txt":
                texts[key] = path
            elif media_kind(path) == "sound" and named:
                takes[key] = min(takes.get(key, path), path, key=_rank)
            elif media_kind(path) == "sound":
                yield Reject(path, "no speaker", "no folder pNNN above")
    for (speaker, name), path in sorted(takes.items()):
        known, words = genders.get(speaker, ""), source.words(texts.get((speaker, name)))
        clip = f"{speaker}/{name}"
        yield source.clip(clip, "audio", speaker, known, transcript=words, audio=path)


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


def celeba_hq(source: Source) -> Iterator[Clip | Reject]:
    """Read CelebA-HQ: aligned faces, images only, which are only resized.

    Layouts: StarGAN v2's tree ``{train,val}/{female,male}/*.jpg``, whose ``val`` is the validation
    split; or the raw images in one folder with an attribute list of CelebA or CelebAMask-HQ that
    has a column `Male`, where up to 1,000 images a gender are put aside for validation, as the
    paper has it. The segmentation masks of CelebAMask-HQ are no faces and are left out.
    """
    raw: list[Path] = []
    lists: dict[Path, dict[str, str]] = {}  # gender by name without suffix
    mapping: dict[int, str] = {}  # CelebA-HQ's number to the name in CelebA
    placed: dict[Path, tuple[str, str]] = {}  # gender and split
    for place, files in source.folders:
        parts = ["", *(part.casefold() for part in place.parts)]
        pictures = [] if any(MASKS in part for part in parts) else of_kind(files, "picture")
        raw += pictures
        if gender := _FOLDERS.get(parts[-1], ""):
            placed |= dict.fromkeys(pictures, (gender, _SPLITS.get(parts[-2], "")))
        for path in files:
            name = path.name.casefold()
            if name.endswith((".txt", ".csv")) and "attr" in name:
                lists[path] = source.listed(path, _attributes(source.text(path)), 1)
            elif name.endswith(".txt") and "mapping" in name:
                rows = re.findall(r"^(\d+) +\S+ +(\S+)\s*$", source.text(path), re.MULTILINE)
                mapping |= {int(number): PurePath(image).stem for number, image in rows}
    if not placed:
        groups: dict[str, dict[str, Path]] = {"f": {}, "m": {}}
        listed = dict(row for table in [*lists.values()][::-1] for row in table.items())
        used: set[str] = set()
        for path in raw:
            number = int(path.stem) if path.stem.isascii() and path.stem.isdigit() else -1
            keys = (path.stem, str(number), mapping.get(number, ""))  # 00004 is found as 4 too
            if row := next((key for key in keys if listed.get(key)), ""):
                groups[listed[row]].setdefault(path.stem, path)
                used.add(row)
            elif listed:
                yield Reject(path, "not in the attribute list", "no row gives this image a gender")
            else:
                detail = "neither female/ or male/ above it nor an attribute list beside it"
                yield Reject(path, "no gender folder", detail)
        for gender, named in groups.items():  # for validation: a tenth, at most 1,000, of each
            ranked = sorted(named.values(), key=lambda path: fraction(path.name, seed=source.seed))
            held = min(VAL_PER_GENDER, round(VAL_SHARE * len(ranked)))
            placed |= {path: (gender, "train") for path in ranked[held:]}
            placed |= {path: (gender, "val") for path in ranked[:held]}
        for path, table in lists.items():
            source.unused(path, table, used)
    for path in raw:
        if path in placed:
            name, (gender, split) = path.relative_to(source.root).as_posix(), placed[path]
            yield Clip(name, "image", gender=gender, split=split, images=(path,), aligned=True)


def _attributes(text: str) -> list[list[str]]:
    """Read an attribute list: the image's name without suffix, and its gender; none without `Male`.

    A row of another length than the titles' keeps its name alone.
    """
    separator = r"\s*,\s*" if "," in text else r"\s+"
    table = [re.split(separator, line.strip()) for line in text.splitlines()]
    start = next((n for n, cells in enumerate(table[:3]) if "Male" in cells), len(table))
    titles = table[start] if table[start:] else []
    at = next((i for i, title in enumerate(titles) if title.casefold() in _TITLES), -1)
    if at < 0:  # the name's column then stands before the first title
        at, titles = 0, ["", *titles]
    return [
        [PurePath(row[at]).stem, _VALUES.get(row[titles.index("Male")], "neither")]
        if len(row) == len(titles)
        else row[:1]
        for row in table[start + 1 :]
    ]


def _talking(
    named: Mapping[str, Mapping[str, Path]], *, share: bool
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Make clips of the files of a folder.

    Args:
        named: file by stem and kind.
        share: whether a voice without a face has those without a voice, which then are no clips.

    Yields:
        Stem, kind and files of each clip: a film, a voice with its face or without, a face alone.
    """
    lone = [of["picture"] for of in named.values() if "picture" in of and not {*of} & HEARD]
    shared = tuple(lone) if share else ()
    used = share and any("sound" in of for of in named.values())
    for stem, of in named.items():
        film, voice, face = (of.get(kind) for kind in ("film", "sound", "picture"))
        images = (face,) if face else shared
        if film or voice:
            kind = "av" if film or images else "audio"
            yield stem, kind, {"audio": voice, "video": film, "images": () if film else images}
        elif face and not used:
            yield stem, "image", {"images": images}


HEARD = frozenset({"film", "sound"})
SETS = frozenset({"trainval", "pretrain", "test"})  # of LRS3


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
        talk = folder.name if named or folder.name in source.speakers else ""
        parts: dict[str, dict[str, Path]] = {}
        for path in files:
            parts.setdefault(path.stem, {}).setdefault(media_kind(path), path)
        # films first, whose sounds and pictures are left out, then voices
        order = sorted(parts.items(), key=lambda e: ("film" not in e[1], "sound" not in e[1]))
        parts = {stem: {"film": of["film"]} if "film" in of else of for stem, of in order}
        for stem, kind, made in _talking(parts, share=bool(talk)):
            text = "" if kind == "image" else source.text(folder / f"{stem}.txt")
            spoken = re.search("^Text:(.*)$", text, re.MULTILINE)
            name = made["images"][0].name if kind == "image" else stem
            words = " ".join(spoken[1].split()) if spoken else ""
            yield source.clip((place / name).as_posix(), kind, talk, transcript=words, **made)


LECTURERS = ("chem", "chess", "dl", "eh", "hs")  # the paper uses four and does not tell which
STAGES = ("intervals", "preprocessed", "videos", "test_results")


def lip2wav(source: Source) -> Iterator[Clip | Reject]:
    """Read Lip2Wav: lectures, films of one speaker a folder; there is no table of speakers.

    Layouts: ``SPEAKER/intervals/VIDEO/cut-N.mp4`` (as the owners' download script cuts them); where
    only their preprocessing is left, ``SPEAKER/preprocessed/VIDEO/cut-N/`` with ``audio.wav`` and
    numbered face crops; ``SPEAKER/*.mp4``. Whole lectures (``videos/``) and results of the owners'
    model (``test_results/``) are left out.
    """
    known = {*LECTURERS, *source.speakers}
    filmed: set[str] = set()  # speakers
    crops: list[tuple[str, Path, list[Path]]] = []
    for place, files in source.folders:
        parts = (source.root.name, *place.parts)
        at = next((i for i, part in enumerate(parts[1:], 1) if part in STAGES), 0)
        speaker = parts[at - 1] if at else next((p for p in reversed(parts) if p in known), "")
        films = of_kind(files, "film")
        if at and parts[at] in ("videos", "test_results"):
            continue
        if at and parts[at] == "preprocessed" and not films:
            crops.append((speaker, place, files))
        for path in films:
            if speaker:
                filmed.add(speaker)
                group = {"group": place.as_posix()} if len(place.parts) > 1 else {}
                name = (place / path.stem).as_posix()
                yield source.clip(name, "av", speaker, extra=group, video=path)
            else:
                detail = f"no folder {', '.join(LECTURERS)} or of speakers.csv above it"
                yield Reject(path, "no speaker", detail)
    for speaker, place, files in crops:
        voice, *_ = (*of_kind(files, "sound"), None)
        faces = sorted(of_kind(files, "picture"), key=lambda path: (len(path.stem), path.stem))
        if voice and faces and speaker not in filmed:
            group = {"group": place.parent.as_posix()}
            name, images = place.as_posix(), tuple(faces)
            yield source.clip(name, "av", speaker, extra=group, audio=voice, images=images)


META = ("vox1_meta.csv", "vox2_meta.csv")
_SCALES = frozenset({"1.6", "1.3", "2.0"})  # crop factors, a folder level of the face archives


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
        lines = [line for line in source.text(path).splitlines() if line.strip()][1:]
        rows = [[x.strip() for x in line.split("\t" if "\t" in line else ",")] for line in lines]
        known = source.listed(path, rows, 2)
        genders |= known
        for row in rows:
            if row[0] in known and row[2:]:
                test = "test" in map(str.casefold, row[3:])
                people[row[0]] = people[row[1]] = row[0], row[1], test
    videos: dict[tuple[str, str], dict[str, dict[str, Path]]] = {}
    for place, files in source.folders:
        parts = tuple(part for part in place.parts if part not in _SCALES)
        at = next((i for i, part in enumerate(parts[:-1]) if part in people), len(parts) - 2)
        for path in of_kind(files, "sound", "picture"):
            if at < 0:
                yield Reject(path, "no speaker", "no Name/video/ above")
                continue
            speaker = people[parts[at]][0] if parts[at] in people else parts[at]
            named = videos.setdefault((speaker, parts[at + 1]), {})
            name = "/".join((*parts[at + 2 :], path.stem))
            named.setdefault(name, {}).setdefault(media_kind(path), path)
    for (speaker, video), named in sorted(videos.items(), key=lambda entry: entry[0]):
        _, name, test = people.get(speaker, (speaker, speaker, False))
        for segment, kind, made in _talking(dict(sorted(named.items())), share=True):
            made |= {"split": "unseen" if test else "", "extra": {"group": f"{speaker}/{video}"}}
            gender = source.gender(name) or genders.get(speaker, "")
            yield source.clip(f"{speaker}/{video}/{segment}", kind, speaker, gender, **made)


def librispeech(source: Source) -> Iterator[Clip | Reject]:
    """Read LibriSpeech: audiobooks, sound only; for the F0, content and vocoder networks.

    Layout: ``{train-clean-100, test-other ...}/SPEAKER/CHAPTER/*.flac`` with ``*.trans.txt``, and
    ``SPEAKERS.TXT`` for the genders beside, above or below the subsets. Not in the paper.
    """
    places = (source.root, source.root.parent, source.root / "LibriSpeech")
    tables = [place / name for place in places for name in ("SPEAKERS.TXT", "speakers.txt")]
    table = next(filter(Path.is_file, tables), tables[0])
    people = [line for line in source.text(table).splitlines() if not line.startswith(";")]
    cells = [[cell.strip() for cell in line.split("|")] for line in people]
    listed = source.listed(table, cells, 1)
    for place, files in source.folders:
        speaker = place.parts[-2] if len(place.parts) > 1 else ""
        texts: dict[str, str] = {}
        for path in files:
            if path.name.casefold().endswith(".trans.txt"):
                lines = (line.casefold().split() for line in source.text(path).splitlines())
                texts |= {name: " ".join(words) for name, *words in filter(None, lines)}
        for path in of_kind(files, "sound"):
            if speaker.isdecimal():
                name, known = f"{speaker}/{path.stem}", listed.get(speaker, "")
                more: dict[str, Any] = {"transcript": texts.get(path.stem.casefold(), "")}
                more["extra"] = {"group": f"{speaker}/{place.name}"}
                yield source.clip(name, "audio", speaker, known, audio=path, **more)
            else:
                yield Reject(path, "no speaker", "no SPEAKER/CHAPTER/ above")


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
        for stem, kind, made in _talking(dict(sorted(named.items())), share=False):
            known = "" if speaker else source.gender(stem)
            words = source.words(source.root / place / f"{stem}.txt")
            name = (place / stem).as_posix()
            yield source.clip(name, kind, speaker, known, transcript=words, **made)


# Every corpus by its name


ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_READERS = (mini, grid, vctk, celeba_hq, lrs3, lip2wav, voxceleb, librispeech, avatars, clips)
READERS: dict[str, Callable[[Source], Iterator[Clip | Reject]]] = {r.__name__: r for r in _READERS}


def corpus_folder(source: Path, corpus: str) -> Path:
    """Return the folder of a corpus: a child of `source` that bears its name, or `source` itself.

    Args:
        source: the corpus's own folder, or one that holds one folder a corpus.
        corpus: its name.

    Raises:
        DataError: `source` cannot be read, or holds folders of other corpora and none of this one.
    """
    known = describe(corpus)
    what = f"source folder {str(source)!r} does not exist or cannot be read"
    advice = f"expected the folder of the {corpus} originals: {known.layout}; set `source` to it"
    with refusing(OSError, DataError, what, advice):
        folders = {path.name.casefold(): path for path in sorted(source.iterdir()) if path.is_dir()}
    for name in known.folders:
        if name in folders:
            return folders[name]
    every = {name for other in READERS for name in describe(other).folders}
    if others := sorted(path.name for name, path in folders.items() if name in every):
        raise DataError(
            f"source folder {str(source)!r} holds {', '.join(others)} but no folder {corpus!r}; "
            f"put the {corpus} originals into a folder of that name, or set `source` to them"
        )
    return source


def scan(corpus: str, folder: Path | str, seed: int) -> Source:
    """List the clips of a corpus in a stable order, and whatever is no clip.

    Args:
        corpus: its name.
        folder: the corpus's own, or one that holds one folder a corpus.
        seed: of the splits that a corpus draws itself.

    Returns:
        The folder with its `clips`, a second one of an id being rejected, and `rejects`.

    Raises:
        DataError: the folder is missing or holds nothing in the corpus's layout, or a table beside
            the corpus contradicts itself.
    """
    folder, known = Path(folder), describe(corpus)
    source = Source(corpus_folder(folder, corpus), corpus, seed=seed)
    rejects = source.rejects
    for record in READERS[corpus](source):
        if isinstance(record, Reject):
            source.used.add(record.source)
            rejects.append(record)
            continue
        source.used.update(record.files)
        # whatever is not UTF-8 in the names of files is spelled out
        extra = {k: readers.printable(x) if k == "group" else x for k, x in record.extra.items()}
        name, speaker = readers.printable(record.id), readers.printable(record.speaker)
        clip = replace(record, id=name, speaker=speaker, extra=extra)
        if (first := source.clips.setdefault(name, clip)) is not clip:
            detail = f"{name} is also {first.source}, which is taken"
            rejects.append(Reject(clip.source, "second copy", detail))
    source.account()
    for other in sorted(folder.iterdir() if folder != source.root else ()):
        if other != source.root and other.is_dir() and other.name.casefold() in known.folders:
            detail = f"a second folder of {corpus}; {source.root.name} is taken"
            rejects.append(Reject(other, readers.NOT_NEEDED, detail))
    if not source.clips:
        few = rejects[: readers.EXAMPLES]
        seen = "".join(f"; {r.source}: {r.reason} ({r.detail})" for r in few)
        if any(path.suffix in ARCHIVES for _, files in source.folders for path in files):
            seen += "; it holds archives: unpack them first"
        raise DataError(
            f"source folder {str(folder)!r} holds no clip of {corpus}{seen}; expected "
            f"{known.layout}; set `source` to that folder or to one with a folder {corpus!r}"
        )
    return source
