"""Configuration: what defines a run, and `resolve`, the first package call of a notebook.

Layers, later over earlier: the defaults (`xfavot/settings.py`), the preset, the configuration
(`xfavot/presets/`), the notebook's parameters, `overrides`. Nothing is converted silently: a wrong
name, type or value is refused with a message (papermill itself only warns).
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xfavot import presets
from xfavot.errors import ConfigError
from xfavot.presets import parse
from xfavot.strict import build, merge, nearest, require, typed

# What each notebook may be given, declared once, and the check that nothing else was


FROM_PRESET = -1  # neutral value of whole-number parameters
INJECTED_HEAD = "# Parameters"  # first line of the cell that papermill injects


@dataclass(frozen=True, slots=True)
class Parameter:
    """One notebook parameter: name, type, neutral or default literal, and its help text."""

    name: str
    type: type
    default: Any
    help: str

    def line(self) -> str:
        """Return the parameter as its line in the notebook's parameter cell."""
        return f"{self.name}: {self.type.__name__} = {_literal(self.default)}  # {self.help}"


def _literal(value: object) -> str:
    """Write a literal with double quotes, as the formatter would."""
    return json.dumps(value) if isinstance(value, str | dict) else repr(value)


DATASET = Parameter("dataset", str, "mini", "mixture of corpora, see the README")
PRESET = Parameter("preset", str, "", "size; empty means mini for dataset mini, else paper")
STEPS = Parameter("steps", int, FROM_PRESET, "training steps; -1 means the preset's")
SEED = Parameter("seed", int, 0, "seed of everything random")
DEVICE = Parameter("device", str, "auto", "auto, cpu, cuda, cuda:1 or mps")
DATA_ROOT = Parameter("data_root", str, "data", "folder of prepared stores")
RUN_ROOT = Parameter("run_root", str, "runs", "folder of runs")
OVERRIDES = Parameter("overrides", dict, {}, "dotted settings, such as loss.xm, to values")

TRAIN_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    Parameter("configuration", str, "xfavot", "row of the paper's tables"),
    PRESET,
    STEPS,
    Parameter("batch_size", int, FROM_PRESET, "samples a step; -1 means the preset's"),
    SEED,
    DEVICE,
    Parameter("precision", str, "", "float32 or bf16; empty means the preset's"),
    DATA_ROOT,
    RUN_ROOT,
    Parameter("resume", str, "", "run folder or checkpoint to go on from; empty means none"),
    OVERRIDES,
)

PREPARE_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    Parameter("source", str, "", "folder of originals; not needed for mini"),
    Parameter("download", bool, False, "first fetch what the owners let anyone download"),
    Parameter("speakers", int, 16, "people in mini"),
    DATA_ROOT,
    Parameter("workers", int, 0, "processes; 0 means one a core"),
    SEED,
)

PRETRAIN_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("network", str, "all", "f0, content, vocoder, or all: the first two"),
    DATASET,
    PRESET,
    STEPS,
    SEED,
    DEVICE,
    DATA_ROOT,
    RUN_ROOT,
    OVERRIDES,
)

EXPLORE_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("checkpoint", str, "", "run folder or checkpoint; empty means the newest"),
    DATASET,
    DATA_ROOT,
    RUN_ROOT,
    SEED,
    DEVICE,
    Parameter("vocoder", str, "source_filter", "a vocoder's name, or its weights on disk"),
)

BENCHMARK_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    DATA_ROOT,
    DEVICE,
    SEED,
    Parameter("rounds", int, 5, "times that each thing is timed"),
    Parameter("out", str, "runs/benchmark", "folder of the tables and figures"),
)

STUDY_PARAMETERS: tuple[Parameter, ...] = (
    Parameter("checkpoint", str, "", "runs or checkpoints with commas; empty: newest, none: none"),
    *EXPLORE_PARAMETERS[1:],
    Parameter("form", str, "faces", "faces: a voice, two faces (paper); outputs: also two voices"),
    Parameter("triplets", int, 30, "questions a model and task"),
    Parameter("evaluators", int, 5, "pages to make"),
    Parameter("answers", str, "", "folder of answers to read back; empty means make the pages"),
    Parameter("out", str, "runs/cpr_study", "folder of the study"),
)


def parameter_cell(parameters: Sequence[Parameter]) -> str:
    """Write the parameter cell of a notebook.

    Args:
        parameters: one of the lists above.

    Returns:
        The cell's source, without a final newline.
    """
    return "\n".join(parameter.line() for parameter in parameters)


