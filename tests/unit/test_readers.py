"""Readers place every file of the corpora's own layouts, and of none other."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import refuses
from xfavot import presets
from xfavot.data.corpora import describe
from xfavot.data.readers import MALFORMED, NOT_NEEDED, UNUSED, Clip, Source
from xfavot.data.readers.layouts import READERS, scan
from xfavot.errors import DataError


def put(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def clips(corpus: str, source: Path, seed: int = 0) -> dict[str, Clip]:
    read = list(scan(corpus, source, seed).clips.values())
    assert len({clip.id for clip in read}) == len(read)
    return {clip.id: clip for clip in read}


def rejects(corpus: str, source: Path) -> dict[str, str]:
    """Reason by name of the file, or by name of the folder of a class that is left out."""
    read = scan(corpus, source, 0).rejects
    return {reject.source.name: reject.reason for reject in read}


def left_out(corpus: str, source: Path) -> dict[str, int]:
    """Number of files by the first two words of each class that is left out."""
    read = scan(corpus, source, 0).rejects
    counted = [re.match(r"([\d,]+) files?: (\w+ \w+)", r.detail) for r in read]
    return {match[2]: int(match[1].replace(",", "")) for match in counted if match}


def row_notes(corpus: str, source: Path) -> dict[str, str]:
    """What is said of the rows of lists, by reason."""
    read = scan(corpus, source, 0).rejects
    return {r.reason: r.detail for r in read if r.reason in (MALFORMED, UNUSED)}


def test_grid_between_the_layouts(tmp_path: Path) -> None:
    put(tmp_path, "grid/s1/video/bbaf2n.mpg", "grid/s4/lwbz9s.mpg", "grid/video/s20/prwx1a.mpg")
    put(tmp_path, "grid/s1/audio_16k/bbaf2n.wav", "grid/S01/bbaf2n.mpg", "grid/bbal4n.mpg")
    put(tmp_path, "grid/s1/align/bbaf2n.align", text="0 10 sil\n10 20 bin\n20 30 blue\n30 40 sil\n")
    put(tmp_path, "grid/alignments/s4/lwbz9s.align", text="0 1 SIL\n1 2 lay\n2 3 sp\n3 4 white\n")
    read = clips("grid", tmp_path)
    assert read == clips("grid", tmp_path / "grid")
    assert {i: (c.speaker, c.gender, c.transcript) for i, c in read.items()} == {
        "s1/bbaf2n": ("grid/s1", "m", "bin blue"),
        "s4/lwbz9s": ("grid/s4", "f", "lay white"),
        "s20/prwx1a": ("grid/s20", "f", "place red with x one again"),
    }
    assert rejects("grid", tmp_path)["bbal4n.mpg"] == "no speaker"
    assert left_out("grid", tmp_path) == {"film files": 1, "sound files": 1}
    put(tmp_path, "grid/speakers.csv", text="speaker,gender\ns1,Female\n")
    assert clips("grid", tmp_path)["s1/bbaf2n"].gender == "f"  # the table goes before the list


def test_vctk_takes_an_utterance_once_at_its_best_rate(tmp_path: Path) -> None:
    root, trimmed = tmp_path / "VCTK-Corpus", "wav48_silence_trimmed"
    put(root, "wav22/p225/p225_001.wav", "wav48/p225/p225_001.wav", "wav16/p226/p226_002.wav")
    put(root, "elsewhere/wav16/p226/p226_002.wav", "wav48/p225/p225_001.flac", "wav48/readme.wav")
    put(root, *(f"{trimmed}/s5/s5_003_mic{n}.flac" for n in (2, 1)), f"{trimmed}/log.txt")
    put(root, f"{trimmed}/p362/p362_001_mic2.flac", "wav48/p280/p280_004.wav")
    put(root, "txt/p225/p225_001.txt", text="Please call Stella.\n")
    info = "ID  AGE  GENDER\n225  23  F  English\np226 22 M Surrey (mic2)\ns5  24 M\np362  ?\n\n"
    put(root, "speaker-info.txt", text=info)
    read = clips("vctk", tmp_path)
    assert {i: (c.gender, c.transcript, c.source.name) for i, c in read.items()} == {
        "p225/p225_001": ("f", "Please call Stella.", "p225_001.flac"),
        "p226/p226_002": ("m", "", "p226_002.wav"),
        "p280/p280_004": ("f", "", "p280_004.wav"),  # no row of the list of 0.80
        "p362/p362_001": ("", "", "p362_001_mic2.flac"),
        "s5/s5_003": ("m", "", "s5_003_mic1.flac"),
    }
    assert read["p225/p225_001"].source.parts[-3] == "wav48"
    assert rejects("vctk", tmp_path)["readme.wav"] == "no speaker"
    assert left_out("vctk", tmp_path) == {"sound files": 4, "other files": 1}


@pytest.mark.parametrize(("each", "held"), [(24, 3), (4, 1), (3, 0.25), (2, 0.25), (1, 0)])
def test_mini_holds_out_sentences_of_everybody_or_one_of_every_fourth(
    tmp_path: Path, each: int, held: float
) -> None:
    people = {f"s{n:02d}": "fm"[n > 8] for n in range(1, 17)}
    put(tmp_path, *[f"{name}/{n:02d}.wav" for name in people for n in range(each)])
    rows = "".join(f"{name},{gender}\n" for name, gender in people.items())
    put(tmp_path, "speakers.csv", text="speaker,gender\n" + rows)
    read = clips("mini", tmp_path).values()
    kept = [(clip.gender, clip.speaker) for clip in read if clip.split == "val"]
    assert Counter(gender for gender, _ in kept) == {gender: 8 * held for gender in "fm" if held}
    assert set(Counter(kept).values()) <= {max(held, 1)}  # of nobody more than of another
    assert {clip.speaker for clip in read if clip.split == "train"} == {f"mini/{n}" for n in people}
    (tmp_path / "s01" / "00.wav").unlink()  # of two, one is left, which is not held out
    read = clips("mini", tmp_path).values()
    assert {clip.gender for clip in read if clip.split == "val"} == ({"f", "m"} if held else set())


def test_pictures_in_folders_by_split_and_gender(tmp_path: Path) -> None:
    put(tmp_path, "avatars/female/a.png", "avatars/aligned/male/b.png")
    placed = {(clip.gender, clip.aligned) for clip in clips("avatars", tmp_path).values()}
    assert placed == {("f", False), ("m", True)}
    tmp_path /= "celeba_hq"
    put(tmp_path, "train/female/000001.jpg", "train/male/2.png", "val/female/3.jpg")
    put(tmp_path, "val/male/4.jpg", "elsewhere/5.jpg")
    placed = {(c.split, c.gender, c.kind, c.aligned) for c in clips("celeba_hq", tmp_path).values()}
    assert placed == {(s, g, "image", True) for s in ("train", "val") for g in "fm"}
    assert left_out("celeba_hq", tmp_path) == {"picture files": 1}
    put(tmp_path, "raw/6.jpg")
    refuses(DataError, r"6\.jpg: no gender folder", clips, "celeba_hq", tmp_path / "raw")


def test_lrs3_films_and_pairs(tmp_path: Path) -> None:
    put(tmp_path, "lrs3/trainval/AbC-1/50001.mp4", "lrs3/trainval/xyz/1.wav")
    put(tmp_path, "lrs3/trainval/xyz/9.jpg", "lrs3/demo/one/a.wav", "lrs3/demo/one/a.jpg")
    put(tmp_path, "lrs3/trainval/AbC-1/50001.txt", text="Text:  HELLO  WORLD\nConf:  4\n")
    put(tmp_path, "lrs3/speakers.csv", text="speaker,gender\nAbC-1,M\n")
    read = clips("lrs3", tmp_path)
    assert read["trainval/xyz/1"].images[0].name == "9.jpg"
    assert {i: (c.kind, c.speaker, c.gender, c.transcript) for i, c in read.items()} == {
        "trainval/AbC-1/50001": ("av", "lrs3/AbC-1", "m", "HELLO WORLD"),
        "trainval/xyz/1": ("av", "lrs3/xyz", "", ""),
        "demo/one/a": ("av", "", "", ""),
    }
    films = ("pretrain/AbC-1/00001", "trainval/AbC-1/00002", "test/_xY9/00001")
    root = tmp_path / "as it unpacks"
    put(root, *(f"{film}.{end}" for film in films for end in ("mp4", "txt", "wav", "jpg")))
    speakers = {film: f"lrs3/{film.split('/')[1]}" for film in films}
    assert {c.id: c.speaker for c in clips("lrs3", root).values()} == speakers
    assert left_out("lrs3", root) == {"sound files": 3, "picture files": 3}
    assert set(clips("lrs3", root / "pretrain")) == {"AbC-1/00001"}


def test_clips_of_ones_own(tmp_path: Path) -> None:
    put(tmp_path, "Anna/a.mp4", "Anna/a.mov", "Anna/a.wav", "Anna/a.jpg", "Anna/b/c.mp4")
    put(tmp_path, "anna/a.mp4", "bob/x.wav", "bob/x.png", "bob/y.wav", "loose.mp4", "face.gif")
    put(tmp_path, "Anna/a.txt", text=" hello\n there ")
    put(tmp_path, "speakers.csv", text="speaker,gender\nAnna,F\nanna,M\nBOB,M\nloose,F\n")
    read = clips("clips", tmp_path)
    assert {i: (c.kind, c.speaker, c.gender) for i, c in read.items()} == {
        "Anna/a": ("av", "clips/Anna", "f"),
        "Anna/b/c": ("av", "clips/Anna", "f"),
        "anna/a": ("av", "clips/anna", "m"),
        "bob/x": ("av", "clips/bob", "m"),
        "bob/y": ("audio", "clips/bob", "m"),
        "loose": ("av", "", "f"),
        "face": ("image", "", ""),
    }
    assert read["Anna/a"].transcript == "hello there"
    assert [path.name for path in read["Anna/a"].files] == ["a.mov", "a.wav"]
    assert rejects("clips", tmp_path) == {"a.mp4": "second copy", "a.jpg": NOT_NEEDED}


def test_content_decides_what_media_is(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    from tests.unit.test_audio_io import encoded, grey, sine, wav

    wave = sine(0.5)
    files = {
        "a.mts": encoded("mpegts", "ac3", sine(0.5, 48_000), 48_000, pictures=grey(0.5)),
        "b.w64": wav(wave, "W64"),
        "e": encoded("matroska", "flac", wave, pictures=grey(0.5)),
        "f.mp4": encoded("mp4", "aac", wave),  # as telephones save a voice
    }
    picture = io.BytesIO()
    image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "PNG")
    folder = tmp_path / "clips" / "Anna"
    put(folder, "notes.dat", "page.xyz", text="<html>")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "b.face").write_bytes(picture.getvalue())
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 40)
    kinds = {clip.id[5:]: clip.kind for clip in clips("clips", tmp_path).values()}
    assert kinds == {**dict.fromkeys("abe", "av"), "f": "audio"}
    assert left_out("clips", tmp_path) == {"other files": 3}


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    names = ["p225/p225_001.wav", "p225/face.jpg", "film.mp4", "p225/._p225_001.wav", "notes.txt"]
    put(tmp_path, *(f"wav48/{name}" for name in names), ".trash/p225/old.wav")
    put(tmp_path, "txt/p225/p225_001.txt", "speakers.csv", text="speaker,gender\n")
    assert set(clips("vctk", tmp_path)) == {"p225/p225_001"}
    left = ("picture files", "film files", "hidden files", "hidden folders", "other files")
    assert left_out("vctk", tmp_path) == dict.fromkeys(left, 1)


def test_folders_twice_and_loops_of_links(tmp_path: Path) -> None:
    put(tmp_path, "VCTK-Corpus/wav48/p225/a.wav", "VCTK-Corpus-0.92/wav48/p226/b.wav")
    assert set(clips("vctk", tmp_path)) == {"p225/a"}
    assert rejects("vctk", tmp_path) == {"VCTK-Corpus-0.92": NOT_NEEDED}
    root = tmp_path / "grid"
    put(root, "s1/bbaf2n.mpg")
    (root / "s1" / "again").symlink_to(root, target_is_directory=True)
    (root / "s1" / "self.mpg").symlink_to(root / "s1" / "self.mpg")
    (root / "best").symlink_to(root / "s1", target_is_directory=True)
    assert len(Source(root, seed=0).folders) == 2
    assert "s1/bbaf2n" in clips("grid", root)  # not through best, which names no speaker


@pytest.mark.parametrize("corpus", READERS)
def test_a_source_without_the_corpus_says_the_layout(corpus: str, tmp_path: Path) -> None:
    put(tmp_path, "s1.zip", "s2.zip")
    expected = "generate the corpus" if corpus == "mini" else r"archives: unpack them.*expected"
    refuses(DataError, expected, clips, corpus, tmp_path)
    refuses(DataError, "does not exist", clips, corpus, tmp_path / "absent")
    other = "vctk" if corpus == "grid" else "grid"
    (tmp_path / other).mkdir()
    refuses(DataError, f"holds {other} but no folder '{corpus}'", clips, corpus, tmp_path)


def test_speaker_tables(tmp_path: Path) -> None:
    text = '\ufeffSpeaker, gender ,age\na b,W,3\n"c",male,4\nd,?,5\n\na b,F,3\n'
    put(tmp_path, "speakers.csv", text=text)
    source = Source(tmp_path, seed=0)
    assert source.speakers == {"a b": "f", "c": "m", "d": ""}
    assert [source.gender(name) for name in ("A B", "d", "x")] == ["f", "", ""]
    assert Source(tmp_path.parent, seed=0).gender("c") == ""
    for content, match in (
        (b"speaker;gender\na;F\ne;mujer\n", r"line 3: 'e' is 'mujer'.*gender F or M"),
        (b"speaker,gender\na,F\nb,M\na,F\na,M\n", "line 5: 'a' is 'M'"),
        ("speaker,gender\nZoë,F\n".encode("latin-1"), "cannot be read .*as CSV in UTF-8"),
    ):
        (tmp_path / "speakers.csv").write_bytes(content)
        refuses(DataError, match, lambda: Source(tmp_path, seed=0).speakers)


def test_every_corpus_is_described_and_has_a_reader() -> None:
    assert set(presets.names("corpora")) == set(READERS)
    for known in map(describe, READERS):
        assert known.paper.get("unseen", 0) == len(set(known.held_out))
    mixtures = [presets.load("datasets", name) for name in presets.names("datasets")]
    assert {name for mixture in mixtures for name in mixture["corpora"]} == set(READERS)


# The corpora's original layouts, as their owners distribute them


def test_grid_as_zenodo_and_as_the_site_unpack(tmp_path: Path) -> None:
    speakers = [n for n in range(1, 35) if n != 21]
    put(tmp_path, *(f"s{n}/bbaf2n.mpg" for n in speakers[:-1]), "s1/Thumbs.db", "jasagrid.pdf")
    put(tmp_path, "s34/mpg_vcd/bbaf2n.mpg", "s34/video/mpg_6000/bbaf2n.mpg")
    put(tmp_path, *(f"audio_25k/s{n}/bbaf2n.wav" for n in range(1, 35)))
    put(tmp_path, *(f"alignments/s{n}/bbaf2n.align" for n in speakers), text="0 9 bin\n")
    found = clips("grid", tmp_path)
    assert set(found) == {f"s{n}/bbaf2n" for n in speakers}
    assert "mpg_6000" in str(found["s34/bbaf2n"].source)
    assert {clip.transcript for clip in found.values()} == {"bin"}
    assert [clip.gender for clip in found.values()].count("f") == 15
    assert left_out("grid", tmp_path) == {"sound files": 34, "film files": 1, "other files": 2}


def test_celebamask_hq_as_it_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "CelebAMask-HQ"
    put(root, *(f"CelebA-HQ-img/{i}.jpg" for i in range(41)), "CelebA-HQ-img/copy/7.png")
    put(root, *(f"CelebAMask-HQ-mask-anno/0/{i:05d}_hair.png" for i in range(30)))
    put(root, "CelebAMask-HQ-pose-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt", "README.txt")
    rows = "".join(f"{i}.jpg  1 {-1 if i % 2 else 1}\n" for i in range(38))
    rows += "38.jpg 1\n39.jpg 1 1\n39.jpg 1 -1\n99.jpg 1 1\n98.jpg -1 -1\n"
    put(root, "CelebAMask-HQ-attribute-anno.txt", text=f"40\nSmiling Male\n{rows}")
    found = list(clips("celeba_hq", tmp_path).values())
    assert len(found) == 38
    assert [clip.gender for clip in found].count("f") == 19
    assert sorted(clip.gender for clip in found if clip.split == "val") == ["f", "f", "m", "m"]
    # masks and a copy; poses and README
    assert left_out("celeba_hq", tmp_path) == {"picture files": 31, "other files": 2}
    unlisted = [n for n, why in rejects("celeba_hq", tmp_path).items() if why.startswith("not in")]
    assert unlisted == ["38.jpg", "39.jpg", "40.jpg"]
    assert row_notes("celeba_hq", tmp_path) == {
        MALFORMED: "2 rows are not one name with one gender, for example 38.jpg, 39 f",
        UNUSED: "2 of 40 rows have no clip here, for example 99, 98",
    }


MAPPING = "idx orig_idx orig_file\n0 119612 119613.jpg\n1 99093 099094.jpg\n"


ATTRIBUTES = [  # of two pictures, the first of a man
    ("000001.jpg 000002.jpg", "attr.txt", "2\nMale Young\n000001.jpg  1 -1\n2.jpg -1  1\n"),
    ("1.jpg 2.jpg", "attr.csv", "image_id,Male,Young\n1.jpg,1,-1\n2.jpg,-1,1\n"),
    ("1.jpg 2.jpg", "attributes.csv", ",image_id,Male\n0,1.jpg,1\n1,2.jpg,0\n"),
    ("0.jpg 1.jpg", "list_attr.txt", "2\nMale\n119613.jpg 1\n099094.jpg -1\n"),
    ("00007.png 00008.png", "attr-anno.txt", "1\nMale\n7.jpg 1\n8.jpg -1\n"),
]


@pytest.mark.parametrize(("images", "name", "text"), ATTRIBUTES)
def test_celeba_attribute_lists(tmp_path: Path, images: str, name: str, text: str) -> None:
    put(tmp_path, name, text=text)
    put(tmp_path, "CelebA-HQ-to-CelebA-mapping.txt", text=MAPPING)
    put(tmp_path / "img", *images.split())
    assert [clip.gender for clip in clips("celeba_hq", tmp_path).values()] == ["m", "f"]


def test_voxceleb1_as_it_unpacks(tmp_path: Path) -> None:
    put(tmp_path / "vox1_dev_wav/wav/id10001", "1zcIwhmdeo4/00001.wav", "x.txt")
    put(tmp_path, "vox1_test_wav/wav/id10270/5r0dWxy17C8/00001.wav")
    put(tmp_path, "vox1_test_wav/wav/id10270/5r0dWxy17C8/00002.wav")
    faces = "unzippedFaces/Eartha_Kitt/1.6/5r0dWxy17C8"
    put(tmp_path, f"{faces}/0000375.jpg", f"{faces}/0000400.jpg")
    put(tmp_path, "unzippedIntervalFaces/data/A.J._Buckley/1.6/1zcIwhmdeo4/1/01.jpg", "a/b/c.mp4")
    table = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
    table += "id10001\tA.J._Buckley\tm\tIreland\tdev\nid10270\tEartha_Kitt\tf\tUSA\ttest\n"
    put(tmp_path, "meta/vox1_meta.csv", text=f"{table}id10300\n")
    put(tmp_path, "speakers.csv", text="speaker,gender\nA.J._Buckley,F\nNobody,F\n")
    put(tmp_path, "Zoë B/v 1/001.flac", "Zoë B/v 1/001.jpg", "Zoë B/v 1/002.jpg", "lost.jpg")
    found = clips("voxceleb", tmp_path)
    assert row_notes("voxceleb", tmp_path) == {
        MALFORMED: "1 rows are not one name with one gender, for example id10300",
        UNUSED: "1 of 2 rows have no clip here, for example Nobody",
    }
    assert {i: (c.kind, c.gender, c.split, len(c.images)) for i, c in found.items()} == {
        "id10001/1zcIwhmdeo4/00001": ("av", "f", "", 1),  # the table goes before the metadata
        "id10270/5r0dWxy17C8/00001": ("av", "f", "unseen", 2),
        "id10270/5r0dWxy17C8/00002": ("av", "f", "unseen", 2),
        "Zoë B/v 1/001": ("av", "", "", 1),
    }
    assert rejects("voxceleb", tmp_path) == {
        "c.mp4": NOT_NEEDED,
        "x.txt": NOT_NEEDED,
        "002.jpg": NOT_NEEDED,
        "lost.jpg": "no speaker",
        "vox1_meta.csv": MALFORMED,
        "speakers.csv": UNUSED,
    }


def test_rows_that_contradict_each_other_decide_nothing(tmp_path: Path) -> None:
    for corpus, clip, table, rows in (
        ("vctk", "wav48/p1/a.wav", "speaker-info.txt", "ID AGE GENDER\n1 9 F\np1 9 M\n1 9 M\n"),
        ("voxceleb", "wav/x/v/a.wav", "vox1_meta.csv", "a,b,c\nx,X,m\nx,X,f\nx,X,f\n"),
        ("librispeech", "s/1/2/a.wav", "SPEAKERS.TXT", "; M\n1 | F | a\n1 | M | a\n1 | M | a\n"),
    ):
        put(tmp_path / corpus, clip)
        put(tmp_path / corpus, table, text=rows)
        assert [clip.gender for clip in clips(corpus, tmp_path).values()] == [""]
        assert row_notes(corpus, tmp_path)[MALFORMED].startswith("2 rows are not one name with one")
        assert rejects(corpus, tmp_path)[table] == MALFORMED


def test_lip2wav_as_its_scripts_leave_it(tmp_path: Path) -> None:
    chem = tmp_path / "Dataset" / "chem"
    put(chem, "train.txt", "videos/idA.mp4", "videos/idB.webm", "test_results/gts/1.wav")
    put(chem, *(f"intervals/idA/cut-{n}.mp4" for n in range(3)), "preprocessed/idA/cut-0/9.jpg")
    put(chem, "preprocessed/idA/cut-0/audio.wav", "preprocessed/idA/cut-0/10.jpg")
    cut = tmp_path / "Dataset" / "new" / "preprocessed" / "idC" / "cut-1"
    put(cut, "10.jpg", "9.jpg", "audio.wav", "mels.npz")
    put(tmp_path, "speakers.csv", text="speaker;gender\nChem;F\n")  # as spreadsheets write it
    found = clips("lip2wav", tmp_path)
    clip = found.pop("Dataset/new/preprocessed/idC/cut-1")
    assert [path.name for path in clip.images] == ["9.jpg", "10.jpg"]
    assert (clip.speaker, clip.extra["group"]) == ("lip2wav/new", "Dataset/new/preprocessed/idC")
    assert set(found) == {f"Dataset/chem/intervals/idA/cut-{n}" for n in range(3)}
    assert {(c.speaker, c.gender) for c in found.values()} == {("lip2wav/chem", "f")}
    left = {"film files": 2, "sound files": 2, "picture files": 2, "other files": 2}
    assert left_out("lip2wav", tmp_path) == left
    assert len(clips("lip2wav", chem)) == 3
    put(tmp_path, "other/x.mp4")
    assert rejects("lip2wav", tmp_path)["x.mp4"] == "no speaker"


def test_librispeech_as_it_unpacks(tmp_path: Path) -> None:
    root = tmp_path / "LibriSpeech"
    put(root, "train-clean-100/103/1240/103-1240-0000.flac", "loose.flac")
    put(root, "train-clean-100/103/1240/103-1240.trans.txt", text="103-1240-0000 CHAPTER ONE\n")
    put(root, "SPEAKERS.TXT", text="; ID |SEX|\n103 | F | train-clean-100 | 30 | Karen\n")
    for source in (tmp_path, root):
        (clip,) = clips("librispeech", source).values()
        assert (clip.id, clip.gender) == ("103/103-1240-0000", "f")
        assert clip.transcript == "chapter one"
    assert rejects("librispeech", tmp_path) == {"loose.flac": "no speaker"}


def test_real_samples_are_all_placed(real_corpus: Path) -> None:
    counts = {"grid": 75, "vctk": 78, "celeba_hq": 52, "voxceleb": 254, "lrs3": 37}
    others = {"grid": 7, "vctk": 1}  # sounds beside films, the second rate of an utterance
    for corpus, count in counts.items():
        assert len(clips(corpus, real_corpus)) == count
        assert set(rejects(corpus, real_corpus).values()) <= {NOT_NEEDED}
        left = left_out(corpus, real_corpus)
        assert sum(n for what, n in left.items() if what != "other files") == others.get(corpus, 0)
    assert all(clip.transcript for clip in clips("grid", real_corpus).values())
    assert {clip.gender for clip in clips("voxceleb", real_corpus).values()} == {"f", "m"}
    assert len(clips("clips", real_corpus / "other" / "talking_clips")) == 10
    assert len(clips("librispeech", real_corpus)) == 138
