"""The step, the loop, checkpoints and the auxiliary networks."""

from xfavot.training.loop import Run, Session, fit, launch, open_networks, open_session

__all__ = ["Run", "Session", "fit", "launch", "open_networks", "open_session"]
