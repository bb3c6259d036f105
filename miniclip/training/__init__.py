"""Training: a drawn world to learn from, the optimiser, the loop, and its checkpoints."""
