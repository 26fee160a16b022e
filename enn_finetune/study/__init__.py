"""Pool rounds on frozen features for many seeds at once, to be compared pair by pair.

All seeds of a rule go through a round in the same compiled programs, and share with the same seeds
of every other rule the first labels and the randomness of the fits. A rule's purchases can be read
by several heads: those of one fit differ in their predictions only. Labels come from one oracle a
seed, and what a seed buys does not depend on the seeds that run beside it.

On a pool of 67,349 rows of 384 numbers (C = 2, K = 32) a seed's round of scoring takes some 0.15 s
of one CPU core and a fit to 1,000 labels 0.2 s; a course holds at most 1.5 GB.
`pool.py` is the same loop for one run with any backbone and head.
"""

from enn_finetune.study.arms import Course, Outcome, arm, uniform_order
from enn_finetune.study.course import forget_programs, run_course
from enn_finetune.study.ground import Ground

__all__ = [
    "Course",
    "Ground",
    "Outcome",
    "arm",
    "forget_programs",
    "run_course",
    "uniform_order",
]
