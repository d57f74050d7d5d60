"""Waveforms, the mel-spectrogram and vocoders."""
