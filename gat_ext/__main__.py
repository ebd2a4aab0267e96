"""``python -m gat_ext`` is the command gat-ext."""

from __future__ import annotations

from gat_ext_cli import main

main()
