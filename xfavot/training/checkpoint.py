"""Checkpoints: a folder with all weights, optimisers and the exact state, written atomically.

``checkpoints/step_00000100/`` holds ``model.safetensors`` (what is trained), ``ema.safetensors``
(averages of G, E, M), ``f0.safetensors`` and ``content.safetensors`` (frozen), ``optimizer.pt``
(tensors and plain values only) and ``state.json``. The model that comes with the package has
neither averages of their own nor optimisers (:func:`export`). Every random choice of training is a
function of (seed, step), so the step is the whole state of the random generators. Nothing in a
checkpoint is ever executed.
"""

from __future__ import annotations

import filecmp
import json
import math
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, compress
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from xfavot import __version__, weights
from xfavot.audio.mel import MEL, Standardiser, require_contract
from xfavot.config import GENERATOR_SIDE, RunConfig, config_id, from_dict, key_of, to_dict
from xfavot.data.batches import Batches
from xfavot.data.store import GENDERS, Store, voiced_speakers
from xfavot.errors import CheckpointError, DataError, import_optional, refusing
from xfavot.fetch import OFFLINE, checksum_of, is_offline
from xfavot.files import whole_folder, write_whole
from xfavot.models.content import ContentNetwork
from xfavot.models.f0 import F0Network
from xfavot.models.xfavot import XFaVoT, part_of
from xfavot.parameters import SHIPPED
from xfavot.training.step import Updater, listeners

Modules = Mapping[str, nn.Module]  # by the names of their files
Optimizers = Mapping[str, Optimizer]

