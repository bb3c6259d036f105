"""Inference plans for a CPU: packed weights, steps and their compiled kernels."""
