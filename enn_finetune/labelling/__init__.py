"""What to label next, and when to stop, for people with files of texts: `enn-finetune next`.

    files -> rows, labelled or not -> features (cached) -> a fit for each file of labels
          -> what the fits agree on, and the rows to label next -> a file for whoever labels them

A session keeps no state of its own: the files are the state. A row is known by its text (or pair of
texts); it is labelled where any file has a label for it. The files in which labels stand are the
rounds, in the order given. `rows` reads them, `standing` fits and says how far it has come,
`run` is the command, `telling` what it prints.
"""

from enn_finetune.labelling.run import run
from enn_finetune.labelling.standing import Round

__all__ = ["Round", "run"]
