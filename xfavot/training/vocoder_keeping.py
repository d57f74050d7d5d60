"""Where a trained vocoder is kept, and how it is found again (A28).

`<run_root>/auxiliary/vocoder_<key>/` holds `source_filter.safetensors`, whose header says all that
is known of it; until the training is done it holds `state.pt` instead, from which a stopped
training goes on. The key hashes everything that the weights follow from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xfavot import __version__
from xfavot.audio.mel import MEL, Standardiser
from xfavot.audio.source_filter_vocoder import SourceFilterVocoder, read_record, save_weights
from xfavot.config import RunConfig
from xfavot.data import corpora
from xfavot.data.manifest import Store
from xfavot.identity import key_of
from xfavot.training.labels import Clip
from xfavot.training.measures import in_words
from xfavot.training.supervised import Log
from xfavot.training.vocoding import Training, train_source_filter, training_clips

RECIPE = 1  # raise when training changes, so that kept weights are not taken for new ones
WEIGHTS, STATE = "source_filter.safetensors", "state.pt"
SECONDS_A_MINUTE = 60


@dataclass(frozen=True, slots=True)
class KeptVocoder:
    """A trained vocoder, where it is kept, and what the header of its weights says."""

    vocoder: SourceFilterVocoder
    path: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, float]:
        """Measures on clips not trained on; see `vocoding.py`."""
        return dict(self.record["measures"])

    def losses(self) -> list[dict[str, float]]:
        """Records of the training: step, score, pitch, voicing."""
        return list(self.record["training"]["losses"])

    def summary(self) -> str:
        """Say the measures in one line."""
        return in_words(self.metrics)


def ensure_vocoder(
    cfg: RunConfig, stores: Sequence[Store], standardiser: Standardiser, on_log: Log | None = None
) -> KeptVocoder:
    """Load the vocoder of a run, or train it (or go on training it) and keep it.

    Args:
        cfg: run_root, seed, `pretrain` and `train.device` are read.
        stores: prepared stores of the run.
        standardiser: mel statistics of the run.
        on_log: receives records of progress: network, step, steps and terms, or a message.

    Raises:
        DataError: no training clip is long enough.
        TrainingError: the loss is not finite, or a file cannot be written.
        CheckpointError: the state of a stopped training is damaged.
        WeightsError: the kept weights are damaged.
    """
    clips, p = training_clips(stores), cfg.pretrain
    schedule: dict[str, Any] = {"steps": p.vocoder_steps, "lr": p.vocoder_lr}
    schedule |= {"batch_size": p.vocoder_batch_size, "seed": cfg.seed}
    used = [store for store in stores if any(clip.store is store for clip in clips)]
    recipe = {
        "recipe": RECIPE,
        "contract": MEL.as_dict(),
        "schedule": schedule,
        "manifests": {store.corpus: store.manifest_hash for store in used},
        "standardiser": [standardiser.mean.tolist(), standardiser.std.tolist()],
    }
    key = key_of(recipe)
    folder = Path(cfg.run_root) / "auxiliary" / f"vocoder_{key}"
    path, state = folder / WEIGHTS, folder / STATE
    found = path.is_file()
    if not found:
        from xfavot.training.stores import pick_device

        done = train_source_filter(
            used, standardiser=standardiser, device=pick_device(cfg.train.device), on_log=on_log,
            resume=state, **schedule,
        )  # fmt: skip
        keep(path, done, clips, used, schedule)
        state.unlink(missing_ok=True)
    kept = load_kept(path)
    if on_log is not None:
        verb = "found" if found else "kept"
        on_log({"message": f"vocoder {verb} in {folder}: {kept.summary()}"})
    return kept


def keep(
    path: Path,
    done: Training,
    clips: Sequence[Clip],
    stores: Sequence[Store],
    schedule: Mapping[str, Any],
) -> None:
    """Write the weights with a record of their training.

    Args:
        path: file `*.safetensors`.
        done: the training.
        clips: what it was trained on.
        stores: where these lie.
        schedule: steps, lr, batch_size, seed.

    Raises:
        TrainingError: the file cannot be written.
    """
    training = {
        "software": f"xfavot {__version__}",
        "data": {store.corpus: _data(store, clips) for store in stores},
        "schedule": dict(schedule),
        "cpu_s": round(done.cpu_s),
        "wall_s": round(done.wall_s),
        "losses": done.losses,
    }
    save_weights(done.network, path, {"training": training, "measures": done.measures})


def load_kept(path: Path | str) -> KeptVocoder:
    """Open the weights of a vocoder with their record.

    Raises:
        WeightsError, DataError: as in :meth:`SourceFilterVocoder.load`.
    """
    return KeptVocoder(SourceFilterVocoder.load(path), Path(path).parent, read_record(path))


def _data(store: Store, clips: Sequence[Clip]) -> dict[str, Any]:
    """What of a store was trained on, and what was left out."""
    used = [clip.item for clip in clips if clip.store is store]
    speakers = {item.speaker for item in used}
    unseen = {item.speaker for item in store.items if item.split == "unseen"}
    samples = sum(item.sample_count for item in used)
    return {
        "licence": corpora.describe(store.corpus).licence,
        "manifest": store.manifest_hash,
        "clips": len(used),
        "speakers": len(speakers),
        "minutes": round(samples / MEL.sample_rate / SECONDS_A_MINUTE, 2),
        "held_out_speakers": sorted(unseen - speakers - {""}),
        "held_out_clips": sum(item.split != "train" for item in store.items),
    }
