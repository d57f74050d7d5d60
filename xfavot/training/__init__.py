"""The step, the loop, checkpoints and the auxiliary networks."""

from xfavot.training.loop import Run, fit

__all__ = ["Run", "fit"]
