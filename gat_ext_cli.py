"""Entry point of the command gat-ext.

It is outside of the package because importing that loads torch, and with it OpenMP, which reads its
environment once, when it is loaded.
"""

from __future__ import annotations

import os
from signal import SIGINT, default_int_handler, getsignal, signal
from types import FrameType


def main() -> None:
    """Runs gat-ext.

    Threads that wait sleep (``OMP_WAIT_POLICY=passive``, unless the environment says otherwise):
    those that spin take the cores that other threads need on a machine with other work.
    """
    if getsignal(SIGINT) is default_int_handler:  # not where Ctrl-C is ignored, in the background
        signal(SIGINT, _exit)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from gat_ext.training.cli import main as run

    run()


def _exit(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: modules that are being imported may turn exceptions into others."""
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
