"""The three small networks, F0, content and vocoder: trained, kept on disk, found again (A28).

The F0 and the content network stay frozen while the eight modules are trained; the vocoder makes
converted spectrograms audible. All three have one loop. A run's own networks lie in
`<run_root>/auxiliary/<network>_<key>/`, those that come with the package in `xfavot/weights/`; both
are the same kind of file. A network that saw other mel statistics in training than a run has is
loaded with an affine map in front of it, one factor and shift a band.

Lineage (dossier, section 7): 0.1 SmoothL1 of F0 in Hz plus cross-entropy of silence, here that of
the classes of pitch plus that of voicing; CTC plus an attention decoder, here CTC alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xfavot import __version__, weights
from xfavot.audio.mel import MEL, Standardiser, require_contract
from xfavot.audio.source_filter import NAME as SOURCE_FILTER
from xfavot.audio.source_filter import SourceFilterNetwork, SourceFilterVocoder
from xfavot.config import VOCODER, RunConfig, key_of
from xfavot.data import corpora
from xfavot.data.prepare import open_or_make_mini
from xfavot.data.store import Store
from xfavot.errors import CheckpointError, DataError, TrainingError, WeightsError
from xfavot.files import whole
from xfavot.models import device_of
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.pretrained import SpeechEncoder
from xfavot.training import speech
from xfavot.training import vocoder as vocoding
from xfavot.training.speech import Clip
from xfavot.weights import recorded

Log = Callable[[Mapping[str, Any]], None]

# The loop, and what each network learns from


WARMUP_SHARE = 0.1  # of the steps, linear
FINAL_SHARE = 0.02  # of the rate, reached along a cosine
GRADIENT_NORM = 5.0
SAVE_EVERY = 250  # steps of the vocoder's training


class Recipe(NamedTuple):
    """How one of the networks is trained."""

    version: int  # raise it when the training changes
    needs: str  # label of a clip
    learns_from: str  # the same in words
    weight_decay: float = 1.0e-4
    beta2: float = 0.999
    lines: int = 20  # records of progress a training
    file: str = "model"


RECIPES = {
    "f0": Recipe(3, "f0", "speech"),
    "content": Recipe(3, "transcript", "a transcript in the letters a to z"),
    VOCODER: Recipe(2, "f0", "speech of 0.8 s", 1.0e-2, 0.99, 40, SOURCE_FILTER),
}


def train(
    name: str,
    cfg: RunConfig,
    stores: Sequence[Store],
    standardiser: Standardiser,
    *,
    on_log: Log = lambda record: None,
    resume: Path | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Train one of the three networks on the stores' train split.

    Args:
        name: "f0", learning from WORLD's labels, "content", from transcripts, or "vocoder".
        cfg: widths, length, batch size, rate, seed and device; what is drawn for a batch is the
            same on every device.
        stores: prepared stores; clips without the label needed do not count.
        standardiser: mel statistics of the run.
        on_log: called some 20 times with network, step, steps and the terms of the loss.
        resume: of the vocoder: file that keeps the state every 250 steps and is gone on from if it
            exists; the end is the same, bit for bit.

    Returns:
        The network, frozen, on the CPU, and what is known of it: `training` (data, schedule,
        seconds, losses by step) and `measures` on clips that were not trained on.

    Raises:
        DataError: no training clip has speech, or a transcript.
        TrainingError: the loss is not finite, or the state cannot be written.
        CheckpointError: the resume file is damaged or of another training.
    """
    recipe, clips, schedule = RECIPES[name], _clips(name, stores), _schedule(name, cfg)
    steps, seed, device = schedule["steps"], schedule["seed"], device_of(cfg.train.device)
    so_far: dict[str, Any] = {"step": 0, "losses": [], "wall_s": 0.0}
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network, judges, losses = _lesson(name, cfg, clips, standardiser.to("cpu"))
        network.to(device).train()
        judges.to(device)
        learners = nn.ModuleList((network, judges))
        optimizer = torch.optim.AdamW(
            learners.parameters(), betas=(0.9, recipe.beta2), weight_decay=recipe.weight_decay
        )
        settings = schedule | {"clips": len(clips)}
        if resume is not None and resume.is_file():
            so_far = _restore(resume, learners, optimizer, settings)
        began = time.time() - so_far["wall_s"]
        for step in range(so_far["step"] + 1, steps + 1):
            optimizer.param_groups[0]["lr"] = rate(step, steps=steps, lr=schedule["lr"])
            terms = losses(step=step)
            if not bool(torch.isfinite(terms["loss"])):
                raise TrainingError(
                    f"{name} network: the loss is {terms['loss'].detach():g} at step {step}; "
                    f"expected a finite number; lower pretrain.{name}_lr"
                )
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(terms["loss"])
            nn.utils.clip_grad_norm_(learners.parameters(), GRADIENT_NORM)
            optimizer.step()
            if step % max(1, steps // recipe.lines) == 0 or step == steps:
                said = {key: float(value.detach()) for key, value in terms.items()}
                so_far["losses"].append({"step": step, **said})
                on_log({"network": name, "step": step, "steps": steps, **said})
            so_far |= {"step": step, "wall_s": time.time() - began}
            if resume is not None and (step % SAVE_EVERY == 0 or step == steps):
                _save(resume, learners, optimizer, {"settings": settings, "so_far": so_far})
    if name == VOCODER:  # measured as it is kept, in half precision
        network.load_state_dict({k: v.half().float() for k, v in network.state_dict().items()})
    network.requires_grad_(False).eval()
    if name == VOCODER:
        measures = vocoding.vocoder_measures(SourceFilterVocoder(network), stores)
    else:
        measures = speech.measures(name, network, stores, standardiser.to("cpu"))
    training = {
        "software": f"xfavot {__version__}",
        "data": {
            store.corpus: _data(store, used)
            for store in stores
            if (used := [clip for clip in clips if clip.store is store])
        },
        "schedule": schedule,
        "wall_s": round(so_far["wall_s"]),
        "losses": so_far["losses"],
    }
    return network.to("cpu"), {"training": training, "measures": measures}


def _clips(name: str, stores: Sequence[Store]) -> list[Clip]:
    """The training clips with the label that a network needs, at least one."""
    clips = speech.clips_of(stores, "train", needs=RECIPES[name].needs)
    if name == VOCODER:
        clips = [clip for clip in clips if clip.item.frame_count >= vocoding.CROP_FRAMES]
    if not clips:
        listed = ", ".join(store.corpus for store in stores) or "no store"
        raise DataError(
            f"the {name} network has no training clip with {RECIPES[name].learns_from} in "
            f"{listed}; expected at least one; prepare mini into the same data root with papermill "
            f"notebooks/prepare_data.ipynb out.ipynb -p dataset mini. {_left_out(name, stores)}"
        )
    return clips


def _left_out(name: str, stores: Sequence[Store]) -> str:
    return speech.left_out(stores, "train") if name == "content" else ""


def _schedule(name: str, cfg: RunConfig) -> dict[str, Any]:
    """What of a run's settings decides how a network is trained."""
    p = cfg.pretrain
    known = {
        "steps": getattr(p, f"{name}_steps"),
        "lr": getattr(p, f"{name}_lr"),
        "batch_size": p.batch_size,
        "seed": cfg.seed,
    }
    if name == VOCODER:
        known |= {"batch_size": p.vocoder_batch_size, "adversary": p.vocoder_adversary}
    return known


def _lesson(
    name: str, cfg: RunConfig, clips: Sequence[Clip], on: Standardiser
) -> tuple[Any, nn.Module, Callable[..., dict[str, Tensor]]]:
    """A network, untrained, its judges, if any, and their losses in a `step`, "loss" among them."""
    drawn = {k: v for k, v in _schedule(name, cfg).items() if k in ("batch_size", "seed")}
    network: Any
    loss: Callable[..., dict[str, Tensor]]
    batch: Callable[..., tuple[Tensor, ...]]
    if name == VOCODER:
        network, weight = SourceFilterNetwork(standardiser=on), cfg.pretrain.vocoder_adversary
        judges = vocoding.Judges() if weight else None
        losses = partial(vocoding.losses, network, clips, judges=judges, weight=weight, **drawn)
        return network, judges or nn.ModuleList(), losses
    if name == "content":
        network, loss = ContentNetwork.from_config(cfg.model), speech.content_loss
        teacher = SpeechEncoder(cfg.pretrain.teacher) if cfg.pretrain.teacher else None
        batch = partial(speech.content_batch, clips, teacher=teacher, **drawn)
    else:
        network, loss = F0Network.from_config(cfg.model), speech.f0_loss
        network.to(memory_format=torch.channels_last)  # a fifth faster
        versions = speech.Versions(clips, seed=cfg.seed)
        batch = partial(speech.f0_batch, versions, frames=cfg.model.mel_frames, **drawn)
    return network, nn.ModuleList(), lambda step: loss(network, on, *batch(step=step))


def rate(step: int, *, steps: int, lr: float) -> float:
    """Return the learning rate of a step (from 1): a linear rise, then a cosine fall."""
    rise = max(1, round(WARMUP_SHARE * steps))
    if step <= rise:
        return lr * step / rise
    done = (step - rise) / max(1, steps - rise)
    return lr * (FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))


