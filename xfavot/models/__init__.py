"""The eight modules and the two frozen networks."""
