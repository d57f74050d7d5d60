"""The source-filter network as a vocoder: long clips in pieces, its weights on disk.

The network's sound is steered a little towards the spectrogram asked for: twice, its magnitudes are
scaled band by band and its phase is kept, as in one iteration of Griffin-Lim (`griffin_lim.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from xfavot.audio.excitation import Melody, cycles_at_frames, melody
from xfavot.audio.mel import MEL, mel_filterbank, require_contract
from xfavot.audio.mel_decoder import MelDecoder
from xfavot.audio.source_filter import SourceFilterNetwork, noise_samples
from xfavot.errors import DataError, TrainingError, WeightsError

NAME = "source_filter"
RECORD = "record"  # entry of the weights' header with what is said of them, as JSON
PIECE_FRAMES = 800  # 10 s; bounds the memory for any length
CONTEXT_FRAMES = 40  # on either side of a piece; more than the network and the scaling see
SHORTEST_FRAMES = 8  # torch.stft's reflect padding needs more than 1024 samples
ROUNDS = 2  # of scaling; each costs a tenth of the time
MOST_GAIN = 30.0  # of one round, and its reciprocal the least
FAINT = 1e-9  # added to mel magnitudes before a division


class SourceFilterVocoder(MelDecoder):
    """The network with its trained weights, as a vocoder.

    Args:
        network: trained.
        name: what results call it.
        device: where it runs; one with float64.
        seed: of the noise and of the pulses' first phase.
    """

    def __init__(
        self,
        network: SourceFilterNetwork,
        *,
        name: str = NAME,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        """Keep the network; see the class."""
        super().__init__(name=name, contract=MEL, device=str(device), seed=seed)
        self._network = network.to(self.device).requires_grad_(False).eval()
        self._bank = mel_filterbank().to(self.device)  # (80, F)
        reach = self._bank.sum(0)  # (F,), 0 outside the bands
        self._spread = (self._bank / reach.clamp(min=FAINT)).T  # (F, 80), rows sum to one
        self._outside = (reach == 0).float().unsqueeze(1)  # (F, 1)
        self._window = torch.hann_window(MEL.win, device=self.device)

    @classmethod
    def load(
        cls, path: str | PathLike[str], *, name: str = "", device: str = "cpu", seed: int = 0
    ) -> SourceFilterVocoder:
        """Read weights that :func:`save_weights` wrote.

        Args:
            path: the safetensors file.
            name: what results call it; with the beginning of the file's sha256 if left out.
            device, seed: see the class.

        Raises:
            WeightsError: the file is missing, damaged or of another network.
            DataError: the weights were trained on another mel-spectrogram.
        """
        path = Path(path)
        said = read_record(path)
        try:
            with torch.random.fork_rng(devices=[]):  # its first weights are drawn
                network = SourceFilterNetwork(**said["arguments"])
            state = {key: value.float() for key, value in load_file(path).items()}
            network.load_state_dict(state, strict=True)
            if not all(bool(value.isfinite().all()) for value in state.values()):
                raise ValueError("a weight is not finite")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
            raise _refusal(path, error) from error
        shown = name or f"{NAME} (sha256 {digest})"
        return cls(network, name=shown, device=device, seed=seed)

    def find_f0(self, log_mel: Tensor) -> Tensor:
        """Find the pitch that a spectrogram (80, T), log10, is played at: (T,) Hz, 0 unvoiced."""
        frames = log_mel.shape[1]
        found = torch.zeros(frames, device=self.device)
        for start, stop, first, last in _pieces(frames):
            piece = self._network.find_f0(log_mel[None, :, first:last].to(self.device))[0]
            found[start:stop] = piece[start - first : stop - first]
        return found

    def _decode(self, log_mel: Tensor, samples: int) -> Tensor:
        """Go through the pieces of one spectrogram (80, T)."""
        short = max(SHORTEST_FRAMES - log_mel.shape[1], 1)  # one more for the odd samples
        mel = torch.cat((log_mel, log_mel[:, -1:].expand(-1, short)), dim=1)[None]
        frames = mel.shape[2]
        tune = melody(self.find_f0(mel[0])[None])
        generator = torch.Generator().manual_seed(self.seed)
        cycles = torch.rand(1, generator=generator) + cycles_at_frames(tune.pitch).cpu()
        noise = torch.randn(1, noise_samples(frames), generator=generator)
        out = torch.zeros(frames * MEL.hop)
        for start, stop, first, last in _pieces(frames):
            part, here = mel[..., first:last], Melody(*(x[:, first:last] for x in tune))
            filters = self._network.filters(part, here)
            at = first * MEL.hop
            breath = noise[:, at : at + noise_samples(last - first)].to(self.device)
            first_cycle = cycles[:, first].to(self.device)
            wave = self._network.synthesise(filters, here.pitch, first_cycle, breath)
            for _ in range(ROUNDS):
                wave = self._scaled(wave, part)
            inside = wave[0, (start - first) * MEL.hop : (stop - first) * MEL.hop]
            out[start * MEL.hop : start * MEL.hop + len(inside)] = inside.cpu()
        return out[:samples]

    def _scaled(self, wave: Tensor, log_mel: Tensor) -> Tensor:
        """Scale the magnitudes of (1, N) towards (1, 80, T), keeping the phase."""
        c = MEL
        spectrum = torch.stft(
            wave, c.n_fft, c.hop, c.win, self._window, center=True, pad_mode="reflect",
            return_complex=True,
        )  # (1, F, T)  # fmt: skip
        wanted, got = torch.pow(10.0, log_mel), self._bank @ spectrum.abs()
        gain = self._spread @ (wanted / (got + FAINT)).clamp(1 / MOST_GAIN, MOST_GAIN)
        return torch.istft(
            spectrum * (gain + self._outside), c.n_fft, c.hop, c.win, self._window, center=True,
            length=wave.shape[1],
        )  # fmt: skip


def _pieces(frames: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the frames [start, stop) of every piece, then with the context on both sides."""
    for start in range(0, frames, PIECE_FRAMES):
        stop = min(start + PIECE_FRAMES, frames)
        yield start, stop, max(start - CONTEXT_FRAMES, 0), min(stop + CONTEXT_FRAMES, frames)


