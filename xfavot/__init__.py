"""XFaVoT: cross-modal face- and voice-style transfer, a reproducible companion of the paper."""

__version__ = "0.1.0"
