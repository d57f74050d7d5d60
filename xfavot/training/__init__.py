"""The step, the loop, checkpoints and the auxiliary networks."""
