"""Readers place every file of the corpora's original layouts, as their owners distribute them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.test_readers import clips, left_out, put, rejects
from xfavot.data.readers import NOT_NEEDED, READERS, Reject
from xfavot.data.readers.source import MALFORMED, UNUSED


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
    left = {"sound files": 34, "film files": 1, "other files": 2}
    assert left_out("grid", tmp_path) == left


def test_vctk_080_lacks_texts_and_a_row_of_its_list(tmp_path: Path) -> None:
    put(tmp_path, *(f"VCTK-Corpus/wav48/p{n}/p{n}_001.wav" for n in (225, 280, 315)))
    put(tmp_path, "VCTK-Corpus/txt/p225/p225_001.txt", "VCTK-Corpus/txt/p280/p280_001.txt")
    put(tmp_path, "VCTK-Corpus/COPYING", "VCTK-Corpus/README", "VCTK-Corpus/NOTE")
    info = (
        "ID  AGE  GENDER  ACCENTS  REGION \n225  23  F    English    Southern  England\n"
        "315  18  M    American    New  England\n"
    )
    put(tmp_path, "VCTK-Corpus/speaker-info.txt", text=info)
    found = clips("vctk", tmp_path).values()
    assert [(c.gender, bool(c.transcript)) for c in found] == [("f", 1), ("f", 1), ("m", 0)]
    assert left_out("vctk", tmp_path) == {"other files": 3}


def test_vctk_092_takes_the_first_microphone_where_there_is_one(tmp_path: Path) -> None:
    top = "VCTK-Corpus-0.92/wav48_silence_trimmed"
    takes = [f"{u}_mic{m}" for u in ("001", "002") for m in (1, 2)]
    put(tmp_path, *(f"{top}/{s}/{s}_{take}.flac" for s in ("p225", "s5") for take in takes))
    put(tmp_path, f"{top}/p280/p280_001_mic1.flac", f"{top}/p362/p362_001_mic2.flac")
    put(tmp_path, f"{top}/log.txt", f"{top}/p225/log.txt", "VCTK-Corpus-0.92/update.txt")
    info = (
        "ID  AGE  GENDER  ACCENTS  REGION COMMENTS \np225  23  F    English    Southern\n"
        "p280  25  F    Unknown    France (mic2 files unavailable)\ns5  24  M    English\n"
        "p362  ?\n\n"
    )
    put(tmp_path, "VCTK-Corpus-0.92/speaker-info.txt", text=info)
    found = clips("vctk", tmp_path)
    assert {clip.source.stem[-5:] for clip in found.values()} == {"_mic1", "_mic2"}
    assert [c.source.name for c in found.values()].count("p362_001_mic2.flac") == 1
    genders = {c.speaker.removeprefix("vctk/"): c.gender for c in found.values()}
    assert genders == {"p225": "f", "p280": "f", "p362": "", "s5": "m"}
    assert left_out("vctk", tmp_path) == {"sound files": 4, "other files": 3}
    assert rejects("vctk", tmp_path)["speaker-info.txt"] == MALFORMED


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
    for gender in "fm":
        group = [clip for clip in found if clip.gender == gender]
        assert len(group) == 19
        assert sum(clip.split == "val" for clip in group) == 2
    # masks and a copy; poses and README
    assert left_out("celeba_hq", tmp_path) == {"picture files": 31, "other files": 2}
    others = [r for r in READERS["celeba_hq"].scan(tmp_path, seed=0) if isinstance(r, Reject)]
    reasons = {r.reason: r for r in others}
    assert {r.source.name for r in others if r.reason == "not in the attribute list"} == {
        "38.jpg",
        "39.jpg",
        "40.jpg",
    }
    assert reasons[MALFORMED].detail.startswith("2 rows")
    assert reasons[UNUSED].detail == "2 of 40 rows have no clip here, for example 99, 98"
    assert len(others) == 3 + 1 + 1 + 2


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list_attr.txt", "2\nMale Young\n000001.jpg  1 -1\n000002.jpg -1  1\n"),
        ("list_attr_celeba.csv", "image_id,Male,Young\n000001.jpg,1,-1\n000002.jpg,-1,1\n"),
        ("attributes.csv", ",image_id,Male\n0,000001.jpg,1\n1,000002.jpg,0\n"),
    ],
)
def test_celeba_attribute_lists(tmp_path: Path, name: str, text: str) -> None:
    put(tmp_path, name, text=text)
    put(tmp_path, "img/000001.jpg", "img/000002.jpg")
    assert [clip.gender for clip in clips("celeba_hq", tmp_path).values()] == ["m", "f"]


def test_celeba_list_through_the_mapping_and_padded_numbers(tmp_path: Path) -> None:
    put(tmp_path, "a/img/0.jpg", "a/img/1.jpg", "b/img/00007.png")
    put(tmp_path, "a/list_attr_celeba.txt", text="2\nMale\n119613.jpg 1\n099094.jpg -1\n")
    mapping = "idx orig_idx orig_file\n0 119612 119613.jpg\n1 99093 099094.jpg\n"
    put(tmp_path, "a/CelebA-HQ-to-CelebA-mapping.txt", text=mapping)
    assert [clip.gender for clip in clips("celeba_hq", tmp_path / "a").values()] == ["m", "f"]
    put(tmp_path, "b/CelebAMask-HQ-attribute-anno.txt", text="1\nMale\n7.jpg 1\n")
    assert [clip.gender for clip in clips("celeba_hq", tmp_path / "b").values()] == ["m"]


def test_voxceleb1_as_it_unpacks(tmp_path: Path) -> None:
    put(
        tmp_path, "vox1_dev_wav/wav/id10001/1zcIwhmdeo4/00001.wav", "vox1_dev_wav/wav/id10001/x.txt"
    )
    put(tmp_path, "vox1_test_wav/wav/id10270/5r0dWxy17C8/00001.wav")
    put(tmp_path, "vox1_test_wav/wav/id10270/5r0dWxy17C8/00002.wav")
    faces = "unzippedFaces/Eartha_Kitt/1.6/5r0dWxy17C8"
    put(tmp_path, f"{faces}/0000375.jpg", f"{faces}/0000400.jpg")
    put(tmp_path, "unzippedIntervalFaces/data/A.J._Buckley/1.6/1zcIwhmdeo4/1/01.jpg", "a/b/c.mp4")
    put(
        tmp_path,
        "meta/vox1_meta.csv",
        text="VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\n"
        "id10001\tA.J._Buckley\tm\tIreland\tdev\n"
        "id10270\tEartha_Kitt\tf\tUSA\ttest\nid10300\n",
    )
    put(tmp_path, "speakers.csv", text="speaker,gender\nA.J._Buckley,F\nNobody,F\n")
    found = clips("voxceleb", tmp_path)
    assert {i: (c.kind, c.gender, c.split, len(c.images)) for i, c in found.items()} == {
        "id10001/1zcIwhmdeo4/00001": ("av", "f", "", 1),  # the table goes before the metadata
        "id10270/5r0dWxy17C8/00001": ("av", "f", "unseen", 2),
        "id10270/5r0dWxy17C8/00002": ("av", "f", "unseen", 2),
    }
    assert rejects("voxceleb", tmp_path) == {
        "vox1_meta.csv": MALFORMED,
        "speakers.csv": UNUSED,
        "c.mp4": NOT_NEEDED,
        "x.txt": NOT_NEEDED,
    }


def test_lrs3_as_it_unpacks(tmp_path: Path) -> None:
    films = ("pretrain/AbC-1/00001", "trainval/AbC-1/00002", "test/_xY9/00001")
    put(tmp_path, *(f"{film}.{end}" for film in films for end in ("mp4", "txt")))
    put(tmp_path, "trainval/AbC-1/00002.wav", "trainval/AbC-1/00002.jpg")
    found = clips("lrs3", tmp_path)
    assert set(found) == set(films)
    assert {c.speaker for c in found.values()} == {"lrs3/AbC-1", "lrs3/_xY9"}
    assert sum(left_out("lrs3", tmp_path).values()) == 2
    assert set(clips("lrs3", tmp_path / "pretrain")) == {"AbC-1/00001"}


def test_lip2wav_as_its_scripts_leave_it(tmp_path: Path) -> None:
    chem = tmp_path / "Dataset" / "chem"
    put(chem, "train.txt", "videos/idA.mp4", "videos/idB.webm", "test_results/gts/1.wav")
    put(chem, *(f"intervals/idA/cut-{n}.mp4" for n in range(3)), "preprocessed/idA/cut-0/9.jpg")
    put(chem, "preprocessed/idA/cut-0/audio.wav", "preprocessed/idA/cut-0/10.jpg")
    put(
        tmp_path,
        *(
            f"Dataset/new/preprocessed/idC/cut-1/{name}"
            for name in ("10.jpg", "9.jpg", "audio.wav", "mels.npz")
        ),
    )
    put(tmp_path, "speakers.csv", text="speaker;gender\nChem;F\n")  # as spreadsheets write it
    found = clips("lip2wav", tmp_path)
    cut = found.pop("Dataset/new/preprocessed/idC/cut-1")
    assert [path.name for path in cut.images] == ["9.jpg", "10.jpg"]
    assert (cut.speaker, cut.extra["group"]) == ("lip2wav/new", "Dataset/new/preprocessed/idC")
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
