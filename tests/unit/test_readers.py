"""Readers place every file of the corpora's own layouts, and of none other."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest

from xfavot import presets
from xfavot.data.corpora import describe
from xfavot.data.readers import NOT_NEEDED, READERS, Clip, Reject, corpus_folder, fraction
from xfavot.data.readers.layouts import sentence_of
from xfavot.data.readers.source import Source, read_speakers
from xfavot.errors import DataError


def put(root: Path, *names: str, text: str = "x") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def clips(corpus: str, source: Path, seed: int = 0) -> dict[str, Clip]:
    read = [r for r in READERS[corpus].scan(source, seed=seed) if isinstance(r, Clip)]
    assert len({clip.id for clip in read}) == len(read)
    return {clip.id: clip for clip in read}


def rejects(corpus: str, source: Path) -> dict[str, str]:
    """Reason by name of the file, or by name of the folder of a class that is left out."""
    read = [r for r in READERS[corpus].scan(source, seed=0) if isinstance(r, Reject)]
    return {reject.source.name: reject.reason for reject in read}


def left_out(corpus: str, source: Path) -> dict[str, int]:
    """Number of files by the first two words of each class that is left out."""
    read = [r for r in READERS[corpus].scan(source, seed=0) if isinstance(r, Reject)]
    counted = [re.match(r"([\d,]+) files?: (\w+ \w+)", r.detail) for r in read]
    return {match[2]: int(match[1].replace(",", "")) for match in counted if match}


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
    assert sentence_of("sgwqzp") == "set green with q zero please"
    assert [sentence_of(name) for name in ("bbaw2n", "bbaf2", "hello!")] == [""] * 3


def test_vctk_takes_an_utterance_once_at_its_best_rate(tmp_path: Path) -> None:
    root = tmp_path / "VCTK-Corpus"
    put(root, "wav22/p225/p225_001.wav", "wav48/p225/p225_001.wav", "wav16/p226/p226_002.wav")
    put(root, "wav48_silence_trimmed/p227/p227_003_mic2.flac", "elsewhere/wav16/p226/p226_002.wav")
    put(root, "wav48_silence_trimmed/p227/p227_003_mic1.flac", "wav48/readme.wav")
    put(root, "wav48/p225/p225_001.flac")
    put(root, "txt/p225/p225_001.txt", text="Please call Stella.\n")
    put(root, "speaker-info.txt", text="ID  AGE  GENDER\n225  23  F  English\np226 22 M Surrey\n")
    read = clips("vctk", tmp_path)
    assert {i: (c.gender, c.transcript, c.source.name) for i, c in read.items()} == {
        "p225/p225_001": ("f", "Please call Stella.", "p225_001.flac"),
        "p226/p226_002": ("m", "", "p226_002.wav"),
        "p227/p227_003": ("", "", "p227_003_mic1.flac"),
    }
    assert read["p225/p225_001"].source.parts[-3] == "wav48"
    assert rejects("vctk", tmp_path)["readme.wav"] == "no speaker"
    assert left_out("vctk", tmp_path) == {"sound files": 4}


def test_celeba_hq_tree_prescribes_the_split(tmp_path: Path) -> None:
    put(tmp_path, "train/female/000001.jpg", "train/male/2.png", "val/female/3.jpg")
    put(tmp_path, "val/male/4.jpg", "elsewhere/5.jpg")
    read = clips("celeba_hq", tmp_path)
    assert [clip.split for clip in read.values()] == ["train", "train", "val", "val"]
    assert [clip.gender for clip in read.values()] == ["f", "m", "f", "m"]
    assert all(clip.aligned and clip.kind == "image" for clip in read.values())
    assert left_out("celeba_hq", tmp_path) == {"picture files": 1}
    put(tmp_path, "raw/6.jpg")
    with pytest.raises(DataError, match=r"6\.jpg: no gender folder"):
        clips("celeba_hq", tmp_path / "raw")


def test_voxceleb_pairs_by_segment_or_by_video(tmp_path: Path) -> None:
    put(tmp_path, "Zoë Söderberg/v 1/001.flac", "Zoë Söderberg/v 1/001.jpg")
    put(tmp_path, "wav/id10002/vid/00001.wav", "wav/id10002/vid/00002.wav", "lost.jpg")
    put(tmp_path, "unzippedFaces/Bob/1.6/vid/0000010.jpg", "unzippedFaces/Bob/1.6/vid/0000020.jpg")
    rows = "id10002\tBob\tm\tUK\ttest\nid10003\tZoë Söderberg\tf\tSE\tdev\n"
    put(tmp_path, "vox1_meta.csv", text=f"VoxCeleb1 ID\tVGGFace1 ID\tGender\tN\tSet\n{rows}")
    read = clips("voxceleb", tmp_path)
    assert set(read) == {"id10003/v 1/001", "id10002/vid/00001", "id10002/vid/00002"}
    bob = read["id10002/vid/00002"]
    assert [image.name for image in bob.images] == ["0000010.jpg", "0000020.jpg"]
    assert (bob.kind, bob.gender, bob.split) == ("av", "m", "unseen")
    assert bob.speaker == "voxceleb/id10002"
    assert read["id10003/v 1/001"].gender == "f"
    assert rejects("voxceleb", tmp_path) == {"lost.jpg": "no speaker"}


def test_lrs3_films_and_pairs(tmp_path: Path) -> None:
    put(tmp_path, "lrs3/trainval/AbC-1/50001.mp4", "lrs3/trainval/xyz/1.wav")
    put(tmp_path, "lrs3/trainval/xyz/9.jpg", "lrs3/demo/one/a.wav", "lrs3/demo/one/a.jpg")
    put(tmp_path, "lrs3/trainval/AbC-1/50001.txt", text="Text:  HELLO  WORLD\nConf:  4\n")
    put(tmp_path, "lrs3/speakers.csv", text="speaker,gender\nAbC-1,M\n")
    read = clips("lrs3", tmp_path)
    film = read["trainval/AbC-1/50001"]
    assert (film.transcript, film.gender, film.speaker) == ("HELLO WORLD", "m", "lrs3/AbC-1")
    assert read["trainval/xyz/1"].images[0].name == "9.jpg"
    assert read["demo/one/a"].speaker == ""
    assert {clip.kind for clip in read.values()} == {"av"}
    assert len(read) == 3


def test_avatars(tmp_path: Path) -> None:
    put(tmp_path, "avatars/female/a.png", "avatars/aligned/male/b.png")
    first, second = sorted(clips("avatars", tmp_path).values(), key=lambda c: c.gender)
    assert (first.gender, first.aligned, second.gender, second.aligned) == ("f", False, "m", True)


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
    for library in ("av", "soundfile", "PIL"):
        pytest.importorskip(library)
    from PIL import Image

    from tests.unit.test_audio_io import encoded, sine, wav

    wave = sine(0.5)
    files = {
        "a.mts": encoded("mpegts", "ac3", sine(0.5, 48_000), 48_000, film=True),
        "b.w64": wav(wave, "W64"),
        "c.caf": wav(wave, "CAF"),
        "d.au": wav(wave, "AU"),
        "e": encoded("matroska", "flac", wave, film=True),
        "f.mp4": encoded("mp4", "aac", wave),  # as telephones save a voice
    }
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "PNG")
    folder = tmp_path / "clips" / "Anna"
    put(folder, "notes.dat", "page.xyz", text="<html>")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for stem in "bc":
        (folder / f"{stem}.face").write_bytes(picture.getvalue())
    (folder / "weights.bin").write_bytes(bytes(range(256)) * 40)
    kinds = {clip.id[5:]: clip.kind for clip in clips("clips", tmp_path).values()}
    assert kinds == {**dict.fromkeys("abce", "av"), "d": "audio", "f": "audio"}
    assert left_out("clips", tmp_path) == {"other files": 3}
    wavs = tmp_path / "vctk" / "wav48" / "p225"
    wavs.mkdir(parents=True)
    (wavs / "x.w64").write_bytes(files["b.w64"])
    assert set(clips("vctk", tmp_path)) == {"p225/x"}


def test_every_file_is_accounted_for(tmp_path: Path) -> None:
    names = ["p225/p225_001.wav", "p225/face.jpg", "film.mp4", "p225/._p225_001.wav", "notes.txt"]
    put(tmp_path, *(f"wav48/{name}" for name in names), ".trash/p225/old.wav")
    put(tmp_path, "txt/p225/p225_001.txt", "speakers.csv", text="speaker,gender\n")
    assert set(clips("vctk", tmp_path)) == {"p225/p225_001"}
    assert left_out("vctk", tmp_path) == {
        "picture files": 1,
        "film files": 1,
        "hidden files": 1,
        "hidden folders": 1,
        "other files": 1,
    }


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
    with pytest.raises(DataError, match=expected):
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
    assert table.codes == {"a b": "f", "c": "m", "d": ""}
    assert [table.gender(name) for name in ("A B", "d", "x")] == ["f", "", ""]
    assert [note.detail for note in table.notes()] == [
        "2 rows are not one name with one gender, for example line 6 ('e', 'mujer'), "
        "line 7 ('', 'F')",
        "1 of 3 rows have no clip here, for example c",
    ]
    assert not [*read_speakers(tmp_path / "absent").notes()]


def test_the_place_of_a_key_depends_on_key_and_seed() -> None:
    first = [fraction(f"c{i}", seed=0) for i in range(2000)]
    assert first == [fraction(f"c{i}", seed=0) for i in range(2000)]
    assert first != [fraction(f"c{i}", seed=1) for i in range(2000)]
    assert 0.08 < sum(place < 0.1 for place in first) / len(first) < 0.12


def test_every_corpus_is_described_and_has_a_reader() -> None:
    assert set(presets.names("corpora")) == set(READERS)
    for name in READERS:
        known = describe(name)
        assert known.paper.get("unseen", 0) == len(set(known.held_out))
    mixtures = [presets.load("datasets", name) for name in presets.names("datasets")]
    assert {name for mixture in mixtures for name in mixture["corpora"]} == set(READERS)
