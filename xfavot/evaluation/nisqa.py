"""NISQA (Mittag et al. 2021): how good a voice sounds, read from the sound alone.

Two networks, both in a file of NISQA's authors. `nisqa` is v2.0, overall quality and four
dimensions, in all likelihood the paper's, which names no file; torchmetrics has its network, but
fetches the weights when called, so they are handed to it here, checked. `nisqa_tts` rates the
naturalness of synthesised speech; torchmetrics lacks it, so its network is built here: six
convolutions over segments of 48 bands and 15 frames, a bidirectional LSTM, its last step each way.

The mel: librosa's, Slaney's scale and areas, from 0 Hz to 20 kHz (v2.0) or 8 kHz (TTS), magnitude,
windows of 20 ms every 10 ms in an FFT of 4096, decibels down to 80 below the loudest value and not
below an amplitude of 1e-4. NISQA never resamples: bands above half the rate stay empty, and the
score follows. Every voice is therefore rated at 24 kHz, the rate of the vocoder (A70).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from xfavot.errors import DataError, WeightsError
from xfavot.evaluation import foreign
from xfavot.weights import fetched

NISQA, NISQA_TTS = "nisqa", "nisqa_tts"
DIMENSIONS = ("noisiness", "discontinuity", "coloration", "loudness")  # in the network's order
DEFINITIONS = {
    NISQA: "NISQA v2.0 (nisqa.tar), at {rate} Hz without resampling",
    NISQA_TTS: "NISQA-TTS v1.0 (nisqa_tts.tar), at {rate} Hz without resampling",
}
KIND = {NISQA: "NISQA_DIM", NISQA_TTS: "NISQA"}  # of network, as the files say
SMALLEST_AMPLITUDE, RANGE_DB = 1e-4, 80.0
LOWEST_RATE_HZ, HIGHEST_RATE_HZ = 4000, 204_800  # above, a window of 20 ms exceeds the FFT
CHANNELS = (16, 32, 64, 64, 64, 64)  # of the TTS variant's convolutions
POOLED = (0, 1, 3)  # convolutions that a pooling follows
CODE, HIDDEN = 20, 128  # numbers a segment, units of the LSTM in one direction
AT_ONCE = 512  # segments

Wave = NDArray[np.float32]


class Nisqa:
    """One network with its weights, loaded once for many files.

    Args:
        metric: `NISQA` or `NISQA_TTS`.
        path: its weights, as NISQA's authors publish them.

    Raises:
        WeightsError: no such file, it holds something else, or torchmetrics or librosa is missing.
    """

    def __init__(self, metric: str, path: str | PathLike[str]) -> None:
        """Load the network; see the class."""
        held = foreign.read(path)
        args = held.get("args") if isinstance(held, Mapping) else None
        if not isinstance(args, Mapping) or args.get("model") != KIND[metric]:
            got = args.get("model") if isinstance(args, Mapping) else "nothing that says"
            raise WeightsError(
                f"weights {path}: they are for a network {got}; expected {KIND[metric]}; "
                f"run {fetched.COMMAND} {metric}"
            )
        self.metric = metric
        self.args: Mapping[str, Any] = args
        self.network = (_library_network if metric == NISQA else Naturalness)(args)
        state = foreign.read_state(path, at=("model_state_dict",))
        if metric == NISQA_TTS:
            state = {_own_name(name): value for name, value in state.items()}
        foreign.require_tensors(path, state, self.network.state_dict())
        self.network.load_state_dict(state)
        self.network.eval().requires_grad_(False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores."""
        more = [f"{NISQA}_{one}" for one in DIMENSIONS] if self.metric == NISQA else []
        return (self.metric, *more)

    @torch.inference_mode()
    def __call__(self, wave: Wave, rate_hz: int) -> dict[str, float]:
        """Rate a voice, from 1 (bad) to 5 (excellent).

        Args:
            wave: (N,) in [-1, 1], mono.
            rate_hz: of the wave; scores of different rates are not comparable.

        Returns:
            Scores by name; overall quality first.

        Raises:
            DataError: too short, too long, not finite, or no sensible rate.
        """
        mel = log_mel(wave, rate_hz, self.args)  # (48, T)
        length, hop = self.args["ms_seg_length"], self.args["ms_seg_hop_length"]
        most, shortest = self.args["ms_max_segments"], length * self.args["ms_hop_length"]
        count = -(-(mel.shape[1] - length + 1) // hop)
        if not 1 <= count <= most:
            longest = most * hop * self.args["ms_hop_length"]
            raise DataError(
                f"{self.metric}: a voice of {len(wave) / rate_hz:.2f} s; expected {shortest:.2f} "
                f"to {longest:.0f} s; cut it or leave it out"
            )
        segments = mel.unfold(1, length, hop).transpose(0, 1)  # (count, 48, 15)
        if self.metric == NISQA:
            found = self.network(segments[None], torch.tensor([count]))[0]
        else:
            found = self.network(segments)
        return dict(zip(self.names, map(float, found), strict=True))


def load(metric: str = NISQA, *, cache: str | PathLike[str] | None = None) -> Nisqa:
    """Load a network with its checked weights.

    Args:
        metric: `NISQA` or `NISQA_TTS`.
        cache: the folder of weights; see `fetched.root`.

    Raises:
        WeightsError: the weights are not here (the message says how to get them), or see `Nisqa`.
    """
    return Nisqa(metric, fetched.path(metric, cache))


def log_mel(wave: Wave, rate_hz: int, args: Mapping[str, Any]) -> Tensor:
    """Return the mel-spectrogram (48, T) in dB that the networks see.

    Args:
        wave: (N,) in [-1, 1].
        rate_hz: of the wave.
        args: settings of a file of weights.

    Raises:
        DataError: the wave has another shape, is empty or not finite, or the rate is senseless.
    """
    x = np.asarray(wave, dtype=np.float32)
    right = type(rate_hz) is int and LOWEST_RATE_HZ <= rate_hz <= HIGHEST_RATE_HZ
    if x.ndim != 1 or not x.size or not right or not np.isfinite(x).all():
        raise DataError(
            f"NISQA: got samples of shape {x.shape} at {rate_hz!r} Hz, "
            f"{int((~np.isfinite(x)).sum())} of them not finite; expected (N,) finite ones, mono, "
            f"at {LOWEST_RATE_HZ} to {HIGHEST_RATE_HZ} Hz (int); read the file with load_waveform"
        )
    librosa = _librosa()
    with warnings.catch_warnings():  # of bands above half the rate, and of very short clips
        warnings.filterwarnings("ignore", message="Empty filters detected")
        warnings.filterwarnings("ignore", message="n_fft=.*is too large")
        mel = librosa.feature.melspectrogram(
            y=x, sr=rate_hz, n_fft=args["ms_n_fft"],
            hop_length=int(rate_hz * args["ms_hop_length"]),
            win_length=int(rate_hz * args["ms_win_length"]),
            window="hann", center=True, pad_mode="reflect", power=1.0,
            n_mels=args["ms_n_mels"], fmin=0.0, fmax=args["ms_fmax"], htk=False, norm="slaney",
        )  # fmt: skip
    level = librosa.amplitude_to_db(mel, ref=1.0, amin=SMALLEST_AMPLITUDE, top_db=RANGE_DB)
    return torch.from_numpy(np.asarray(level, dtype=np.float32))


class Naturalness(nn.Module):
    """The TTS variant's network.

    Args:
        args: settings of its file of weights.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        """Build it with random weights."""
        super().__init__()
        wide = zip((1, *CHANNELS), CHANNELS, strict=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in wide)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in CHANNELS)
        rows, columns = args["ms_n_mels"] // 8, (args["ms_seg_length"] + 1) // 8
        self.code = nn.Linear(CHANNELS[-1] * rows * columns, CODE)
        self.lstm = nn.LSTM(CODE, HIDDEN, batch_first=True, bidirectional=True)
        self.rating = nn.Linear(2 * HIDDEN, 1)

    def forward(self, segments: Tensor) -> Tensor:
        """Rate the segments (n, 48, 15) of one voice: (1,)."""
        codes = torch.cat([self._encode(part) for part in torch.split(segments, AT_ONCE)])
        steps = self.lstm(codes[None])[0][0]  # (n, 256): forward, then backward
        rating: Tensor = self.rating(torch.cat([steps[-1, :HIDDEN], steps[0, HIDDEN:]]))
        return rating

    def _encode(self, segments: Tensor) -> Tensor:
        x = segments[:, None]  # (n, 1, 48, 15)
        for number, (layer, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = functional.relu(norm(layer(x)))
            if number in POOLED:
                x = functional.max_pool2d(x, 2, padding=(0, int(number == 0)))
        code: Tensor = self.code(x.flatten(1))  # (n, 64, 6, 2) before
        return code


def _own_name(name: str) -> str:
    """Rename a tensor of the TTS variant's file to that of `Naturalness`."""
    layer = re.fullmatch(r"cnn\.model\.(conv|bn)(\d)\.(\w+)", name)
    if layer:
        kind = "convolutions" if layer[1] == "conv" else "norms"
        return f"{kind}.{int(layer[2]) - 1}.{layer[3]}"
    for theirs, ours in (
        ("cnn.model.fc_out", "code"), ("time_dependency.model.lstm", "lstm"),
        ("pool.model.linear", "rating"),
    ):  # fmt: skip
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return name


def _library_network(args: Mapping[str, Any]) -> nn.Module:
    """Build torchmetrics' network of v2.0; its public function would fetch weights itself."""
    try:
        from torchmetrics.functional.audio.nisqa import _NISQADIM
    except ImportError as error:
        raise WeightsError(
            f"NISQA needs torchmetrics 1.9 ({error}); run: "
            'pip install "xfavot[metrics]", in the versions of constraints.txt'
        ) from error
    network: nn.Module = _NISQADIM(dict(args))
    return network


def _librosa() -> Any:
    try:
        import librosa
    except ImportError as error:
        raise WeightsError(
            f'NISQA needs librosa, which is not installed ({error}); run: pip install "xfavot'
            '[metrics,data]"'
        ) from error
    return librosa
