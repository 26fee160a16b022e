"""Benchmarks: tasks x encoders x regimes x arms x seeds, run once each and kept line by line.

`plan` turns a config into studies and their arms; `store` is the folder of results, in which only
what is complete counts; `material` reads data and computes features once; `cells` runs one arm, all
its seeds in one program (frozen) or one seed (trainable); `replay` is about lists of bought rows,
ours or another framework's; `run` does what is missing.
"""
