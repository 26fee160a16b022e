"""The neural testbed: agents examined on problems whose generator is known (arXiv 2110.04629).

A problem is a random network (`problems`); an agent learns from labels drawn from it (`agents`,
trained by `fitting`); `scores` compare its marginal and joint predictions with the generator's
own, `floor` with the best that could be known from the labels. All of it is pure functions of
arrays with fixed shapes: problems and seeds are a `vmap`, steps a `lax.scan`.
"""
