"""Every term of the objective, and the objective."""
