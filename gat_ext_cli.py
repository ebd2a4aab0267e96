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

    Threads that wait spin briefly, then sleep (``GOMP_SPINCOUNT``, unless the environment sets how
    they wait): those that spin for long take cores that other work needs, and threads that sleep at
    once wake up late.
    """
    if getsignal(SIGINT) is default_int_handler:  # not where Ctrl-C is ignored, in the background
        signal(SIGINT, _exit)
    if not sets_waiting():
        os.environ["GOMP_SPINCOUNT"] = "1000"
    from gat_ext.training.cli import main as run

    run()


def sets_waiting() -> bool:
    """Whether the environment says how threads of OpenMP wait."""
    return not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}.isdisjoint(os.environ)


def _exit(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: modules that are being imported may turn exceptions into others."""
    os.write(2, b"\nInterrupted.\n")
    os._exit(130)


if __name__ == "__main__":
    main()
