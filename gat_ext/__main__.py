"""``python -m gat_ext`` is the command gat-ext."""

from __future__ import annotations

import os
import sys

from gat_ext_cli import main, sets_waiting

if sets_waiting():
    main()
else:
    # This package has loaded torch, and OpenMP read its environment then: start again.
    flags = sys.orig_argv[1 : sys.orig_argv.index("-m")]
    os.execv(sys.executable, [sys.executable, *flags, "-m", "gat_ext_cli", *sys.argv[1:]])
