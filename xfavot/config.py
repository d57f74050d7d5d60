"""Configuration: frozen dataclasses, strict loading, `resolve` for notebooks.

A run is described by one :class:`RunConfig`. Every default lives here once; presets
(`xfavot/presets/*.yaml`) and notebook parameters only override. Status words and ids (`A7`) refer to
`ASSUMPTIONS.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TERMS_WITHOUT_WEIGHT = ("adv",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which prepared stores are read, and how batches are drawn from them."""

    dataset: str = "mini"
    corpora: tuple[str, ...] = ("mini",)
    augment: bool = False  # random flip and resized crop of faces


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
    speakers: int = 128  # STATED
    f0_width: int = 64  # JDC first width, CODE
    f0_channels: int = 128  # F0 channels at the bottleneck of G_A, STATED
    content_width: int = 256  # CODE
    content_channels: int = 128  # CODE
    audio_decoder: str = "code"  # "code" | "table7": which G_A variant
    style_norm: bool = False  # instance norm in encoders and discriminators


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Weight of every term; a weight of 0 switches the term off."""

    sty: float = 1.0
    ds_image: float = 2.0
    ds_audio: float = 2.0
    ds_decay_steps: int = 0  # 0 = no decay
    cyc_image: float = 1.0
    cyc_audio: float = 1.0
    sc: float = 20.0
    f0: float = 5.0
    norm: float = 1.0
    advcls: float = 0.05
    cls: float = 0.05
    xm: float = 1.0
    tau: float = 0.07
    xm_form: str = "symmetric"  # "one_way" | "mmv" | "symmetric"
    r1_image: float = 1.0
    r1_audio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The optimisation: length, batch, rates, update rule, bookkeeping."""

    steps: int = 20_000  # STATED
    batch_size: int = 32  # STATED
    lr: float = 1.0e-4
    lr_mapping: float = 1.0e-6
    beta1: float = 0.0
    beta2: float = 0.99
    weight_decay: float = 1.0e-4
    ema_decay: float = 0.999
    update_rule: str = "alternate"  # "alternate": the ancestors' order | "fused"
    sources: str = "all"  # style sources a step: "all" | "one" (drawn at random)
    dual_domain: bool = True
    speaker_head_probability: float = 0.5
    warmup_steps: int = 0  # self-reconstruction steps before adversarial training
    warmup_batch_size: int = 16
    precision: str = "float32"  # "float32" | "bf16"
    device: str = "auto"  # "auto" | "cpu" | "cuda" ...
    log_every: int = 10
    sample_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that defines a run."""

    name: str = ""
    configuration: str = "xfavot"
    preset: str = "mini"
    seed: int = 0
    data_root: str = "data"
    run_root: str = "runs"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
