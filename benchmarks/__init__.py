"""Figures beside their baselines; `python -m benchmarks` prints them all."""