def _save(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, rest: Mapping[str, Any]
) -> None:
    """Write the state whole."""
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), **rest}
    try:
        with whole(path) as draft:
            torch.save(state, draft)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as the latter
        raise TrainingError(
            f"{path}: cannot be written ({error}); expected room for 25 MB; free some space"
        ) from error


def _restore(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Load the state; return step, losses and seconds so far."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["settings"] != settings:
            raise ValueError(f"it is of another training, {state['settings']}")
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        return dict(state["so_far"])
    except Exception as error:  # a damaged file raises nearly anything
        raise CheckpointError(
            f"{path} cannot be read ({error}); expected the state of {settings}; remove it"
        ) from error


def _data(store: Store, clips: Sequence[Clip]) -> dict[str, Any]:
    """What of a store was trained on, and what was left out."""
    used = [clip.item for clip in clips]
    speakers = {item.speaker for item in used}
    unused = {item.speaker for item in store.items if item.frame_count} - speakers - {""}
    return {
        "licence": corpora.describe(store.corpus).licence,
        "manifest": store.manifest_hash,
        "clips": len(used),
        "speakers": len(speakers),
        "minutes": round(sum(item.sample_count for item in used) / MEL.sample_rate / 60, 2),
        "held_out_speakers": sorted(unused),
        "held_out_clips": sum(item.split != "train" for item in store.items),
    }


# Where the networks are kept


SCHEMA = 2
NETWORKS: dict[str, Callable[..., nn.Module]]
NETWORKS = {"f0": F0Network, "content": ContentNetwork, SOURCE_FILTER: SourceFilterNetwork}
FALLBACK_CORPUS = "mini"
MIN_TRANSCRIBED = 100  # training clips; with fewer, mini joins in


class Trained(NamedTuple):
    """A trained network: what is known of it, and where it is kept."""

    network: Any  # of NETWORKS
    record: dict[str, Any]  # its "measures" are on clips that it was not trained on
    path: Path


def in_words(metrics: Mapping[str, float], *, whole_splits: bool = False) -> str:
    """Say measures in one line: all, or those of the held-out splits as a whole."""
    some = {k: v for k, v in metrics.items() if k.count("/") == 1 or not whole_splits}
    shown = [f"{k} {v:.{0 if k.endswith('clips') else 3}f}" for k, v in some.items()]
    return ", ".join(shown) or "no clip held out to measure it on"


def load_network(path: Path | str, standardiser: Standardiser | None = None) -> Trained:
    """Load a network that was kept, or that comes with the package.

    Args:
        path: the safetensors file.
        standardiser: mel statistics under which an F0 or content network will be used; left out,
            those it was trained with.

    Returns:
        The network on the CPU, frozen, with the record of its training.

    Raises:
        WeightsError: the file is missing or damaged.
        DataError: the network was trained on another mel-spectrogram.
    """
    require_contract(recorded.read(path, NETWORKS)["contract"], where=str(path))
    network, record = recorded.load(path, NETWORKS)
    if standardiser is not None and isinstance(network, F0Network | ContentNetwork):
        own, its = (torch.tensor(record["standardiser"][name]) for name in ("mean", "std"))
        network.input_scale.copy_(standardiser.std.cpu() / its)
        network.input_shift.copy_((standardiser.mean.cpu() - own) / its)
    return Trained(network, record, Path(path))


def ensure_network(
    name: str,
    cfg: RunConfig,
    stores: Sequence[Store],
    standardiser: Standardiser,
    on_log: Log = lambda record: None,
) -> Trained:
    """Load one of the three networks, or train it and keep it in `<run_root>/auxiliary/`.

    Where the run's own stores have few transcripts, the prepared corpus `mini` in `cfg.data_root`
    joins in for the content network; it is made where they have none at all.

    Args:
        name: "f0", "content" or "vocoder"; a vocoder that ships is not looked for.
        cfg: run_root, seed, model widths, `pretrain` and `train.device` are read.
        stores: prepared stores of the run.
        standardiser: mel statistics of the run.
        on_log: receives records of progress: network, step, steps and terms, or a message.

    Returns:
        The network on the CPU, frozen.

    Raises:
        DataError: no speech to train on, or no transcripts for the content network.
        WeightsError: the kept files are damaged, the corpus `mini` cannot stand in, or
            `pretrain.source` is "shipped" and no network of these widths comes with the package.
        TrainingError: the loss is not finite, or the network cannot be written.
        CheckpointError: the state of a stopped training of the vocoder is damaged.
    """

    def say(message: str) -> None:
        if message:
            on_log({"message": message})

    p, ready, sizes = cfg.pretrain, None, dict[str, int]()
    taught = name == "content" and bool(p.teacher)
    if name != VOCODER:
        with torch.device("meta"):
            sizes = (F0Network if name == "f0" else ContentNetwork).from_config(cfg.model).sizes
        if p.source != "train" and not taught:
            shipped = load_network(weights.shipped(name), standardiser)
            ready = shipped if shipped.record["arguments"] == sizes else None
        if p.source == "shipped" and ready is None:
            raise WeightsError(
                f"pretrain.source is 'shipped', but no {name} network of {sizes} comes with the "
                "package; expected the widths of preset mini, without pretrain.teacher; set "
                "pretrain.source to auto"
            )
    stores = [store for store in stores if any(item.frame_count for item in store.items)]
    if name == "content":
        stores += _fallback(cfg, stores, say, make=ready is None)
    recipe: dict[str, Any] = {  # all that the weights follow from; its hash names the folder
        "schema": SCHEMA,
        "recipe": RECIPES[name].version,
        "network": name,
        "contract": MEL.as_dict(),
        "crop_frames": cfg.model.mel_frames if name == "f0" else 0,
        "schedule": _schedule(name, cfg),
        "manifests": {store.corpus: store.manifest_hash for store in stores},
        "standardiser": {"mean": standardiser.mean.tolist(), "std": standardiser.std.tolist()},
    } | ({"arguments": sizes} if sizes else {})
    if taught:
        recipe["teacher"] = p.teacher
    folder = Path(cfg.run_root) / "auxiliary" / f"{name}_{key_of(recipe)}"
    path, state = folder / f"{RECIPES[name].file}.safetensors", folder / "state.pt"
    kept = path.is_file()
    if ready is not None and (p.source == "shipped" or not kept):
        measures = in_words(ready.record["measures"], whole_splits=True)
        say(f"{name} network that comes with the package: {measures}")
        return ready
    if not kept:
        say(_left_out(name, stores))
        goes_on = state if name == VOCODER else None
        network, record = train(name, cfg, stores, standardiser, on_log=on_log, resume=goes_on)
        if name == VOCODER:
            record |= {"network": SOURCE_FILTER, "arguments": network.sizes}
        recorded.write(path, network, {**recipe, **record}, half=name == VOCODER)
        state.unlink(missing_ok=True)
    trained = load_network(path)
    measures = in_words(trained.record["measures"], whole_splits=True)
    say(f"{name} network {'found' if kept else 'kept'} in {folder}: {measures}")
    return trained


def _fallback(
    cfg: RunConfig, stores: Sequence[Store], say: Callable[[str], None], *, make: bool
) -> list[Store]:
    """The corpus `mini` where the run's own transcripts are few; see :func:`ensure_network`.

    It is made only where there is no transcript and `make` asks for it: no other network is ready.
    """
    own = len(speech.clips_of(stores, "train", needs="transcript"))
    there = Path(cfg.data_root, FALLBACK_CORPUS, "store.json").is_file()
    enough = own >= MIN_TRANSCRIBED or any(store.corpus == FALLBACK_CORPUS for store in stores)
    if enough or (not there and (own > 0 or not make)):
        return []
    try:
        mini = open_or_make_mini(cfg.data_root, (FALLBACK_CORPUS,), say)
    except DataError as error:
        raise WeightsError(
            f"the content network has no transcript to learn from, and the corpus "
            f"{FALLBACK_CORPUS} cannot stand in: {error}"
        ) from error
    if make:
        say(f"content network: {own} training clips have a transcript; {FALLBACK_CORPUS} joins in")
    return mini