def save_weights(
    network: SourceFilterNetwork, path: str | PathLike[str], record: Mapping[str, Any]
) -> None:
    """Write trained weights for :meth:`SourceFilterVocoder.load`, in half precision.

    Args:
        network: trained.
        path: file `*.safetensors`, replaced in one move.
        record: what is said of them in the header beside network, contract and arguments.

    Raises:
        TrainingError: the file cannot be written.
    """
    path = Path(path)
    said = {"network": NAME, "contract": MEL.as_dict(), "arguments": network.sizes, **record}
    tensors = {k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata={RECORD: json.dumps(said, allow_nan=False)})
        partial.chmod(0o644)  # safetensors keeps it from others
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: cannot be written ({error}); expected room for 5 MB; free some space"
        ) from error


def read_record(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what the header of a file of weights says: network, arguments, training, measures.

    Raises:
        WeightsError: the file is missing, damaged or of another network.
        DataError: the weights were trained on another mel-spectrogram.
    """
    try:
        with safe_open(path, framework="pt") as file:
            said: dict[str, Any] = json.loads((file.metadata() or {})[RECORD])
        if said["network"] != NAME:
            raise ValueError(f"network is {said['network']!r}")
        require_contract(said["contract"], where=str(path))
    except DataError:
        raise
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise _refusal(Path(path), error) from error
    return said


def _refusal(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path}: not the weights of a {NAME} vocoder ({type(error).__name__}: {error}); expected "
        "the safetensors file of a vocoder that notebooks/pretrain.ipynb trained; train it again "
        "or name another vocoder"
    )
