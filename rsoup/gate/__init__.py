"""A gate: measured values against limits and against a baseline, with the noise of both taken into account."""
