"""What defines a run: frozen sections that check themselves, and how a run is put together.

Layers, later over earlier: the defaults below, the preset, the configuration (`xfavot/presets/`),
the parameters of a notebook (`xfavot/parameters.py`), `overrides`. Nothing is converted silently: a
wrong name, type or value is refused with a message.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

from xfavot import presets
from xfavot.errors import ConfigError
from xfavot.strict import Settings, build, check_options, merge, option, require, typed

FROM_PRESET = -1  # neutral value of whole-number parameters
NETWORKS = ("f0", "content")  # the two frozen networks, in the order they are trained
VOCODER = "vocoder"  # trained like them when asked for; one comes with the package
MODALITIES = ("image", "audio")
PRECISIONS = ("float32", "bf16")
BOOKKEEPING = (  # of the section train; none changes a number
    *("device", "checkpointing", "log_every", "sample_every"),
    *("checkpoint_every", "keep_checkpoints"),
)
OF_RUN = ("dataset", "configuration", "preset", "seed", "data_root", "run_root")  # parameters
OF_TRAIN = (
    "steps",
    "batch_size",
    "device",
    "precision",
    "initial",
)  # parameters too, of the section train
PLACES = ("name", "data_root", "run_root")
LATER = (
    ("loss", "ltas"),
    ("loss", "timbre"),
    ("loss", "twins"),
    ("model", "ltas"),
    ("pretrain", "teacher"),
    ("train", "frozen"),
    ("train", "pairs"),
    ("train", "twins"),
)  # newer settings: runs without keep their names
GENERATOR_SIDE = ("G_I", "G_A", "E_I", "E_A", "M")  # their moving averages are kept, too (A19)
ALWAYS_SAID = ("dataset", "image_size", "mel_frames", "xm", "steps", "batch_size", "precision")


class Section(Settings):
    """A part of a run, which checks itself."""

    def __post_init__(self) -> None:
        """Hold every setting against its bounds."""
        check_options(self, type(self).__name__.removesuffix("Config").lower())


class DataConfig(Section):
    """Which prepared stores are read, and how batches are drawn from them."""

    dataset: str = "mini"
    corpora: tuple[str, ...] = ("mini",)
    augment: bool = False  # A30: random flip and resized crop of faces


class ModelConfig(Section):
    """Sizes of the eight modules (Tables 6 to 9) and of the two frozen networks."""

    image_size: int = option(128, least=16)  # pixels, STATED
    image_width: int = option(128, least=1)  # channels after the stem, STATED
    image_max_width: int = option(512, least=1)  # channels, STATED
    image_levels: int = option(4, least=1)  # halvings in G_I, STATED
    mel_bins: int = option(80, choices=(80,))  # STATED; see audio/mel.py
    mel_frames: int = option(192, least=80)  # training crop, STATED
    audio_width: int = option(64, least=1)  # channels after the stem, STATED
    audio_max_width: int = option(512, least=1)  # channels, STATED
    style_dim: int = option(64, least=1)  # STATED
    latent_dim: int = option(16, least=1)  # STATED
    mapping_width: int = option(512, least=1)  # STATED
    genders: int = option(2, choices=(2,))  # f and m, STATED
    speakers: int = option(128, least=0)  # STATED; 0: as many as the training data has
    f0_width: int = option(64, least=1)  # JDC first width, CODE
    f0_channels: int = option(128, least=1)  # F0 channels at the bottleneck of G_A, STATED
    content_width: int = option(256, least=1)  # CODE
    content_channels: int = option(128, least=1)  # CODE
    audio_decoder: str = option("code", choices=("code", "table7"))  # A17: which G_A variant
    melody: bool = False  # A79: the pitch as an explicit input of G_A beside the F0 features
    ltas: bool = False  # A95: long-term average spectrum of G_A's voices read from the style
    upsampling: str = option("nearest", choices=("nearest", "linear"))  # A80: in the decoders
    style_norm: bool = False  # A18: instance norm in encoders and discriminators

    def __post_init__(self) -> None:
        """Check that the sizes fit together."""
        super().__post_init__()
        size, frames, groups = self.image_size, self.mel_frames, self.content_width
        power = size & (size - 1) == 0
        require(power, "model.image_size", size, "a power of two", "use 64 or 128")
        deepest = size.bit_length() - 2  # leaves two pixels
        step = f"use {deepest} or fewer at {size} pixels"
        fits = self.image_levels <= deepest
        require(fits, "model.image_levels", self.image_levels, "two pixels left", step)
        require(frames % 4 == 0, "model.mel_frames", frames, "a multiple of 4", "use 96 or 192")
        require(groups % 8 == 0, "model.content_width", groups, "a multiple of 8", "use 64")
        told = self.melody or not self.ltas
        require(told, "model.ltas", self.ltas, "model.melody true beside it", "set both")


class LossConfig(Section):
    """Weight of every term; a weight of 0 switches the term off. A4: all values lost."""

    sty: float = option(1.0, least=0)
    ds_image: float = option(2.0, least=0)
    ds_audio: float = option(2.0, least=0)
    ds_decay_steps: int = option(0, least=0)  # A6: 0 = no decay
    cyc_image: float = option(1.0, least=0)
    cyc_audio: float = option(1.0, least=0)
    sc: float = option(20.0, least=0)
    f0: float = option(5.0, least=0)
    norm: float = option(1.0, least=0)
    advcls: float = option(0.05, least=0)
    cls: float = option(0.05, least=0)
    xm: float = option(1.0, least=0)
    rec: float = option(0.0, least=0)  # A20: self-reconstruction after the warm-up
    level: float = option(0.0, least=0)  # A79: level of the pitch read from styles
    codes: float = option(0.0, least=0)  # A82: styles of codes distributed as those of references
    perceptual: float = option(0.0, least=0)  # A85: of self-reconstructed faces
    resemblance: float = option(0.0, least=0)  # A85: of faces to those of their references
    timbre: float = option(0.0, least=0)  # A92: of voices to those of their references
    ltas: float = option(0.0, least=0)  # A95: average spectrum read from styles
    twins: float = option(0.0, least=0)  # A96: of faces to the person in the source's pose
    tau: float = option(0.07, above=0)  # A14
    xm_form: str = option("symmetric", choices=("one_way", "mmv", "symmetric"))  # A5
    r1_image: float = option(1.0, least=0)  # A3
    r1_audio: float = option(1.0, least=0)  # A3


class PretrainConfig(Section):
    """Training of the F0 and the content network (A28), and of a vocoder where one is asked for.

    `source`: "auto" takes a network trained before on the same data, else the shipped one if its
    widths are these, else trains one; "shipped" and "train" insist.
    """

    source: str = option("auto", choices=("auto", "shipped", "train"))
    teacher: str = ""  # folder of an encoder of speech that the content network learns from (A89)
    f0_steps: int = option(40_000, above=0)
    content_steps: int = option(40_000, above=0)
    f0_lr: float = option(3.0e-4, above=0)  # CODE
    content_lr: float = option(5.0e-4, above=0)  # CODE
    batch_size: int = option(64, above=0)  # CODE
    vocoder_steps: int = option(4_000, above=0)  # as the weights that ship began
    vocoder_lr: float = option(2.0e-3, above=0)
    vocoder_batch_size: int = option(8, above=0)  # crops of 0.8 s
    vocoder_adversary: float = option(0.0, least=0)  # weight of judges of spectra, 8 or so; slow


class TrainConfig(Section):
    """The optimisation: length, batch, rates, update rule, bookkeeping."""

    steps: int = option(20_000, least=1)  # STATED
    initial: str = ""  # run or checkpoint whose weights a new run starts from
    schedule_steps: int = option(0, least=0)  # steps planned when the run started; 0: `steps`
    batch_size: int = option(32, least=1)  # STATED
    modalities: tuple[str, ...] = MODALITIES  # which halves of the model are trained
    frozen: tuple[str, ...] = ()  # of G_I, G_A, E_I, E_A, M: stay as they are (A94)
    lr: float = option(1.0e-4, above=0)  # A7
    lr_mapping: float = option(1.0e-6, above=0)  # A7
    beta1: float = option(0.0, least=0, below=1)  # A15
    beta2: float = option(0.99, least=0, below=1)  # A15
    weight_decay: float = option(1.0e-4, least=0)  # A16
    ema_decay: float = option(0.999, least=0, below=1)  # A19
    update_rule: str = option("alternate", choices=("alternate", "fused"))  # A12: ancestors' order
    sources: str = option("all", choices=("all", "one"))  # A13: style sources a step
    pairs: int = option(0, least=0)  # A90: further pairs of a face and a voice for L_xm, a step
    twins: int = option(0, least=0)  # A96: faces a step that another person's picture teaches
    voices_every: int = option(1, least=1)  # A83: voices are generated in every n-th step
    dual_domain: bool = True  # STATED
    speaker_head_probability: float = option(0.5, least=0, most=1)  # A2
    warmup_steps: int = option(0, least=0)  # A20: self-reconstruction before adversarial training
    warmup_batch_size: int = option(16, least=1)  # A20
    warmup_lr: float = option(1.0e-3, above=0)  # A20, with beta1 0.9
    warmup_muon: float = option(0.0, least=0)  # A81: rate of Muon for matrices; 0: Adam for all
    r1_every: int = option(1, least=1)  # A3: R1 on every n-th step, weighed n times
    precision: str = option("float32", choices=PRECISIONS)
    checkpointing: bool = False  # less memory, a quarter more work: blocks are computed again
    device: str = "auto"  # "auto" | "cpu" | "cuda" | "cuda:N" | "mps"
    log_every: int = option(10, least=1)
    sample_every: int = option(1000, least=1)
    checkpoint_every: int = option(1000, least=1)
    keep_checkpoints: int = option(3, least=1)

    @property
    def warmup(self) -> int:
        """Steps of the warm-up: ``warmup_steps``, but at most a quarter of a short run (A20).

        It does not move when a run goes on to more steps than it was started with.
        """
        return min(self.warmup_steps, (self.schedule_steps or self.steps) // 4)

    def __post_init__(self) -> None:
        """Check lengths, rates and names."""
        super().__post_init__()
        known = bool(self.modalities) and set(self.modalities) <= set(MODALITIES)
        require(known, "train.modalities", self.modalities, f"some of {MODALITIES}", "name one")
        known = set(self.frozen) < set(GENERATOR_SIDE)
        which = f"some of {GENERATOR_SIDE}, not all"
        require(known, "train.frozen", self.frozen, which, "correct the names")
        require_device("train.device", self.device)


class RunConfig(Settings):
    """Everything that defines a run."""

    name: str = ""
    configuration: str = "xfavot"
    preset: str = "paper"
    seed: int = option(0, least=0, below=2**63)
    data_root: str = "data"
    run_root: str = "runs"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        """Check what concerns several sections."""
        check_options(self)
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*|", self.name) is not None
        require(plain, "name", self.name, "letters, digits, . _ -", "it names the run's folder")
        both = set(self.train.modalities) == set(MODALITIES)
        step = "set loss.xm to 0 or train both modalities"
        require(both or self.loss.xm == 0, "loss.xm", self.loss.xm, "0 with one modality", step)
        told = (self.loss.twins > 0) == (self.train.twins > 0)
        require(
            told, "train.twins", self.train.twins, "above 0 as loss.twins is", "set both or none"
        )


def require_device(name: str, value: str) -> None:
    """Refuse a device name of the wrong form; whether the device exists is training's question.

    Raises:
        ConfigError: it is no device name.
    """
    fits = re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None
    require(fits, name, value, "auto, cpu, cuda, cuda:N or mps", "auto picks the fastest present")


def resolve(
    *, dataset: str = "mini", configuration: str = "xfavot", preset: str = "", **further: Any
) -> RunConfig:
    """Put a run together: defaults, preset, configuration, parameters, overrides.

    Args:
        dataset, configuration, preset: names in `xfavot/presets/`; an empty preset is "mini" for
            dataset "mini", else "paper".
        overrides: dotted settings to values, such as ``{"loss.xm": 0.5}``.
        further: `seed`, `data_root`, `run_root`, `initial`; and `steps`, `batch_size`, `device`,
            `precision`, of which -1 or "" is the preset's.

    Returns:
        The run; its name is set unless `overrides` holds `name`.

    Raises:
        ConfigError: an unknown name, a wrong type or value.
    """
    preset = preset or usual_preset(dataset)
    layers = merge(presets.load("sizes", preset), presets.load("configurations", configuration))
    chosen: dict[str, Any] = {"configuration": configuration, "preset": preset, **further}
    run = build(RunConfig, with_chosen(layers, dataset=dataset, **chosen))
    named = f"{dataset}_{configuration}_{preset}_s{run.seed}_{config_id(run)}"
    return run if run.name else dataclasses.replace(run, name=named)


def usual_preset(dataset: str) -> str:
    """The preset of a dataset, where none is named."""
    return "mini" if dataset == "mini" else "paper"


def with_chosen(layers: Mapping[str, Any], *, dataset: str, **further: Any) -> dict[str, Any]:
    """Lay parameters and overrides over the layers of presets; see :func:`resolve`."""
    overrides = nest(further.pop("overrides", None) or {})
    train = {name: further.pop(name) for name in OF_TRAIN if name in further}
    chosen = {
        **further,
        "data": {"dataset": dataset, "corpora": corpora_of(dataset)},
        "train": {name: v for name, v in train.items() if v not in (FROM_PRESET, "")},
    }
    return merge(merge(layers, chosen), overrides)


def nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted names into sections: `{"loss.xm": 0}` into `{"loss": {"xm": 0}}`.

    Raises:
        ConfigError: a value is a mapping, or a setting is a parameter of the notebook already.
    """
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        section, _, name = typed(key, str, "a key of overrides").partition(".")
        if isinstance(value, dict):
            raise ConfigError(f"overrides: {key} is a mapping; write {key}.<name>: value")
        own = "dataset" if key in ("data.dataset", "data.corpora") else key.removeprefix("train.")
        if own in (*OF_RUN, *OF_TRAIN):
            raise ConfigError(f"overrides holds {key!r}, a parameter; give it with -p {own}")
        (nested.setdefault(section, {}) if name else nested)[name or section] = value
    return nested


