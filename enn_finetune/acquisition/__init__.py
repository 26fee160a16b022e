"""Acquisition: priorities (N,) from log-probabilities (K, N, C). No rule is shown a label."""
