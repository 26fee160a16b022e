"""The command line: `enn-finetune COMMAND`, or `python -m enn_finetune COMMAND`.

`options` says what can be typed, so that --help answers at once; `commands` does it.
"""

import sys
from collections.abc import Sequence

from enn_finetune.cli.commands import COMMANDS
from enn_finetune.cli.options import parser
from enn_finetune.errors import InputError

INTERRUPTED = 130
FAULT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 2 for bad input, 130 when interrupted."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if "overrides" in arguments:  # argparse takes none after an option
        arguments.overrides += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if arguments.version:
        from enn_finetune.records import version

        print(version())
        return 0
    if arguments.command is None:
        top.print_help()
        return FAULT
    try:
        return COMMANDS[arguments.command](arguments)
    except (InputError, OSError) as error:  # bad input; a full disk, no permission
        print(f"enn-finetune {arguments.command}: {error}", file=sys.stderr)
        return FAULT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except RuntimeError as error:
        from enn_finetune.session import RunStoppedError

        if not isinstance(error, RunStoppedError):
            raise
        print(error, file=sys.stderr)
        return INTERRUPTED
