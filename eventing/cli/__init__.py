"""The command `eventing`. One module per verb; each imports what it needs when it runs, so that `--help` is quick.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the command."""
    from eventing.cli.app import run

    sys.exit(run())
