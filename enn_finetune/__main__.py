"""`python -m enn_finetune` is the console script."""

import sys

from enn_finetune.cli import main

sys.exit(main())
