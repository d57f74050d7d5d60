#!/usr/bin/env bash
# RapidFuzz 3.14.6, editdistance 0.8.1: -1 and -2 are the same symbol
#
# Guessed:  the edit distance of two sequences of numbers does not depend on whether they come as a
#           list or as a NumPy array, and two numbers that differ are two symbols.
# Seen:     both libraries compare hashes, and Python's hash(-1) is hash(-2). RapidFuzz makes an
#           exception for the int -1, so that lists are right, but not for arrays of any dtype, for
#           floats, for NumPy's scalars or for tuples: there Levenshtein, Indel, Hamming and cdist
#           give 0 for a melody that falls by a semitone and one that falls by two, and editops
#           finds nothing to do. editdistance gives 0 for lists of ints as well.
# Matters:  melodies in semitone steps, quantised changes of F0 and labels with -1 (ignored) and -2
#           (unknown) come as arrays; differences between falling contours then cost nothing, and the
#           same data as .tolist() give another error rate. Add an offset first.
# Fails when arrays give what lists do, or lists what arrays do.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q rapidfuzz==3.14.6 editdistance==0.8.1 numpy==2.3.5
"$folder/venv/bin/python" - <<'PY'
import editdistance
import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Hamming, Indel, Levenshtein

one = np.diff([62, 61, 60, 61, 60, 59, 60])  # semitones, falling by one at a time
two = np.diff([66, 64, 62, 63, 61, 59, 60])  # by two
list_one, list_two = one.tolist(), two.tolist()
as_lists = Levenshtein.distance(list_one, list_two)
seen = {
    name: Levenshtein.distance(a, b)
    for name, a, b in (
        *((kind, one.astype(kind), two.astype(kind)) for kind in ("int8", "int64", "float32")),
        ("scalars", list(one), list(two)),
        ("floats", one.astype(float).tolist(), two.astype(float).tolist()),
        ("bigrams", list(zip(list_one, list_one[1:])), list(zip(list_two, list_two[1:]))),
    )
}
print(f"steps {one} and {two}: as lists {as_lists}, as", seen)
assert as_lists == 4, as_lists
assert set(seen.values()) == {0}, "some of them are told apart now"
assert Indel.distance(one, two) == Hamming.distance(one, two) == 0
assert not list(Levenshtein.editops(one, two))
assert process.cdist([one], [two], scorer=Levenshtein.distance).item() == 0
assert editdistance.eval(list_one, list_two) == 0, "editdistance tells them apart now"
assert Levenshtein.distance(one + 2, two + 2) == 4, "an offset no longer mends it"
PY