def corpora_of(dataset: str) -> tuple[str, ...]:
    """Return the corpora that a dataset mixes.

    Raises:
        ConfigError: no such dataset.
    """
    return tuple(presets.load("datasets", dataset)["corpora"])


def place(value: str) -> str:
    """Say where a folder parameter points.

    Papermill runs a notebook in the folder that it was called from, JupyterLab in the notebook's
    own. So that `data` and `runs` are the same folders in both, a relative folder is taken from the
    repository's root where the current folder is its `notebooks/`.
    """
    here = Path.cwd()
    inside = here.name == "notebooks" and (here.parent / "xfavot" / "config.py").is_file()
    return str(Path("..", value)) if inside and not Path(value).is_absolute() else value


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

    Of its steps those count that it was started with: to go on with more is the same run. Names,
    folders, the device, checkpointing of activations and how often things are logged or saved do
    not count, nor how a vocoder is trained, of which training knows nothing.

    Returns:
        The first 8 hexadecimal digits of the SHA-256 of the canonical JSON.
    """
    plain = to_dict(cfg)
    plain["train"]["steps"] = plain["train"].pop("schedule_steps") or plain["train"]["steps"]
    for key in PLACES:
        del plain[key]
    for key in BOOKKEEPING:
        del plain["train"][key]
    for key in [name for name in plain["pretrain"] if name.startswith("vocoder_")]:
        del plain["pretrain"][key]
    for section, key in LATER:
        if not plain[section][key]:
            del plain[section][key]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def key_of(record: Mapping[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of a record as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def describe(cfg: RunConfig) -> str:
    """Say in plain lines what a run is: what everybody asks for, and what differs from a default.

    The default stands in parentheses.
    """
    lines = [f"run       {cfg.run_root}/{cfg.name}", f"stores    {cfg.data_root}"]
    for section, settings in to_dict(cfg).items():
        if isinstance(settings, dict):
            usual = to_dict(RunConfig())[section]
            said = [
                f"{name} {value}" + (f" ({usual[name]})" if value != usual[name] else "")
                for name, value in settings.items()
                if name not in BOOKKEEPING and (value != usual[name] or name in ALWAYS_SAID)
            ]
            lines.append(f"{section:<10}{', '.join(said)}")
    return "\n".join(lines)
