"""Which clip fills which row of a batch: pools by gender, corpus and speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xfavot.data.items import Item

Rows = NDArray[np.int64]
UNKNOWN = -1


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Clips of one gender that can fill one role: corpus, then speaker, then clip, each uniform.

    Every corpus is as likely as the others however large it is, and so is every speaker inside it.
    A clip whose speaker is unknown counts as a speaker of its own.

    Args:
        corpus_start, corpus_count: (C,) the speakers of each corpus.
        speaker_start, speaker_count: (S,) the clips of each speaker in ``rows``.
        rows: clips, grouped by speaker, speakers grouped by corpus.
    """

    corpus_start: Rows
    corpus_count: Rows
    speaker_start: Rows
    speaker_count: Rows
    rows: Rows

    @classmethod
    def of(cls, items: Sequence[Item], rows: Sequence[int]) -> Pool | None:
        """Build a pool of some clips; ``None`` if there are none.

        Args:
            items: all clips.
            rows: positions of those that belong to the pool.
        """
        corpora: dict[str, dict[str, list[int]]] = {}
        for row in rows:
            item = items[row]
            speakers = corpora.setdefault(item.corpus, {})
            speakers.setdefault(item.speaker or f"clip:{item.id}", []).append(row)
        if not corpora:
            return None
        clips = [clips for speakers in corpora.values() for clips in speakers.values()]
        corpus_start, corpus_count = _spans([len(speakers) for speakers in corpora.values()])
        speaker_start, speaker_count = _spans([len(c) for c in clips])
        flat = np.array([row for c in clips for row in c], dtype=np.int64)
        return cls(corpus_start, corpus_count, speaker_start, speaker_count, flat)

    def speakers(self, rng: np.random.Generator, count: int) -> Rows:
        """(count,) speakers; those of one corpus repeat only when all of them were drawn."""
        corpora = _uniform(rng, np.full(count, len(self.corpus_start)))
        drawn = np.empty(count, dtype=np.int64)
        for corpus in np.unique(corpora):
            where = np.flatnonzero(corpora == corpus)
            size = int(self.corpus_count[corpus])
            rounds = [rng.permutation(size) for _ in range(-(-len(where) // size))]
            drawn[where] = self.corpus_start[corpus] + np.concatenate(rounds)[: len(where)]
        return drawn

    def clips(self, rng: np.random.Generator, speakers: Rows) -> Rows:
        """(n,) one clip of each speaker."""
        places = self.speaker_start[speakers] + _uniform(rng, self.speaker_count[speakers])
        return self.rows.take(places)

    def draw(self, rng: np.random.Generator, count: int) -> Rows:
        """(count,) clips, drawn independently."""
        corpora = _uniform(rng, np.full(count, len(self.corpus_start)))
        speakers = self.corpus_start[corpora] + _uniform(rng, self.corpus_count[corpora])
        return self.clips(rng, speakers)


ByGender = Mapping[int, Pool]


def pools(items: Sequence[Item], rows: Sequence[int], genders: NDArray[np.int64]) -> ByGender:
    """One pool for each gender that occurs among some clips.

    Args:
        items: all clips.
        rows: positions of those that belong to the role.
        genders: (items,) gender codes.
    """
    built = {g: Pool.of(items, [row for row in rows if genders[row] == g]) for g in (0, 1)}
    return {g: pool for g, pool in built.items() if pool is not None}


def balanced_genders(rng: np.random.Generator, available: Sequence[int], count: int) -> Rows:
    """(count,) gender codes in random order, each as often as the others, the odd one at random."""
    order = rng.permutation(np.asarray(available, dtype=np.int64))
    return rng.permutation(np.resize(order, count))


def draw_rows(rng: np.random.Generator, source: ByGender, genders: Rows) -> Rows:
    """(B,) a clip of each row's gender, drawn independently."""
    drawn = np.full(len(genders), UNKNOWN, dtype=np.int64)
    for gender, pool in source.items():
        where = np.flatnonzero(genders == gender)
        drawn[where] = pool.draw(rng, len(where))
    return drawn


def draw_others(rng: np.random.Generator, source: ByGender, genders: Rows, taken: Rows) -> Rows:
    """As :func:`draw_rows`, but another clip than ``taken`` (B,) unless the pool has only one."""
    drawn = draw_rows(rng, source, genders)
    for row in np.flatnonzero(drawn == taken):
        choices = source[int(genders[row])].rows
        others = choices[choices != taken[row]]
        if len(others):
            drawn[row] = rng.choice(others)
    return drawn


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Where a row's two references come from: a speaker with both, or a face beside a voice.

    Args:
        pairs: clips with face and voice.
        faces, voices: what rows without a pair draw from; both empty if every clip is a pair, one
            of them empty if the stores have no clip of that side at all.
    """

    pairs: ByGender
    faces: ByGender
    voices: ByGender

    def draw(self, rng: np.random.Generator, genders: Rows) -> tuple[Rows, Rows, NDArray[np.bool_]]:
        """Draw both references of each row.

        Args:
            rng: the generator of this role.
            genders: (B,) target genders.

        Returns:
            Clips of the face and of the voice, (B,) each, -1 on a missing side, and whether they
            are one speaker. The two clips of a pair are drawn separately; both kinds of row are
            equally likely where both exist.
        """
        chance = rng.random(len(genders))
        face, voice = np.full((2, len(genders)), UNKNOWN, dtype=np.int64)
        paired = np.zeros(len(genders), dtype=np.bool_)
        for gender in np.unique(genders).tolist():
            here = genders == gender
            apart = gender in self.faces or gender in self.voices
            share = (0.5 if apart else 1.0) if gender in self.pairs else 0.0
            together = np.flatnonzero(here & (chance < share))
            if len(together):
                pool = self.pairs[gender]
                speakers = pool.speakers(rng, len(together))
                face[together] = pool.clips(rng, speakers)
                voice[together] = pool.clips(rng, speakers)
                paired[together] = True
            alone = np.flatnonzero(here & (chance >= share))
            if len(alone):
                if gender in self.faces:
                    face[alone] = self.faces[gender].draw(rng, len(alone))
                if gender in self.voices:
                    voice[alone] = self.voices[gender].draw(rng, len(alone))
        return face, voice, paired


def _uniform(rng: np.random.Generator, counts: Rows) -> Rows:
    """One integer below each count."""
    return np.floor(rng.random(len(counts)) * counts).astype(np.int64)


def _spans(counts: Sequence[int]) -> tuple[Rows, Rows]:
    """Starts and lengths of consecutive groups."""
    lengths = np.asarray(counts, dtype=np.int64)
    return np.cumsum(lengths) - lengths, lengths
