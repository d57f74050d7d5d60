"""Readers place every file of the corpora's own layouts, and of none other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xfavot import presets
from xfavot.data.corpora import describe
from xfavot.data.readers import (
    FOLDERS,
    NOT_NEEDED,
    READERS,
    Clip,
    Reject,
    corpus_folder,
    gender_code,
    read_speakers,
    split_of,
    walk,
)
from xfavot.data.readers.grid import sentence_of
from xfavot.errors import DataError


def put(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def clips(corpus: str, source: Path, seed: int = 0) -> dict[str, Clip]:
    found = [r for r in READERS[corpus].scan(source, seed=seed) if isinstance(r, Clip)]
    assert len({clip.id for clip in found}) == len(found)
    return {clip.id: clip for clip in found}


def rejects(corpus: str, source: Path) -> dict[str, str]:
    """Reason by name of the file, or by name of the folder of a class that is left out."""
    found = [r for r in READERS[corpus].scan(source, seed=0) if isinstance(r, Reject)]
    return {reject.source.name: reject.reason for reject in found}


def left_out(corpus: str, source: Path) -> dict[str, int]:
    """Number of files by the first words of each class that is left out."""
    found = [r for r in READERS[corpus].scan(source, seed=0) if isinstance(r, Reject)]
    details = [r.detail for r in found if r.reason == NOT_NEEDED]
    counted = [re.match(r"([\d,]+) files?: (.*?), for example", text) for text in details]
    return {match[2]: int(match[1].replace(",", "")) for match in counted if match}


def test_grid_reads_every_layout_of_the_archives(tmp_path: Path) -> None:
    put(tmp_path, "grid/s1/video/bbaf2n.mpg", "grid/s4/lwbz9s.mpg", "grid/video/s20/prwx1a.mpg")
    put(tmp_path, "grid/s1/audio_16k/bbaf2n.wav", "grid/s21/audio/swwa1a.wav", "grid/bbal4n.mpg")
    put(tmp_path, "grid/s1/align/bbaf2n.align", text="0 10 sil\n10 20 bin\n20 30 blue\n30 40 sil\n")
    put(tmp_path, "grid/alignments/s4/lwbz9s.align", text="0 1 SIL\n1 2 lay\n2 3 sp\n3 4 white\n")
    found = clips("grid", tmp_path)
    assert found == clips("grid", tmp_path / "grid")
    assert set(found) == {"s1/bbaf2n", "s4/lwbz9s", "s20/prwx1a"}
    assert found["s1/bbaf2n"].transcript == "bin blue"
    assert found["s4/lwbz9s"].transcript == "lay white"
    assert found["s20/prwx1a"].transcript == "place red with x one again"
    assert [found[i].gender for i in ("s1/bbaf2n", "s4/lwbz9s", "s20/prwx1a")] == ["m", "f", "f"]
    assert found["s4/lwbz9s"].speaker == "grid/s4"
    assert rejects("grid", tmp_path) == {
        "bbal4n.mpg": "no speaker",
        "swwa1a.wav": "no film",
        "bbaf2n.wav": NOT_NEEDED,
    }


def test_grid_speaker_written_in_two_ways_is_one(tmp_path: Path) -> None:
    put(tmp_path, "s1/bbaf2n.mpg", "S01/bbaf2n.mpg", "S01/bbaf3s.mpg")
    found = clips("grid", tmp_path)
    assert set(found) == {"s1/bbaf2n", "s1/bbaf3s"}
    assert {clip.speaker for clip in found.values()} == {"grid/s1"}
    assert rejects("grid", tmp_path) == {"bbaf2n.mpg": "second copy"}


def test_grid_speakers_csv_goes_before_the_list(tmp_path: Path) -> None:
    put(tmp_path, "s1/bbaf2n.mpg", "s40/bbaf2n.mpg")
    put(tmp_path, "speakers.csv", text="speaker,gender\ns40,Female\ns1,F\n")
    assert [clip.gender for clip in clips("grid", tmp_path).values()] == ["f", "f"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bbaf2n", "bin blue at f two now"),
        ("sgwqzp", "set green with q zero please"),
        ("bbaw2n", ""),
        ("bbaf2", ""),
        ("hello!", ""),
    ],
)
def test_grid_names_spell_sentences(name: str, sentence: str) -> None:
    assert sentence_of(name) == sentence


def test_vctk_takes_an_utterance_once_at_its_best_rate(tmp_path: Path) -> None:
    root = tmp_path / "VCTK-Corpus"
    put(root, "wav22/p225/p225_001.wav", "wav48/p225/p225_001.wav", "wav16/p226/p226_002.wav")
    put(root, "wav48_silence_trimmed/p227/p227_003_mic2.flac", "elsewhere/wav16/p226/p226_002.wav")
    put(root, "wav48_silence_trimmed/p227/p227_003_mic1.flac", "wav48/readme.wav")
    put(root, "txt/p225/p225_001.txt", text="Please call Stella.\n")
    put(root, "speaker-info.txt", text="ID  AGE  GENDER\n225  23  F  English\np226 22 M Surrey\n")
    found = clips("vctk", tmp_path)
    assert set(found) == {"p225/p225_001", "p226/p226_002", "p227/p227_003"}
    audio = {clip.audio.parent.parent.name for clip in found.values() if clip.audio}
    assert audio == {"wav48", "wav16", "wav48_silence_trimmed"}
    assert found["p227/p227_003"].source.name == "p227_003_mic1.flac"
    assert found["p225/p225_001"].transcript == "Please call Stella."
    assert [clip.gender for clip in found.values()] == ["f", "m", ""]
    assert rejects("vctk", tmp_path)["readme.wav"] == "no speaker"
    assert left_out("vctk", tmp_path) == {
        "takes that are there in another folder too (rate or release)": 2,
        "takes of the second microphone": 1,
    }


def test_vctk_two_files_of_one_take(tmp_path: Path) -> None:
    put(tmp_path, "wav48/p225/p225_001.wav", "wav48/p225/p225_001.flac")
    assert clips("vctk", tmp_path)["p225/p225_001"].source.suffix == ".flac"
    assert rejects("vctk", tmp_path) == {"p225_001.wav": "second copy"}


def test_celeba_hq_tree_prescribes_the_split(tmp_path: Path) -> None:
    put(tmp_path, "train/female/000001.jpg", "train/male/2.png", "val/female/3.jpg")
    put(tmp_path, "val/male/4.jpg", "elsewhere/5.jpg")
    found = clips("celeba_hq", tmp_path)
    assert [clip.split for clip in found.values()] == ["train", "train", "val", "val"]
    assert [clip.gender for clip in found.values()] == ["f", "m", "f", "m"]
    assert all(clip.aligned and clip.kind == "image" for clip in found.values())
    assert left_out("celeba_hq", tmp_path) == {
        "images outside female/ and male/, which are taken": 1
    }
    (tmp_path / "raw").mkdir()
    put(tmp_path, "raw/6.jpg")
    with pytest.raises(DataError, match=r"6\.jpg: no gender folder"):
        clips("celeba_hq", tmp_path / "raw")


def test_voxceleb_pairs_by_segment_or_by_video(tmp_path: Path) -> None:
    put(tmp_path, "Zoë Söderberg/v 1/001.flac", "Zoë Söderberg/v 1/001.jpg")
    put(tmp_path, "wav/id10002/vid/00001.wav", "wav/id10002/vid/00002.wav", "lost.jpg")
    put(tmp_path, "unzippedFaces/Bob/1.6/vid/0000010.jpg", "unzippedFaces/Bob/1.6/vid/0000020.jpg")
    put(
        tmp_path,
        "vox1_meta.csv",
        text="VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
        "id10002\tBob\tm\tUK\ttest\nid10003\tZoë Söderberg\tf\tSE\tdev\n",
    )
    found = clips("voxceleb", tmp_path)
    assert set(found) == {"id10003/v 1/001", "id10002/vid/00001", "id10002/vid/00002"}
    bob = found["id10002/vid/00002"]
    assert [image.name for image in bob.images] == ["0000010.jpg", "0000020.jpg"]
    assert (bob.kind, bob.gender, bob.split, bob.speaker) == (
        "av",
        "m",
        "unseen",
        "voxceleb/id10002",
    )
    assert found["id10003/v 1/001"].gender == "f"
    assert rejects("voxceleb", tmp_path) == {"lost.jpg": "no speaker"}


def test_lrs3_films_and_pairs(tmp_path: Path) -> None:
    put(tmp_path, "lrs3/trainval/AbC-1/50001.mp4", "lrs3/trainval/xyz/1.wav")
    put(tmp_path, "lrs3/trainval/xyz/9.jpg", "lrs3/demo/one/a.wav", "lrs3/demo/one/a.jpg")
    put(tmp_path, "lrs3/trainval/AbC-1/50001.txt", text="Text:  HELLO  WORLD\nConf:  4\n")
    put(tmp_path, "lrs3/speakers.csv", text="speaker,gender\nAbC-1,M\n")
    found = clips("lrs3", tmp_path)
    film = found["trainval/AbC-1/50001"]
    assert (film.transcript, film.gender, film.speaker) == ("HELLO WORLD", "m", "lrs3/AbC-1")
    assert found["trainval/xyz/1"].images[0].name == "9.jpg"
    assert found["demo/one/a"].speaker == ""
    assert {clip.kind for clip in found.values()} == {"av"}
    assert len(found) == 3


def test_lip2wav_and_avatars(tmp_path: Path) -> None:
    put(tmp_path, "lip2wav/chem/intervals/vid/cut-1.mp4", "lip2wav/other/x.mp4")
    put(tmp_path, "avatars/female/a.png", "avatars/aligned/male/b.png")
    (clip,) = clips("lip2wav", tmp_path).values()
    assert (clip.speaker, clip.extra["group"]) == ("lip2wav/chem", "chem/intervals/vid")
    assert rejects("lip2wav", tmp_path) == {"x.mp4": "no speaker"}
    first, second = sorted(clips("avatars", tmp_path).values(), key=lambda c: c.gender)
    assert (first.gender, first.aligned, second.gender, second.aligned) == ("f", False, "m", True)


def test_clips_of_ones_own(tmp_path: Path) -> None:
    put(tmp_path, "Anna/a.mp4", "Anna/a.mov", "Anna/a.wav", "Anna/a.jpg", "Anna/b/c.mp4")
    put(tmp_path, "anna/a.mp4", "bob/x.wav", "bob/x.png", "bob/y.wav", "loose.mp4", "face.gif")
    put(tmp_path, "Anna/a.txt", text=" hello\n there ")
    put(tmp_path, "speakers.csv", text="speaker,gender\nAnna,F\nanna,M\nBOB,M\nloose,F\n")
    found = clips("clips", tmp_path)
    assert {i: (c.kind, c.speaker, c.gender) for i, c in found.items()} == {
        "Anna/a": ("av", "clips/Anna", "f"),
        "Anna/b/c": ("av", "clips/Anna", "f"),
        "anna/a": ("av", "clips/anna", "m"),
        "bob/x": ("av", "clips/bob", "m"),
        "bob/y": ("audio", "clips/bob", "m"),
        "loose": ("av", "", "f"),
        "face": ("image", "", ""),
    }
    assert found["Anna/a"].transcript == "hello there"
    assert [path.name for path in found["Anna/a"].files] == ["a.mov", "a.wav"]
    assert rejects("clips", tmp_path) == {"a.mp4": "second copy", "a.jpg": NOT_NEEDED}


def test_every_media_file_is_accounted_for(tmp_path: Path) -> None:
    names = ["p225/p225_001.wav", "p225/face.jpg", "film.mp4", "p225/._p225_001.wav", "notes.txt"]
    put(tmp_path, *(f"wav48/{name}" for name in names), ".trash/old.wav")
    assert set(clips("vctk", tmp_path)) == {"p225/p225_001"}
    assert left_out("vctk", tmp_path) == {
        "picture files that this corpus's reader leaves out": 1,
        "film files that this corpus's reader leaves out": 1,
        "hidden files (a dot begins the name)": 1,
        "hidden folders (a dot begins the name)": 1,
    }


def test_a_second_folder_of_a_corpus_is_named(tmp_path: Path) -> None:
    put(tmp_path, "VCTK-Corpus/wav48/p225/a.wav", "VCTK-Corpus-0.92/wav48/p226/b.wav")
    assert set(clips("vctk", tmp_path)) == {"p225/a"}
    assert rejects("vctk", tmp_path) == {"VCTK-Corpus-0.92": NOT_NEEDED}


def test_archives_that_were_not_unpacked_are_named(tmp_path: Path) -> None:
    put(tmp_path, "s1.zip", "s2.zip", "alignments.zip")
    with pytest.raises(DataError, match=r"3 archives, .*s1\.zip.*: unpack them first; expected sN"):
        clips("grid", tmp_path)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    put(tmp_path, "s1/bbaf2n.mpg")
    (tmp_path / "s1" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "s1" / "self.mpg").symlink_to(tmp_path / "s1" / "self.mpg")
    (tmp_path / "best").symlink_to(tmp_path / "s1", target_is_directory=True)
    assert len(list(walk(tmp_path))) == 2
    assert "s1/bbaf2n" in clips("grid", tmp_path)  # not through best, which names no speaker


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "s1/bbaf2n.mpg", "s1/._bbaf2n.mpg", ".cache/s1/lbaf2n.mpg")
    assert set(clips("grid", tmp_path)) == {"s1/bbaf2n"}


@pytest.mark.parametrize("corpus", [name for name in FOLDERS if name != "mini"])
def test_a_source_without_the_corpus_says_the_layout(corpus: str, tmp_path: Path) -> None:
    put(tmp_path, "notes.txt")
    with pytest.raises(DataError, match="expected"):
        clips(corpus, tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        clips(corpus, tmp_path / "absent")


def test_a_folder_of_other_corpora_is_not_taken_for_this_one(tmp_path: Path) -> None:
    put(tmp_path, "grid/s1/bbaf2n.mpg")
    with pytest.raises(DataError, match="holds grid but no folder 'voxceleb'"):
        clips("voxceleb", tmp_path)
    assert corpus_folder(tmp_path, "grid") == tmp_path / "grid"


def test_speaker_tables(tmp_path: Path) -> None:
    text = '\ufeffSpeaker, gender ,age\na b,W,3\n"c",male,4\nd,?,5\n\ne,mujer\n,F\na b,F,3\n'
    put(tmp_path, "speakers.csv", text=text)
    table = read_speakers(tmp_path)
    assert table.genders == {"a b": "f", "c": "m", "d": ""}
    assert [table.gender(name) for name in ("A B", "d", "x")] == ["f", "", ""]
    assert [note.detail for note in table.notes()] == [
        "2 rows are not speaker, F or M, for example line 6 ('e', 'mujer'), line 7 ('', 'F')",
        "1 speakers have no clip here, for example c",
    ]
    assert read_speakers(tmp_path / "absent").notes() == []
    assert gender_code(None) == ""


def test_splits_are_a_function_of_key_and_seed() -> None:
    first = [split_of(f"c{i}", seed=0) for i in range(2000)]
    assert first == [split_of(f"c{i}", seed=0) for i in range(2000)]
    assert first != [split_of(f"c{i}", seed=1) for i in range(2000)]
    assert 0.08 < first.count("val") / len(first) < 0.12


def test_every_corpus_is_described_and_has_a_reader() -> None:
    assert set(presets.names("corpora")) == set(READERS)
    for name in READERS:
        known = describe(name)
        assert known.paper.get("unseen", 0) == len(set(known.held_out))
    mixtures = [presets.load("datasets", name) for name in presets.names("datasets")]
    assert {name for mixture in mixtures for name in mixture["corpora"]} == set(READERS)