SCHEMA = 2  # 2: the F0 network reads pitch by classes
STATE, OPTIMIZER, CARD = "state.json", "optimizer.pt", "README.md"
HUB = (
    "expected owner/name of a model that push_to_hub wrote and that you may see; correct the name, "
    "log in with `hf auth login`, or try again when the network is there"
)
OLDER = "use an older checkpoint"
ROOM = "expected a folder that may be written, with room; free some space, or name another"
UNWRITTEN = (OSError, SafetensorError)
KINDS = {"step": int, "data": str, "config": dict, "speakers": list}  # of entries of a state
KINDS |= {"mel_mean": list, "mel_std": list}
MOST_DEPTH = 100  # of a content network
COUNTED = ("G_I", "G_A", "E_I", "E_A", "M", "C_A")  # modules whose samples are counted
MODULE_OF = {"face": "E_I", "voice": "E_A", "latent": "M"}  # where a style comes from
MAY_DIFFER_ON_RESUME = (
    *("name", "data_root", "run_root", "steps", "schedule_steps", "device", "checkpointing"),
    *("log_every", "sample_every", "checkpoint_every", "keep_checkpoints"),
    *("vocoder_steps", "vocoder_lr", "vocoder_batch_size", "vocoder_adversary"),
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A checkpoint opened for conversion: averaged G, E, M; the rest as trained.

    `trained`: how many samples have trained each head of a module: "G_I", "G_A" (one number each),
    "E_I", "E_A" (f, m), "M" and "C_A" (f, m, then the speakers); ``None`` where a checkpoint of an
    older version did not count, which lets everything pass for trained.
    """

    nets: XFaVoT
    f0: F0Network
    content: ContentNetwork
    standardiser: Standardiser
    config: RunConfig
    speakers: tuple[str, ...]
    step: int
    path: Path
    trained: Mapping[str, list[int]] | None = None

    @property
    def title(self) -> str:
        """What results call it: the run, or else the configuration, and the step."""
        return f"{self.config.name or self.config.configuration} at step {self.step}"

    def trained_genders(self, guidance: str) -> tuple[str, ...]:
        """The genders, of "f" and "m", that guidance by "face", "voice" or "latent" has learnt.

        Only these may be asked for, estimated or evaluated.
        """
        return tuple(compress(GENDERS, self._counts(MODULE_OF[guidance])))

    def trained_speakers(self) -> tuple[str, ...]:
        """The speakers whose heads of M have learnt."""
        return tuple(compress(self.speakers, self._counts("M")[len(GENDERS) :]))

    def trained_outputs(self) -> tuple[str, ...]:
        """What has been learnt to be converted, of "face" and "voice"."""
        learnt = [
            modality in self.config.train.modalities and self._counts(name)[0]
            for modality, name in (("image", "G_I"), ("audio", "G_A"))
        ]
        return tuple(compress(("face", "voice"), learnt))

    def estimates_gender(self) -> bool:
        """Whether C_A has learnt to tell the genders of voices apart."""
        return all(self._counts("C_A")[: len(GENDERS)])

    def _counts(self, module: str) -> list[int]:
        if not hasattr(self.nets, module):
            return [0] * len(GENDERS)
        return [1] * self.nets.M.domains if self.trained is None else self.trained[module]


def folder_of(run: Path, step: int) -> Path:
    """Folder of the checkpoint of a step in a run."""
    return run / "checkpoints" / f"step_{step:08d}"


def checkpoints_of(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    return sorted(p.parent for p in (run / "checkpoints").glob(f"step_*/{STATE}"))


def cpu_seconds(run: Path) -> dict[Path, float]:
    """CPU seconds of training until each checkpoint of a run, oldest first, or until one given.

    Raises:
        CheckpointError: there is none, one is damaged, or does not say it.
    """
    states = {path: read_state(path) for path in checkpoints_of(run) or [locate(run)]}
    if dumb := [path.name for path, state in states.items() if "cpu_s" not in state]:
        raise CheckpointError(
            f"{dumb[0]} of {run} does not say what CPU time it took: an older version wrote it, or "
            "what it goes on from; expected a run that this version trained from its first step"
        )
    return {path: state["cpu_s"] for path, state in states.items()}


def locate(path: Path | str) -> Path:
    """A checkpoint's folder, given it, its run's folder or a folder of runs; of these the newest.

    A run named "shipped" is made of the model that comes with the package, if it is not there or an
    older version's (which becomes `shipped_<sha256>`, with all that was made of it); all others
    count as newer.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if path.name == SHIPPED and (weights.MODEL / STATE).exists():
        _unpack(path)
    if (path / STATE).exists() or path.name.startswith("step_"):
        return path
    every = (p.parent for p in path.glob(f"*/checkpoints/step_*/{STATE}"))

    def age(folder: Path) -> tuple[bool, float]:
        return folder.parents[1].name.partition("_")[0] != SHIPPED, (folder / STATE).stat().st_mtime

    found = checkpoints_of(path) or sorted(every, key=age)
    if not found:
        raise CheckpointError(
            f"no checkpoint under {path}; expected <run>/checkpoints/step_*/; "
            "train one with notebooks/train.ipynb or name another folder"
        )
    return found[-1]


def pretrained(name: Path | str = SHIPPED, *, revision: str = "") -> Path:
    """The folder of a checkpoint by its name, fetched from the Hugging Face hub if it is there.

    Args:
        name: "shipped", the model that comes with the package; a folder, as :func:`locate` takes
            it; or "owner/name" of a model on the hub, where no such folder is. Of the hub nothing
            but safetensors and `state.json` is fetched; ``XFAVOT_OFFLINE=1`` takes what is here.
        revision: of the hub: a branch, a tag or a commit; empty means the newest.

    Raises:
        CheckpointError: there is none, or it cannot be fetched.
        DataError: huggingface_hub is not installed.
    """
    text = str(name)
    if text == SHIPPED and not Path(name).exists():
        if not (weights.MODEL / STATE).exists():
            raise CheckpointError(
                "no model comes with this copy of the package; expected the folder of a run, or "
                "owner/name on the hub; train one with notebooks/train.ipynb"
            )
        return weights.MODEL
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text) or Path(name).parent.is_dir():
        return locate(name)
    hub = import_optional("huggingface_hub", extra="hub", purpose=f"fetching {text} from the hub")
    with refusing(Exception, CheckpointError, f"{text} could not be fetched from the hub", HUB):
        wanted = {"allow_patterns": ["*.safetensors", STATE], "local_files_only": is_offline()}
        return Path(hub.snapshot_download(text, revision=revision or None, **wanted))


