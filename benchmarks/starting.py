"""How the scripts here start."""

import sys
from collections.abc import Callable
from pathlib import Path

from enn_finetune.errors import InputError


def run_script(main: Callable[[], None]) -> None:
    """Run a script's main; what is wrong with its input is one sentence, and exit status 2."""
    try:
        main()
    except (InputError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
