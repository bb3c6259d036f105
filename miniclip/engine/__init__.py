"""Inference plans: what a loaded network becomes when only its answers are wanted, fast."""
