"""The settings of a run: frozen dataclasses that check themselves; `xfavot.config` has them all.

Every default lives here once and is that of preset `paper`. The trailing words give the status of
a value (STATED in the paper, CODE of its ancestors) or the id in `ASSUMPTIONS.md` (`A7`).
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field

from xfavot.errors import ConfigError
from xfavot.strict import nearest, require

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
