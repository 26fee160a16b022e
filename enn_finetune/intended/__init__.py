"""The intended task (Tamkin et al. 2022, arXiv 2204.08491), for text.

A seed set leaves open what the task is: the label can be told by the attribute that is meant and by
a spurious one. Does active learning ask for the rows that settle it, and does it matter whether the
encoder is pretrained?

`rows` reads a task, `data.spurious` splits it; `plan` spans tasks x encoders x weights x regimes;
`material` makes problems of them and `measures` probes their features; `cells` runs an arm, all
seeds in the same programs (frozen) or one seed (trained), both from given seed sets; `run` does
what is missing. Results lie in the folder of a benchmark (`bench.store`), with two columns more.
"""