def publish(path: Path, repository: str, *, licence: str, private: bool = True) -> str:
    """Send a checkpoint to the Hugging Face hub as the package ships it, with a model card.

    Args:
        path: of the checkpoint; a `README.md` beside its files is its card.
        repository: "owner/name"; it is made if it is not there.
        licence: of the weights, which the data decide, as the hub names it: "cc-by-4.0", "other".
        private: of a repository that is made.

    Returns:
        Its address.

    Raises:
        CheckpointError: it could not be sent.
        DataError: huggingface_hub is not installed.
    """
    if is_offline():
        raise CheckpointError(f"{OFFLINE} forbids connections; unset it to send to {repository}")
    hub = import_optional("huggingface_hub", extra="hub", purpose="sending a model to the hub")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "model")
        export(path, folder, name=repository.rpartition("/")[2])
        if not (folder / CARD).exists():
            known = read_state(folder)
            facts = {
                **known["config"],
                **known["config"]["data"],
                **known,
                "people": len(known["speakers"]),
            }
            card = Template(Path(__file__).with_name("model_card.md").read_text("utf-8"))
            told = card.substitute(facts, repository=repository, licence=licence)
            write_whole(folder / CARD, told)
        with refusing(Exception, CheckpointError, f"{repository} could not be written", HUB):
            api = hub.HfApi(library_name="xfavot", library_version=__version__)
            address = str(api.create_repo(repository, private=private, exist_ok=True))
            said = f"Checkpoint of step {read_state(folder)['step']}"
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message=said)
    return address


def save(
    run: Path, updater: Updater, batches: Batches, *, step: int, cpu_s: float | None = None
) -> Path:
    """Write the checkpoint of a step; the folder appears complete or not at all.

    Args:
        run: the run's folder.
        updater: networks, averages and optimisers.
        batches: of training, which know the speakers and the prepared stores.
        step: number of finished steps.
        cpu_s: CPU seconds that the training has taken, of its first process; ``None`` if unknown.

    Returns:
        The checkpoint's folder.

    Raises:
        CheckpointError: it could not be written (a full disk, say); older ones stay as they are.
    """
    known: dict[str, Any] = {"content_depth": getattr(updater.n.content, "depth", 1)}
    if cpu_s is not None:
        known["cpu_s"] = round(cpu_s, 1)
    if updater.trained is not None:
        known["trained"] = {name: counts.tolist() for name, counts in updater.trained.items()}
    state = told(updater.cfg, step, batches) | known
    return write(run, state, _modules(updater), _optimizers(updater))


def told(cfg: RunConfig, step: int, batches: Batches | None = None) -> dict[str, Any]:
    """What every checkpoint says: the run, the step, and the data, if it was trained here."""
    statistics = batches.standardiser if batches else Standardiser.neutral()
    return {
        "schema": SCHEMA,
        "version": __version__,
        "step": step,
        "config": to_dict(cfg),
        "mel": MEL.as_dict(),
        "mel_mean": statistics.mean.tolist(),
        "mel_std": statistics.std.tolist(),
        "speakers": list(batches.speakers) if batches else [],
        "data": batches.fingerprint if batches else "",
    }


def write(run: Path, state: dict[str, Any], modules: Modules, optimizers: Optimizers) -> Path:
    """Write modules by the names of their files, optimisers and a state; see :func:`save`."""
    step = int(state["step"])
    target = folder_of(run, step)
    if (target / STATE).exists():
        return target
    try:
        with whole_folder(target) as draft:
            for name, module in modules.items():
                flat = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
                save_file(flat, draft / f"{name}.safetensors")
            torch.save({k: o.state_dict() for k, o in optimizers.items()}, draft / OPTIMIZER)
            state["bytes"] = {p.name: p.stat().st_size for p in sorted(draft.iterdir())}
            write_whole(draft / STATE, json.dumps(state, indent=1))
            shutil.rmtree(target, ignore_errors=True)  # without a state: what a removal left
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {target.parent} ({error}); "
            "older checkpoints are untouched; free some space and resume with -p resume auto"
        ) from error
    return target


