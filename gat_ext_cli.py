"""Entry point of the command gat-ext.

It is outside of the package because importing that loads torch, which takes seconds, in which
Ctrl-C ends the process too.
"""

from __future__ import annotations

import os
from signal import SIGINT, default_int_handler, getsignal, signal
from types import FrameType


def main() -> None:
    """Runs gat-ext."""
    if getsignal(SIGINT) is default_int_handler:  # not where Ctrl-C is ignored, in the background
        signal(SIGINT, _exit)
    from gat_ext.training.cli import main as run

    run()


def _exit(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: modules that are being imported may turn exceptions into others."""
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
