"""Checks that shared (weak) functions in an archive of kernels have no AVX instructions.

The linker keeps one copy of a weak function for all instruction sets; if that copy came from an
AVX-512 object, the program would crash on a machine without it. Kernels have their instruction set
in their names; everything else must be compiled for the baseline.
"""

from __future__ import annotations

import re
import subprocess
import sys

KERNEL = re.compile(r"gat::cpu::Avx(2|512)\b")


def weak_symbols(archive: str) -> set[str]:
    listing = subprocess.run(["nm", "-C", archive], check=True, capture_output=True, text=True)
    lines = (re.match(r"[0-9a-f]+ [VWu] (.*)", line) for line in listing.stdout.splitlines())
    return {match[1] for match in lines if match}


def offenders(archive: str) -> dict[str, int]:
    weak = weak_symbols(archive)
    code = subprocess.run(
        ["objdump", "-dC", "--no-show-raw-insn", archive],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, int] = {}
    function, kernels = "", 0
    for line in code.stdout.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = header[1]
        elif re.match(r"\s+[0-9a-f]+:\s+v[a-z]", line):
            if KERNEL.search(function):
                kernels += 1
            elif function in weak:
                found[function] = found.get(function, 0) + 1
    if not kernels:
        sys.exit("no AVX instruction in any kernel; expected an archive of the kernels of all sets")
    return found


if __name__ == "__main__":
    bad = offenders(sys.argv[1])
    for name, count in bad.items():
        print(f"{count} AVX instructions in the shared function {name}")
    sys.exit(bool(bad))