def check(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of what a notebook passes; fill in defaults.

    Args:
        parameters: what the notebook declares.
        given: what it passes.

    Returns:
        A value for every declared parameter.

    Raises:
        ConfigError: an unknown name, or a value of another type.
    """
    declared = {parameter.name: parameter for parameter in parameters}
    for name in given:
        if name not in declared:
            raise ConfigError(f"{name} is not a parameter here; {nearest(name, declared)}")
    values: dict[str, Any] = {}
    for name, parameter in declared.items():
        value = given.get(name, parameter.default)
        if name == OVERRIDES.name:
            values[name] = read_overrides(value)
        else:
            values[name] = typed(value, parameter.type, name)
    return values


def listed_values(text: str) -> tuple[str, ...]:
    """Read names separated by commas; empty ones do not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_overrides(value: object) -> dict[str, Any]:
    """Read the `overrides` parameter: a mapping, or the text of one.

    `papermill -y 'overrides: {loss.xm: 0.5}'` hands over a dict; `-p overrides '{"loss.xm": 0.5}'`
    hands over its text, which is read as JSON or else as YAML, with the types that these give.

    Args:
        value: dict with dotted keys, or JSON or YAML text of one; an empty text is no override.

    Returns:
        Dotted name to value.

    Raises:
        ConfigError: neither of the two.
    """
    if isinstance(value, str):
        try:
            loaded = json.loads(value) if value.strip() else {}
        except json.JSONDecodeError:
            loaded = parse(value, "overrides")
        value = loaded
    overrides = typed(value, dict, "overrides")
    for key in overrides:
        typed(key, str, "a key of overrides")
    return dict(overrides)


def nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into sections: `{"loss.xm": 0}` into `{"loss": {"xm": 0}}`."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        if isinstance(value, dict):
            raise ConfigError(
                f"overrides: {key} is a mapping; expected one setting a key; "
                f"write {key}.<name>: value"
            )
        (nested.setdefault(section, {}) if name else nested)[name or section] = value
    return nested


def place(name: str, value: str) -> str:
    """Say where a folder parameter points.

    Papermill runs a notebook in the folder that it was called from, JupyterLab in the notebook's
    own. So that `data` and `runs` are the same folders in both, a relative folder is taken from the
    repository's root where the current folder is its `notebooks/`.

    Args:
        name: the parameter's name.
        value: the folder given.

    Returns:
        The folder, relative to the current one or absolute.

    Raises:
        ConfigError: it is empty.
    """
    require(bool(value.strip()), name, value, "a folder", f"leave -p {name} out for the default")
    here = Path.cwd()
    inside = here.name == "notebooks" and (here.parent / "xfavot" / "config.py").is_file()
    return str(Path("..", value)) if inside and not Path(value).is_absolute() else value


def refuse_undeclared(parameters: Sequence[Parameter], *, depth: int = 2) -> None:
    """Refuse names that papermill injected although the notebook does not declare them.

    Papermill does not tell the kernel what it injected, but IPython keeps the source of every cell
    it ran in the notebook's namespace (`In`). The last one that starts as papermill's injected cell
    is parsed; nothing is executed. Calls from anywhere but a notebook's own cell are not checked.

    Args:
        parameters: what the notebook declares.
        depth: how many calls above this one the notebook's cell stands.

    Raises:
        ConfigError: an injected name is not declared.
    """
    history = sys._getframe(depth).f_globals.get("In")
    if not isinstance(history, list):
        return
    cells = [cell for cell in history if isinstance(cell, str) and cell.startswith(INJECTED_HEAD)]
    if not cells:
        return
    declared = [parameter.name for parameter in parameters]
    for node in ast.walk(ast.parse(cells[-1])):
        stored = isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        if isinstance(node, ast.Name) and stored and node.id not in declared:
            raise ConfigError(
                f"{node.id} was given with -p but is not a parameter of this notebook; "
                f"{nearest(node.id, declared)}"
            )


# The settings of a run: frozen dataclasses that check themselves; `xfavot.config` has them all


TERMS_WITHOUT_WEIGHT = ("adv",)
NETWORKS = ("f0", "content")  # the two frozen networks, in the order they are trained
VOCODER = "vocoder"  # trained like them when asked for; one comes with the package
MODALITIES = ("image", "audio")
BOOKKEEPING = ("device", "log_every", "sample_every", "checkpoint_every", "keep_checkpoints")
PLACES = ("name", "data_root", "run_root")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which prepared stores are read, and how batches are drawn from them."""

    dataset: str = "mini"
    corpora: tuple[str, ...] = ("mini",)
    augment: bool = False  # A30: random flip and resized crop of faces

    def __post_init__(self) -> None:
        """Check that there is a corpus."""
        require(bool(self.corpora), "data.corpora", self.corpora, "a corpus", "name one")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Sizes of the eight modules (Tables 6 to 9) and of the two frozen networks."""

    image_size: int = 128  # pixels, STATED
    image_width: int = 128  # channels after the stem, STATED
    image_max_width: int = 512  # channels, STATED
    image_levels: int = 4  # halvings in G_I, STATED
    mel_bins: int = 80  # STATED
    mel_frames: int = 192  # training crop, STATED
    audio_width: int = 64  # channels after the stem, STATED
    audio_max_width: int = 512  # channels, STATED
    style_dim: int = 64  # STATED
    latent_dim: int = 16  # STATED
    mapping_width: int = 512  # STATED
    genders: int = 2  # STATED
    speakers: int = 128  # STATED; 0: as many as the training data has
    f0_width: int = 64  # JDC first width, CODE
    f0_channels: int = 128  # F0 channels at the bottleneck of G_A, STATED
    content_width: int = 256  # CODE
    content_channels: int = 128  # CODE
    audio_decoder: str = "code"  # A17: "code" | "table7", which G_A variant
    style_norm: bool = False  # A18: instance norm in encoders and discriminators

    def __post_init__(self) -> None:
        """Check that the sizes fit together."""
        for name in MODEL_COUNTS:
            value = getattr(self, name)
            require(value >= 1, f"model.{name}", value, "1 or more", "raise it")
        size, levels, frames = self.image_size, self.image_levels, self.mel_frames
        power = size >= 16 and size & (size - 1) == 0
        require(power, "model.image_size", size, "a power of two from 16 on", "use 64 or 128")
        deepest = size.bit_length() - 2  # leaves two pixels
        step = f"use {deepest} or fewer at {size} pixels"
        require(levels <= deepest, "model.image_levels", levels, "two pixels left", step)
        require(self.mel_bins == 80, "model.mel_bins", self.mel_bins, "80", "see audio/mel.py")
        fits = frames >= 80 and frames % 4 == 0
        require(fits, "model.mel_frames", frames, "a multiple of 4 from 80 on", "use 96 or 192")
        groups = self.content_width  # its group norms have eight groups
        require(groups % 8 == 0, "model.content_width", groups, "a multiple of 8", "use 64")
        require(self.genders == 2, "model.genders", self.genders, "2 (f, m)", "remove it")
        require(self.speakers >= 0, "model.speakers", self.speakers, "0 or more", "0: from data")
        require_choice("model.audio_decoder", self.audio_decoder, ("code", "table7"))


MODEL_COUNTS = (
    *("image_width", "image_max_width", "image_levels", "audio_width", "audio_max_width"),
    *("style_dim", "latent_dim", "mapping_width", "f0_width", "f0_channels"),
    *("content_width", "content_channels"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weight of every term; a weight of 0 switches the term off. A4: all values lost."""

    sty: float = 1.0
    ds_image: float = 2.0
    ds_audio: float = 2.0
    ds_decay_steps: int = 0  # A6: 0 = no decay
    cyc_image: float = 1.0
    cyc_audio: float = 1.0
    sc: float = 20.0
    f0: float = 5.0
    norm: float = 1.0
    advcls: float = 0.05
    cls: float = 0.05
    xm: float = 1.0
    rec: float = 0.0  # A20: self-reconstruction after the warm-up, small presets only
    tau: float = 0.07  # A14
    xm_form: str = "symmetric"  # A5: "one_way" | "mmv" | "symmetric"
    r1_image: float = 1.0  # A3
    r1_audio: float = 1.0  # A3

    def __post_init__(self) -> None:
        """Check that no weight is negative and tau is positive."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if not isinstance(value, str):
                require(value >= 0, f"loss.{entry.name}", value, "0 or more", "0 switches it off")
        require(self.tau > 0, "loss.tau", self.tau, "more than 0", "use 0.07")
        require_choice("loss.xm_form", self.xm_form, ("one_way", "mmv", "symmetric"))


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Training of the F0 and the content network (A28), and of a vocoder where one is asked for."""

    source: str = "auto"  # kept, else shipped if of these widths, else "train"; or "shipped"
    f0_steps: int = 40_000
    content_steps: int = 40_000
    f0_lr: float = 3.0e-4  # CODE
    content_lr: float = 5.0e-4  # CODE
    batch_size: int = 64  # CODE
    vocoder_steps: int = 4_000  # the schedule of the weights that ship
    vocoder_lr: float = 2.0e-3
    vocoder_batch_size: int = 8  # crops of 0.8 s

    def __post_init__(self) -> None:
        """Check that the source is known and every number positive."""
        require_choice("pretrain.source", self.source, ("auto", "shipped", "train"))
        for name, value in list(dataclasses.asdict(self).items())[1:]:
            require(value > 0, f"pretrain.{name}", value, "more than 0", "raise it")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The optimisation: length, batch, rates, update rule, bookkeeping."""

    steps: int = 20_000  # STATED
    batch_size: int = 32  # STATED
    modalities: tuple[str, ...] = MODALITIES  # which halves of the model are trained
    lr: float = 1.0e-4  # A7
    lr_mapping: float = 1.0e-6  # A7
    beta1: float = 0.0  # A15
    beta2: float = 0.99  # A15
    weight_decay: float = 1.0e-4  # A16
    ema_decay: float = 0.999  # A19
    update_rule: str = "alternate"  # A12: "alternate": the ancestors' order | "fused"
    sources: str = "all"  # A13: style sources a step: "all" | "one" (drawn at random)
    dual_domain: bool = True  # STATED
    speaker_head_probability: float = 0.5  # A2
    warmup_steps: int = 0  # A20: self-reconstruction steps before adversarial training
    warmup_batch_size: int = 16  # A20
    warmup_lr: float = 1.0e-3  # A20, with beta1 0.9
    r1_every: int = 1  # A3: R1 on every n-th step, weighed n times
    precision: str = "float32"  # "float32" | "bf16"
    device: str = "auto"  # "auto" | "cpu" | "cuda" | "cuda:N" | "mps"
    log_every: int = 10
    sample_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3

    @property
    def warmup(self) -> int:
        """Steps of the warm-up: ``warmup_steps``, but at most a quarter of a short run (A20)."""
        return min(self.warmup_steps, self.steps // 4)

    def __post_init__(self) -> None:
        """Check lengths, rates and names."""
        for name in ("steps", "batch_size", "warmup_batch_size", "r1_every", *BOOKKEEPING[1:]):
            value = getattr(self, name)
            require(value >= 1, f"train.{name}", value, "1 or more", "raise it")
        for name in ("lr", "lr_mapping", "warmup_lr"):
            value = getattr(self, name)
            require(value > 0, f"train.{name}", value, "more than 0", "use 1.0e-4")
        for name in ("beta1", "beta2", "ema_decay"):
            value = getattr(self, name)
            require(0 <= value < 1, f"train.{name}", value, "0 up to below 1", "lower it")
        require(self.weight_decay >= 0, "train.weight_decay", self.weight_decay, ">= 0", "raise it")
        require(self.warmup_steps >= 0, "train.warmup_steps", self.warmup_steps, ">= 0", "0: off")
        share = self.speaker_head_probability
        require(0 <= share <= 1, "train.speaker_head_probability", share, "0 to 1", "use 0.5")
        known = bool(self.modalities) and set(self.modalities) <= set(MODALITIES)
        require(known, "train.modalities", self.modalities, f"some of {MODALITIES}", "name one")
        require_choice("train.update_rule", self.update_rule, ("alternate", "fused"))
        require_choice("train.sources", self.sources, ("all", "one"))
        require_choice("train.precision", self.precision, ("float32", "bf16"))
        require_device("train.device", self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that defines a run."""

    name: str = ""
    configuration: str = "xfavot"
    preset: str = "paper"
    seed: int = 0
    data_root: str = "data"
    run_root: str = "runs"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Check what concerns several sections."""
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*|", self.name) is not None
        require(plain, "name", self.name, "letters, digits, . _ -", "it names the run's folder")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 or more", "use 0")
        both = set(self.train.modalities) == set(MODALITIES)
        step = "set loss.xm to 0 or train both modalities"
        require(both or self.loss.xm == 0, "loss.xm", self.loss.xm, "0 with one modality", step)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """Which of the frozen networks and the vocoder to train, and the run that they are for."""

    networks: tuple[str, ...]
    run: RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """How often `benchmark` measures, where it writes, and the run with the sizes measured."""

    rounds: int
    out: str
    run: RunConfig

    @property
    def tier(self) -> str:
        """Of what it writes; a median of less than five rounds is for tests."""
        return "smoke" if self.rounds < 5 else "reduced"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """What `prepare_data` reads and where it writes."""

    dataset: str
    corpora: tuple[str, ...]
    source: str
    download: bool
    speakers: int
    data_root: str
    workers: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreConfig:
    """What `explore` opens."""

    checkpoint: str
    dataset: str
    corpora: tuple[str, ...]
    data_root: str
    run_root: str
    seed: int
    device: str
    vocoder: str


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the choices.

    Args:
        name: dotted name of the setting.
        value: the word given.
        choices: the words that exist.

    Raises:
        ConfigError: it is none of them.
    """
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; {nearest(value, choices)}")


def require_device(name: str, value: str) -> None:
    """Refuse a device name of the wrong form; whether the device exists is training's question.

    Args:
        name: dotted name of the setting.
        value: the device given.

    Raises:
        ConfigError: it is no device name.
    """
    fits = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None
    require(fits, name, value, "auto, cpu, cuda, cuda:N or mps", "auto picks the fastest present")


# What a run is, written down: plain values, their hash, and lines for people


def to_dict(cfg: RunConfig) -> dict[str, Any]:
    """Write a run as plain values, ready for JSON; `from_dict` reads it back equal."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(cfg)))
    return plain


def from_dict(mapping: Mapping[str, Any]) -> RunConfig:
    """Read a run as strictly as a preset; a setting newer than the file takes its default.

    Raises:
        ConfigError: an unknown key, a wrong type or value.
    """
    return build(RunConfig, mapping)


def config_id(cfg: RunConfig) -> str:
    """Hash everything that can change a run's numbers.

    Names, folders, the device and how often things are logged or saved do not count, nor how a
    vocoder is trained, of which training knows nothing.

    Returns:
        The first 8 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    plain = to_dict(cfg)
    for key in PLACES:
        del plain[key]
    for key in BOOKKEEPING:
        del plain["train"][key]
    for key in [name for name in plain["pretrain"] if name.startswith("vocoder_")]:
        del plain["pretrain"][key]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def key_of(record: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of a record as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def describe(cfg: RunConfig) -> str:
    """Say in plain lines what a run is, with the defaults it leaves in parentheses.

    Args:
        cfg: the run.

    Returns:
        Several lines, without a guess of the time it will take.
    """
    train, model = cfg.train, cfg.model
    lines = [
        f"run            {cfg.run_root}/{cfg.name}",
        f"dataset        {cfg.data.dataset} ({', '.join(cfg.data.corpora)}) in {cfg.data_root}",
        f"configuration  {cfg.configuration}, preset {cfg.preset}, seed {cfg.seed}",
        f"sizes          faces {model.image_size} x {model.image_size}, "
        f"mels {model.mel_bins} x {model.mel_frames}",
        f"training       {train.steps} steps of {train.batch_size} on {train.device}, "
        f"{train.precision}, {' and '.join(train.modalities)}",
    ]
    ours, defaults = to_dict(cfg), to_dict(RunConfig())
    skip = {"dataset", "corpora", "steps", "batch_size", *BOOKKEEPING}
    for section in ("data", "model", "loss", "pretrain", "train"):
        changed = [
            f"{name} {value} ({defaults[section][name]})"
            for name, value in ours[section].items()
            if value != defaults[section][name] and name not in skip
        ]
        if changed:
            lines.append(f"{section:<15}{', '.join(changed)}")
    return "\n".join(lines)


# What `notebooks/cpr_study.ipynb` is asked to do


FORMS = ("faces", "outputs")
NO_MODEL = "none"  # given as checkpoint: the ground truth alone


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """The correspondence study: what is asked, of which models, and where its pages lie.

    Args:
        checkpoints: run folders or checkpoints; () for the ground truth alone.
        dataset: the mixture; `corpora` are its members.
        data_root: folder of prepared stores.
        seed: of the draw, the sides and the order on every page.
        device: where the models run.
        vocoder: a vocoder's name or weights.
        form: "faces" or "outputs", see :mod:`xfavot.evaluation.triplets`.
        triplets: of every model and task.
        evaluators: pages.
        answers: folder of answers to read back, "" to make the pages.
        out: folder of the study.
    """

    checkpoints: tuple[str, ...]
    dataset: str
    corpora: tuple[str, ...]
    data_root: str
    seed: int
    device: str
    vocoder: str
    form: str
    triplets: int
    evaluators: int
    answers: str
    out: str


def resolve(**given: Any) -> RunConfig:
    """Turn the parameters of `notebooks/train.ipynb` into a checked run.

    Args:
        **given: any of `TRAIN_PARAMETERS`; those left out take the default.

    Returns:
        The run; its name is set unless `overrides` holds `name`.

    Raises:
        ConfigError: an unknown name (also one that only papermill saw), a wrong type or value.
    """
    refuse_undeclared(TRAIN_PARAMETERS)
    return _run(check(TRAIN_PARAMETERS, given))


def resolve_prepare(**given: Any) -> PrepareConfig:
    """Turn the parameters of `notebooks/prepare_data.ipynb` into a checked task.

    Args:
        **given: any of `PREPARE_PARAMETERS`.

    Returns:
        The task; `workers` 0 has become the number of cores.

    Raises:
        ConfigError: an unknown name, a wrong type or value, no source for real data.
    """
    refuse_undeclared(PREPARE_PARAMETERS)
    values = check(PREPARE_PARAMETERS, given)
    dataset = values["dataset"]
    corpora = corpora_of(dataset)
    require(values["speakers"] >= 2, "speakers", values["speakers"], "2 or more", "use 16")
    made = "mini" in corpora or values["speakers"] == 16
    require(made, "speakers", values["speakers"], f"16 for {dataset}", "it sizes mini alone")
    for name in ("workers", "seed"):
        require(values[name] >= 0, name, values[name], "0 or more", "use 0")
    values["data_root"] = place("data_root", values["data_root"])
    needs = [corpus for corpus in corpora if corpus != "mini"]
    if needs and not values["source"]:
        if not values["download"]:
            raise ConfigError(
                f"source is empty; expected the folder of originals of {', '.join(needs)}; give it "
                "with -p source <folder>, or -p download True to fetch what may be fetched"
            )
        values["source"] = str(Path(values["data_root"]) / "originals")
    workers = values.pop("workers") or os.cpu_count() or 1
    return PrepareConfig(corpora=corpora, workers=workers, **values)


def resolve_pretrain(**given: Any) -> Pretraining:
    """Turn the parameters of `notebooks/pretrain.ipynb` into a checked task.

    Args:
        **given: any of `PRETRAIN_PARAMETERS`; `steps` counts for each network trained.

    Returns:
        The networks to train and the run that holds their sizes and lengths; "all" are the two
        that training needs, since a vocoder comes with the package.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(PRETRAIN_PARAMETERS)
    values = check(PRETRAIN_PARAMETERS, given)
    network, steps = values.pop("network"), values.pop("steps")
    require_choice("network", network, (*NETWORKS, VOCODER, "all"))
    networks = NETWORKS if network == "all" else (network,)
    _require_count("steps", steps)
    run = _run({**_DEFAULTS, **values})
    if steps != FROM_PRESET:
        lengths = {f"{name}_steps": steps for name in networks}
        run = dataclasses.replace(run, pretrain=dataclasses.replace(run.pretrain, **lengths))
    return Pretraining(networks=networks, run=run)


def resolve_explore(**given: Any) -> ExploreConfig:
    """Turn the parameters of `notebooks/explore.ipynb` into a checked task.

    Args:
        **given: any of `EXPLORE_PARAMETERS`.

    Returns:
        The task.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(EXPLORE_PARAMETERS)
    values = check(EXPLORE_PARAMETERS, given)
    require_device("device", values["device"])
    require(values["seed"] >= 0, "seed", values["seed"], "0 or more", "use 0")
    named = values["vocoder"]
    require(bool(named.strip()), "vocoder", named, "a name or weights", "use source_filter")
    values["data_root"] = place("data_root", values["data_root"])
    values["run_root"] = place("run_root", values["run_root"])
    return ExploreConfig(corpora=corpora_of(values["dataset"]), **values)


def resolve_benchmark(**given: Any) -> Benchmark:
    """Turn the parameters of `notebooks/benchmark.ipynb` into a checked task.

    Args:
        **given: any of `BENCHMARK_PARAMETERS`.

    Returns:
        The task; its run has the sizes of preset `paper`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(BENCHMARK_PARAMETERS)
    values = check(BENCHMARK_PARAMETERS, given)
    rounds, out = values.pop("rounds"), place("out", values.pop("out"))
    require(rounds >= 1, "rounds", rounds, "1 or more", "use 5")
    run = _run({**_DEFAULTS, **values, "preset": "paper"})
    return Benchmark(rounds=rounds, out=out, run=run)


def resolve_study(**given: Any) -> StudyConfig:
    """Turn the parameters of `notebooks/cpr_study.ipynb` into a checked task.

    Args:
        **given: any of `STUDY_PARAMETERS`.

    Returns:
        The task; `checkpoint` has become a list, empty for the ground truth alone.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(STUDY_PARAMETERS)
    values = check(STUDY_PARAMETERS, given)
    require_device("device", values["device"])
    require_choice("form", values["form"], FORMS)
    require(values["seed"] >= 0, "seed", values["seed"], "0 or more", "use 0")
    for name in ("triplets", "evaluators"):
        require(values[name] >= 1, name, values[name], "1 or more", "leave it out")
    for name in ("data_root", "run_root", "out", *(["answers"] if values["answers"] else [])):
        values[name] = place(name, values[name])
    named, runs = values.pop("checkpoint"), values.pop("run_root")
    listed = listed_values(named) or (runs,)
    checkpoints = () if named == NO_MODEL else listed
    return StudyConfig(checkpoints=checkpoints, corpora=corpora_of(values["dataset"]), **values)


_DEFAULTS = {parameter.name: parameter.default for parameter in TRAIN_PARAMETERS}


def default_preset(dataset: str) -> str:
    """Return the preset that an empty `preset` means: `mini` for `mini`, else `paper`."""
    return "mini" if dataset == "mini" else "paper"


def corpora_of(dataset: str) -> tuple[str, ...]:
    """Return the corpora that a dataset mixes.

    Raises:
        ConfigError: no such dataset.
    """
    described = presets.load("datasets", dataset)
    corpora: tuple[str, ...] = typed(
        described.get("corpora"), tuple[str, ...], f"datasets/{dataset}.yaml: corpora"
    )
    return corpora


def _run(values: dict[str, Any]) -> RunConfig:
    """Lay defaults, preset, configuration, parameters and overrides over each other."""
    dataset, configuration = values["dataset"], values["configuration"]
    preset = values["preset"] or default_preset(dataset)
    _require_count("steps", values["steps"])
    _require_count("batch_size", values["batch_size"])
    values["data_root"] = place("data_root", values["data_root"])
    values["run_root"] = place("run_root", values["run_root"])
    require_device("device", values["device"])
    if values["precision"]:
        require_choice("precision", values["precision"], ("float32", "bf16"))
    chosen: dict[str, Any] = {
        **{name: values[name] for name in ("configuration", "seed", "data_root", "run_root")},
        "preset": preset,
        "data": {"dataset": dataset, "corpora": corpora_of(dataset)},
        "train": {
            name: values[name]
            for name in ("steps", "batch_size", "device", "precision")
            if values[name] not in (FROM_PRESET, "")
        },
    }
    overrides = nest(values["overrides"])
    _refuse_twice(values["overrides"])
    layers: dict[str, Any] = presets.load("sizes", preset)
    for layer in (presets.load("configurations", configuration), chosen, overrides):
        layers = merge(layers, layer)
    run = build(RunConfig, layers)
    named = f"{dataset}_{configuration}_{preset}_s{run.seed}_{config_id(run)}"
    return run if run.name else dataclasses.replace(run, name=named)


def _refuse_twice(overrides: Mapping[str, Any]) -> None:
    """Refuse in `overrides` what is a parameter of the notebook, so that it stands in one place."""
    own = {"data.dataset": "dataset", "data.corpora": "dataset"}
    for name in _DEFAULTS:
        own[name] = own[f"train.{name}"] = name
    for key in overrides:
        if key in own:
            raise ConfigError(
                f"overrides holds {key!r}; expected settings that are no parameter of the "
                f"notebook; give it with -p {own[key]}"
            )


def _require_count(name: str, value: int) -> None:
    """Refuse 0 and negative numbers other than the neutral one."""
    fits = value == FROM_PRESET or value >= 1
    require(fits, name, value, f"1 or more, or {FROM_PRESET} for the preset's", "correct it")


# What `notebooks/tables.ipynb` is asked to do: the tables of which dataset, from which runs


TABLES_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    RUN_ROOT,
    DATA_ROOT,
    SEED,
    Parameter("out", str, "runs/tables", "folder of the tables"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TablesConfig:
    """Which tables are made.

    Args:
        out: folder of the tables.
        run: dataset and folders, and the paper's sizes, which Tables 6 to 9 show.
    """

    out: str
    run: RunConfig


def resolve_tables(**given: Any) -> TablesConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `TABLES_PARAMETERS`.

    Returns:
        The task; its run has the sizes of preset `paper`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(TABLES_PARAMETERS)
    values = check(TABLES_PARAMETERS, given)
    out = place("out", values.pop("out"))
    return TablesConfig(out=out, run=resolve(**values, preset="paper"))


# What `notebooks/figures.ipynb` is asked to draw: one checkpoint, others to compare, a study


FIGURES_PARAMETERS: tuple[Parameter, ...] = (
    *EXPLORE_PARAMETERS,
    Parameter("others", str, "", "runs or checkpoints to compare with, with commas"),
    Parameter("study", str, "", "folder of a correspondence study; empty means an automatic one"),
    Parameter("answers", str, "", "folder of answers to that study; empty means none"),
    Parameter("triplets", int, 30, "of the automatic study, a model and task"),
    Parameter("out", str, "runs/figures", "folder of the figures and voices"),
)
FOLDERS = ("study", "answers")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FiguresConfig(ExploreConfig):
    """What the figures show.

    Args:
        others: run folders or checkpoints that Fig. 3 and 5 compare with.
        study: folder of a study whose result Fig. 5 is; "" for the automatic one.
        answers: folder of answers to it; "" for none.
        triplets: of the automatic study, a model and task.
        out: folder that is written to.
    """

    others: tuple[str, ...]
    study: str
    answers: str
    triplets: int
    out: str

    @property
    def asked(self) -> StudyConfig:
        """The study behind Fig. 5, of all checkpoints; the first one is that of the figures."""
        shared = {
            name: getattr(self, name)
            for name in ("dataset", "corpora", "data_root", "seed", "device", "vocoder", "answers")
        }
        checkpoints = (self.checkpoint or self.run_root, *self.others)
        return StudyConfig(
            checkpoints=checkpoints,
            form="faces",
            triplets=self.triplets,
            evaluators=1,
            out=self.study,
            **shared,
        )


def resolve_figures(**given: Any) -> FiguresConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `FIGURES_PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(FIGURES_PARAMETERS)
    values = check(FIGURES_PARAMETERS, given)
    own = {name: values.pop(name) for name in ("others", "study", "answers", "triplets", "out")}
    require(own["triplets"] >= 1, "triplets", own["triplets"], "1 or more", "leave it out")
    alone = bool(own["answers"]) and not own["study"]
    require(not alone, "study", own["study"], "the study that was answered", "name its folder")
    own["others"] = listed_values(own["others"])
    for name in ("out", *(folder for folder in FOLDERS if own[folder])):
        own[name] = place(name, own[name])
    shared = resolve_explore(**values)
    return FiguresConfig(**dataclasses.asdict(shared), **own)


# What `notebooks/evaluate.ipynb` is asked to do: measure a checkpoint, or foreign outputs


RECOGNISERS = ("espnet_librispeech", "pocketsphinx_grid")
METRICS = (
    *("fid", "lpips", "preservation"),  # of faces; the others are of voices
    *("nisqa", "speaker_similarity", "word_error", "f0", "content", "verification"),
)
ALL = "all"
SUBSTITUTES = ("", "judge")
MINI_CONVERSIONS = 24  # voices a task, faces a direction; minutes, not hours
EVALUATE_PARAMETERS: tuple[Parameter, ...] = (
    *EXPLORE_PARAMETERS,
    Parameter("manifest", str, "", "CSV file of foreign outputs; empty means the checkpoint"),
    Parameter("recogniser", str, "espnet_librispeech", "or pocketsphinx_grid, of GRID's sentences"),
    Parameter("out", str, "runs/foreign", "folder of the scores of a manifest"),
    Parameter("metrics", str, ALL, "or some, with commas: fid, lpips, nisqa, word_error, ..."),
    Parameter("conversions", int, FROM_PRESET, "of each task; 0: the paper's; -1: few on mini"),
    Parameter("substitute", str, "", "judge: also the judge of faces, under its own name"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(ExploreConfig):
    """What `evaluate` measures.

    Args:
        manifest: CSV file of outputs that another system made; "" to measure the checkpoint, which
            is otherwise the verifier, if given.
        recogniser: of the words in foreign voices.
        out: folder of the scores of a manifest.
        metrics: of the paper's protocol, some of :data:`METRICS`.
        conversions: voices a task and source faces a direction; 0 for the paper's counts.
        substitute: of the networks of FID and LPIPS, "" or "judge".
    """

    manifest: str
    recogniser: str
    out: str
    metrics: tuple[str, ...]
    conversions: int
    substitute: str


def resolve_evaluate(**given: Any) -> EvaluateConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(EVALUATE_PARAMETERS)
    values = check(EVALUATE_PARAMETERS, given)
    fields = {field.name for field in dataclasses.fields(ExploreConfig)}
    own = {name: values.pop(name) for name in list(values) if name not in fields}
    require_choice("recogniser", own["recogniser"], RECOGNISERS)
    require_choice("substitute", own["substitute"], SUBSTITUTES)
    own["metrics"] = _metrics(own["metrics"])
    count = own["conversions"]
    require(count >= FROM_PRESET, "conversions", count, "-1 or more", "use 0 for the paper's")
    if count == FROM_PRESET:
        own["conversions"] = MINI_CONVERSIONS if values["dataset"] == "mini" else 0
    for name in ("out", *(["manifest"] if own["manifest"] else [])):
        own[name] = place(name, own[name])
    shared = resolve_explore(**values)
    return EvaluateConfig(**dataclasses.asdict(shared), **own)


def _metrics(text: str) -> tuple[str, ...]:
    """Read a list of metrics."""
    names = listed_values(text)
    require(bool(names), "metrics", text, "names with commas", f"use {ALL}")
    for name in names:
        require_choice("metrics", name, (ALL, *METRICS))
    return METRICS if ALL in names else tuple(name for name in METRICS if name in names)


# What `notebooks/paper.ipynb` is asked to do: all tables and figures of which dataset and runs


MINI = "mini"
OWN = ("source", "checkpoint", "configurations", "preset", "steps", "study", "out")
EVALUATION = ("recogniser", "metrics", "conversions", "substitute")
STUDY = ("triplets", "answers")
PAPER_PARAMETERS: tuple[Parameter, ...] = (
    DATASET,
    Parameter("source", str, "", "folder of originals; not needed for mini"),
    Parameter("checkpoint", str, "", "runs or checkpoints, with commas; empty means to train"),
    Parameter("configurations", str, "xfavot", "rows of the paper's tables, with commas"),
    PRESET,
    STEPS,
    *EXPLORE_PARAMETERS[2:],
    Parameter("recogniser", str, "", "of words; empty means pocketsphinx_grid on mini, or ESPnet"),
    Parameter("metrics", str, ALL, "as in evaluate"),
    Parameter("conversions", int, FROM_PRESET, "as in evaluate"),
    Parameter("substitute", str, "judge", "as in evaluate; empty means none"),
    Parameter("triplets", int, 30, "of the study, a model and task"),
    Parameter("study", str, "", "folder of a study that was answered; empty makes one"),
    Parameter("answers", str, "", "folder of people's answers to that study; empty means none"),
    Parameter("out", str, "runs/paper", "folder of figures/ and paper_tables/"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PaperConfig:
    """All of the paper's tables and figures.

    Args:
        dataset, data_root, run_root, seed, device, vocoder: as in every notebook.
        source: folder of originals, "" for none.
        checkpoints: run folders or checkpoints; the first one is that of the figures.
        runs: what is trained first, one a configuration; empty with `checkpoints` given.
        evaluation: further parameters of `evaluate`.
        study: further parameters of `cpr_study`.
        answered: folder of the study that people answered, "" to make one.
        out: folder of `figures/` and `paper_tables/`.
    """

    dataset: str
    data_root: str
    run_root: str
    seed: int
    device: str
    vocoder: str
    source: str
    checkpoints: tuple[str, ...]
    runs: tuple[RunConfig, ...]
    evaluation: dict[str, Any]
    study: dict[str, Any]
    answered: str
    out: str


def resolve_paper(**given: Any) -> PaperConfig:
    """Turn the parameters of the notebook into a checked task.

    Args:
        **given: any of `PARAMETERS`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    refuse_undeclared(PAPER_PARAMETERS)
    values = check(PAPER_PARAMETERS, given)
    own, evaluation, study = (
        {name: values.pop(name) for name in names} for names in (OWN, EVALUATION, STUDY)
    )
    evaluation["recogniser"] = evaluation["recogniser"] or (
        "pocketsphinx_grid" if values["dataset"] == MINI else "espnet_librispeech"
    )
    own["out"] = _absolute("out", own["out"])
    for name, values_of in (("source", own), ("study", own), ("answers", study)):
        values_of[name] = _absolute(name, values_of[name]) if values_of[name] else ""
    both = bool(own["study"]) == bool(study["answers"])
    require(both, "study", own["study"], "a study and its answers", "give -p study, -p answers")
    checkpoints = tuple(_absolute("checkpoint", one) for one in _listed(own["checkpoint"]))
    size = {name: own[name] for name in ("preset", "steps")}
    alone = not checkpoints or (own["configurations"], *size.values()) == _UNTRAINED
    require(
        alone,
        "checkpoint",
        own["checkpoint"],
        "no configurations, preset or steps beside it",
        "leave one of the two out",
    )
    for name in ("data_root", "run_root"):
        values[name] = _absolute(name, values[name])
    resolve_explore(**values)  # refuses what no notebook takes
    shared = {name: values[name] for name in ("dataset", "data_root", "run_root", "seed", "device")}
    names = () if checkpoints else _listed(own["configurations"])
    require(bool(names or checkpoints), "configurations", "", "at least one", "use xfavot")
    runs = tuple(resolve(**shared, **size, configuration=name) for name in names)
    return PaperConfig(
        **values,
        source=own["source"],
        checkpoints=checkpoints,
        runs=runs,
        evaluation=evaluation,
        study=study,
        answered=own["study"],
        out=own["out"],
    )


_UNTRAINED = tuple(
    p.default for p in PAPER_PARAMETERS if p.name in ("configurations", "preset", "steps")
)


def _absolute(name: str, value: str) -> str:
    """A folder for notebooks that are started elsewhere."""
    return str(Path(place(name, value)).resolve())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(listed_values(text)))