def export(
    path: Path | str,
    folder: Path,
    *,
    name: str = SHIPPED,
    instead: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Write a checkpoint as the package ships it: in half precision, the averages as the weights.

    Args:
        path: as :func:`locate` takes it; what was written so before may be written again.
        folder: where the files go; there is none yet.
        name: of the model.
        instead: tensors that take the place of those of their names.

    Raises:
        CheckpointError: there is no such checkpoint, or the files cannot be written.
    """
    path = locate(path)
    state = read_state(path)
    roots = {"name": name, "data_root": "data", "run_root": "runs"}
    unwritten = refusing(UNWRITTEN, CheckpointError, f"{folder} could not be written", ROOM)
    with unwritten, whole_folder(folder) as draft:
        for file in ("f0.safetensors", "content.safetensors", CARD):
            if (path / file).exists():
                shutil.copyfile(path / file, draft / file)
        tensors = load_file(path / "model.safetensors")
        if (path / "ema.safetensors").exists():
            tensors |= load_file(path / "ema.safetensors")
            # people of other data may have the same names
            state["speakers"] = [f"{one}@{state['data'][:8]}" for one in state["speakers"]]
        halves = {key: value.half().contiguous() for key, value in {**tensors, **instead}.items()}
        save_file(halves, draft / "model.safetensors")
        (draft / "model.safetensors").chmod(0o644)  # safetensors keeps it from others
        sizes = {p.name: p.stat().st_size for p in sorted(draft.glob("*.safetensors"))}
        trained = {**state["config"]["train"], "initial": ""}  # a path of another machine
        state |= {"config": {**state["config"], **roots, "train": trained}, "bytes": sizes}
        write_whole(draft / STATE, json.dumps(state, indent=1))


def _unpack(run: Path) -> None:
    """Make a run of the model that comes with the package, and move an older version's away."""
    if _stays(run):
        return
    with refusing(UNWRITTEN, CheckpointError, f"{run} could not be written", ROOM):
        run.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(run.with_name(f".{run.name}.lock")):
            if _stays(run):  # by now
                return
            state = read_state(weights.MODEL)
            if run.exists():
                files = _exported(checkpoints_of(run)[0])
                digest = key_of({file.name: checksum_of(file) for file in files})[:8]
                run.rename(run.with_name(f"{run.name}_{digest}"))
            with whole_folder(run) as draft:
                shutil.copytree(weights.MODEL, folder_of(draft, state["step"]))
                write_config(draft, from_dict(state["config"]))


def _exported(folder: Path) -> list[Path]:
    """Record and weights of a model that was exported; not its card."""
    return [folder / STATE, *folder.glob("*.safetensors")]


def _stays(run: Path) -> bool:
    """Whether a run is there that is the package's model, or none of the package's."""
    before = checkpoints_of(run)
    ours = len(before) == 1 and not (before[0] / OPTIMIZER).exists()
    parts = [file.name for file in _exported(weights.MODEL)] if ours else []
    same = ours and len(filecmp.cmpfiles(before[0], weights.MODEL, parts, False)[0]) == len(parts)
    return run.exists() and (not ours or same)


def write_config(run: Path, cfg: RunConfig, **own: Any) -> None:
    """Write what a run is, with the id of its configuration and `own` settings, into its folder."""
    description = {"config_id": config_id(cfg), **to_dict(cfg), **own}
    write_whole(run / "config.json", json.dumps(description, indent=1))


def _modules(updater: Updater) -> dict[str, nn.Module]:
    """What is kept, by the name of its file."""
    n = updater.n
    return {"model": n.nets, "ema": updater.ema, "f0": n.f0, "content": n.content}


def _optimizers(updater: Updater) -> dict[str, Optimizer]:
    """What is kept, by the name of its module."""
    return updater.optimizers | {f"muon/{name}": one for name, one in updater.muons.items()}


def prune(run: Path, *, keep: int, best: int) -> None:
    """Delete all but the newest ``keep`` checkpoints and the one of step ``best``."""
    for folder in checkpoints_of(run)[:-keep]:
        if folder != folder_of(run, best):
            shutil.rmtree(folder)


def read_state(path: Path) -> dict[str, Any]:
    """Read and check a checkpoint's ``state.json`` and the sizes of its files.

    Raises:
        CheckpointError: it is missing, damaged, truncated or of another schema or mel contract.
    """
    try:
        state: dict[str, Any] = json.loads((path / STATE).read_text())
        if state["schema"] != SCHEMA:
            raise ValueError(f"schema {state['schema']}; this version reads {SCHEMA}; train again")
        for name, size in state["bytes"].items():
            got = (path / name).stat().st_size if (path / name).exists() else 0
            if got != size:
                raise ValueError(f"{name} has {got} bytes instead of {size}")
        require_contract(state["mel"], where=f"checkpoint {path}")
        _require_kinds(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, DataError) as error:
        raise CheckpointError(
            f"{path} is no checkpoint, or damaged ({error}); expected a folder such as "
            "<run>/checkpoints/step_00000100; use an older checkpoint of the run"
        ) from error
    return state


def _require_kinds(state: Mapping[str, Any]) -> None:
    """Refuse a state whose entries are not of the kinds that :func:`save` writes."""
    kinds = KINDS if "system" in state else {**KINDS, "content_depth": int}
    wrong = [f"{k} is {state[k]!r:.60}" for k, kind in kinds.items() if type(state[k]) is not kind]
    statistics, counts = state["mel_mean"] + state["mel_std"], state.get("trained", {})
    numbers = [*statistics, *chain.from_iterable(counts.values())]
    if not all(type(one) in (int, float) and math.isfinite(one) for one in numbers):
        wrong.append("a mean, deviation or count is no number")
    named = all(type(name) is str for name in state["speakers"])
    if wrong or not named or len(statistics) != 2 * MEL.n_mels:
        raise ValueError(", ".join(wrong) or "its mel statistics or speakers are not whole")


def load_modules(path: Path, modules: Modules) -> None:
    """Load safetensors into modules by name; every tensor has to be there and to fit.

    Older checkpoints hold modules and heads that their configuration did not train: left out.

    Raises:
        CheckpointError: a file is damaged or of other networks.
    """
    for name, module in modules.items():
        try:
            weights = load_file(path / f"{name}.safetensors")
            module.load_state_dict(part_of(weights, module), strict=True)
        except (RuntimeError, SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{name}.safetensors of {path} does not fit the networks of its configuration "
                f"({error}); use a checkpoint of this configuration"
            ) from error


def load_model(path: Path | str) -> LoadedModel:
    """Open a checkpoint for conversion, on the CPU.

    Args:
        path: a checkpoint's folder, a run's folder (its newest one is taken) or a folder of runs.

    Raises:
        CheckpointError: it is missing, damaged, or of another mel contract.
    """
    path = locate(path)
    state = read_state(path)
    config = from_dict(state["config"])
    if "system" in state:
        raise CheckpointError(
            f"{path} is a checkpoint of the compared system {config.configuration}; expected one "
            "of XFaVoT; name another by -p checkpoint, or open this one by evaluate or baseline"
        )
    _require_room(config, state, path)
    nets, trained = XFaVoT.of_run(config), state.get("trained")
    counted = [name for name in COUNTED if hasattr(nets, name)]
    if trained is not None and (lacking := [name for name in counted if not trained.get(name)]):
        raise CheckpointError(f"{path / STATE} has no counts of {', '.join(lacking)}; {OLDER}")
    f0, content = listeners(config, depth=state["content_depth"])
    averaged = nn.ModuleDict({k: m for k, m in nets.named_children() if k in GENERATOR_SIDE})
    parts = {"model": nets, "ema": averaged, "f0": f0, "content": content}
    load_modules(path, {k: m for k, m in parts.items() if f"{k}.safetensors" in state["bytes"]})
    for module in (nets, f0, content):
        module.requires_grad_(False).eval()
    shared = nets, f0, content, statistics_of(state)
    speakers, step = tuple(state["speakers"]), int(state["step"])
    return LoadedModel(*shared, config, speakers, step, path, trained)


def _require_room(config: RunConfig, state: Mapping[str, Any], path: Path) -> None:
    """Refuse sizes of networks that the files cannot fill, before memory is taken for them."""
    faults = (RuntimeError, TypeError, ValueError, OverflowError)
    with refusing(faults, CheckpointError, f"{path / STATE} is damaged", OLDER):
        if not 0 <= state["content_depth"] < MOST_DEPTH:
            raise ValueError(f"content_depth is {state['content_depth']}")
        with torch.device("meta"):
            listening = zip(
                ("f0", "content"), listeners(config, depth=state["content_depth"]), strict=True
            )
            planned = {"model": XFaVoT.of_run(config), **dict(listening)}
        for name, module in planned.items():
            count = sum(value.numel() for value in module.state_dict().values())
            if count > (size := state["bytes"].get(f"{name}.safetensors", 0)):
                raise ValueError(f"{name} would have {count} numbers, its file has {size} bytes")


# Going on from a checkpoint: is it of this run, and everything back in its place


def to_resume(cfg: RunConfig, *, named: str) -> Path | None:
    """The newest checkpoint that a run goes on from; ``None`` if there is none and it starts.

    A run that was planned for fewer steps is the same run. As the steps are part of its folder's
    name, runs that are alike but for these are looked for beside it, unless it was named by hand.

    Args:
        cfg: the run, with the number of its speakers.
        named: the name that its parameters give (before the speakers were counted).

    Raises:
        CheckpointError: more than one run could go on.
    """
    own = Path(cfg.run_root) / cfg.name
    if checkpoints_of(own):
        return checkpoints_of(own)[-1]
    alike = []
    for file in sorted(Path(cfg.run_root).glob(f"{named}*/config.json")) if named else ():
        with suppress(OSError, ValueError, KeyError, TypeError):  # it is no run's, or damaged
            old = json.loads(file.read_text())
            del old["config_id"]
            old.pop("system", None)
            if checkpoints_of(file.parent) and not _differing(old, cfg):
                alike.append(file.parent)
    if len(alike) > 1:
        raise CheckpointError(
            f"more than one run of this configuration could go on to {cfg.train.steps} steps: "
            f"{', '.join(map(str, alike))}; name one with -p resume FOLDER"
        )
    return checkpoints_of(alike[0])[-1] if alike else None


def going_on(path: Path, cfg: RunConfig, fingerprint: str) -> RunConfig:
    """Return the configuration under which the run of a checkpoint goes on.

    The warm-up and whatever else follows from the number of steps stay as they were when the run
    started; the run keeps its name.

    Raises:
        CheckpointError: another configuration (each setting that differs is named), other data, or
            the checkpoint is past the steps asked for.
    """
    state = read_state(path)
    old, wrong = from_dict(state["config"]), _differing(state["config"], cfg)
    if state["data"] != fingerprint:
        wrong.append(f"the prepared data in data_root were {state['data']}, now {fingerprint}")
    if state["step"] > cfg.train.steps:
        wrong.append(f"it has {state['step']} steps already, more than the {cfg.train.steps} asked")
    if wrong:
        raise CheckpointError(
            f"the run of {path} cannot go on so: {'; '.join(wrong)}; resume with the parameters "
            "of that run and as many steps or more, or start a new run without resume"
        )
    planned = old.train.schedule_steps or old.train.steps
    planned = 0 if planned == cfg.train.steps else planned
    return replace(cfg, name=old.name, train=replace(cfg.train, schedule_steps=planned))


def _differing(old: Mapping[str, Any], cfg: RunConfig) -> list[str]:
    """The settings in which a recorded configuration is of another run."""
    was, now = (_dotted(to_dict(one)) for one in (from_dict(old), cfg))
    return [
        f"{key} was {was[key]}, now {now[key]}"
        for key in sorted(now)
        if was[key] != now[key] and key.rpartition(".")[2] not in MAY_DIFFER_ON_RESUME
    ]


def _dotted(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their dotted names, such as "train.steps"."""
    sections = {k: v if isinstance(v, dict) else {"": v} for k, v in plain.items()}
    return {f"{s}.{k}".rstrip("."): v for s, own in sections.items() for k, v in own.items()}


def restore(path: Path, updater: Updater) -> dict[str, Any]:
    """Load weights, averages, optimisers and counts of a checkpoint into an updater.

    Returns:
        The checkpoint's state.

    Raises:
        CheckpointError: a file is damaged or does not fit.
    """
    state = read_state(path)
    load_modules(path, _modules(updater))
    updater.set_rates(state["step"] + 1)
    restore_optimizers(path, _optimizers(updater))
    if "trained" not in state:
        updater.trained = None
    faults = (KeyError, RuntimeError)
    with refusing(faults, CheckpointError, f"{path / STATE} is damaged", OLDER):
        for name, value in (updater.trained or {}).items():
            value.copy_(torch.tensor(state["trained"][name][: len(value)]))
    return state


def restore_optimizers(path: Path, optimizers: Optimizers) -> None:
    """Load the optimisers of a checkpoint by their names.

    Raises:
        CheckpointError: the file is damaged or does not fit.
    """
    with refusing(Exception, CheckpointError, f"{path / OPTIMIZER} cannot be read", OLDER):
        states = torch.load(path / OPTIMIZER, map_location="cpu", weights_only=True)
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(_narrowed(states[name], optimizer))


def known_to(path: Path, stores: Sequence[Store]) -> dict[str, Any]:
    """What a run takes over from a checkpoint that it starts from: speakers and mel statistics.

    Args:
        path: a checkpoint's folder.
        stores: of the new run, whose further speakers come after those of the checkpoint.

    Returns:
        Arguments of :class:`xfavot.data.batches.Batches`.
    """
    state = read_state(path)
    speakers = dict.fromkeys([*state["speakers"], *voiced_speakers(stores)])
    return {"speakers": tuple(speakers), "standardiser": statistics_of(state)}


def statistics_of(state: Mapping[str, Any]) -> Standardiser:
    """The mel statistics that a checkpoint's state holds."""
    return Standardiser(*(torch.tensor(state[name]) for name in ("mel_mean", "mel_std")))


def adopt(path: Path, updater: Updater) -> None:
    """Start a new run from the weights of a checkpoint; heads of new speakers stay as drawn.

    Raises:
        CheckpointError: its networks are of other sizes (each setting that differs is named), or a
            file is damaged.
    """
    state, cfg = read_state(path), updater.cfg
    was, now = (to_dict(one)["model"] for one in (from_dict(state["config"]), cfg))
    added = {"ltas"} if now["ltas"] else set()  # a layer that starts as drawn (A95)
    differing = [k for k, v in now.items() if v != was[k] and k not in {"speakers", *added}]
    wrong = [f"model.{k} was {was[k]}, now {now[k]}" for k in differing]
    given = load_file(path / "model.safetensors")
    if (path / "ema.safetensors").exists():
        given |= load_file(path / "ema.safetensors")
    own = {k: v for k, v in updater.n.nets.state_dict().items() if k.split(".")[1] in added}
    given = own | given
    wrong += [f"it has no {k}" for k in updater.n.nets.state_dict() if k not in given][:1]
    if wrong:
        theirs = "-p configuration {configuration} -p preset {preset}".format(**state["config"])
        raise CheckpointError(
            f"a run cannot start from {path}: {'; '.join(wrong)}; expected a model of the same "
            f"sizes; give {theirs}, or train one of these sizes first"
        )
    for module in (updater.n.nets, updater.ema):
        for name, value in module.state_dict().items():
            known = given[name][: len(value)]
            value[: len(known)].copy_(known)
    frozen = {"f0": updater.n.f0, "content": updater.n.content}
    load_modules(path, {k: m for k, m in frozen.items() if f"{k}.safetensors" in state["bytes"]})
    for name, counts in (updater.trained or {}).items():
        old = state.get("trained", {}).get(name, [1] * len(counts))
        old = old[: len(counts)]
        counts[: len(old)].copy_(torch.tensor(old))


def _narrowed(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state without heads that an older checkpoint had more; see `load_modules`."""
    for number, parameter in enumerate(optimizer.param_groups[0]["params"]):
        for name, value in state["state"].get(number, {}).items():
            if value.dim() and len(value) > len(parameter):
                state["state"][number][name] = value[: len(parameter)].clone()
    return state
