"""All steps on a machine with a GPU: build, test, sanitize, time.

    python benchmarks/cuda/visit.py                     all stages
    python benchmarks/cuda/visit.py build time          some of them

"build" compiles the extension in place for this GPU and the installed torch; "test" runs the tests
of operators, graphs and layers on it; "sanitize" runs every operator under compute-sanitizer;
"time" runs ``run.py`` on graphs of public sizes. After a failed stage the next one runs. The folder
of --out gets a log of each stage and the figures. The exit status is 1 if a stage failed, 2 without
a GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("build", "test", "sanitize", "time")
TOOLS = ("memcheck", "racecheck", "synccheck")
TESTS = ("edge_attention", "edge_attention_edge_cases", "sparse_ops", "graph", "nn",
         "nn_parameters", "native", "cuda")  # fmt: skip
_UNSUPPORTED = "Device not supported"

_ONE_HEAD = ("--heads", "1", "--channels", "128")
_FOUR_HEADS = ("--heads", "4", "--channels", "32")
_OURS = ("--peers", "gat_ext")
_EAGER = ("--peers", "gat_ext", "pyg")
_COMPILED = ("--peers", "gat_ext", "gat_ext-compiled", "pyg", "pyg-compiled")
_ATTENTIONS = ("gat_attention", "gatv2_attention", "dot_attention", "cosine_attention")
# Arguments of run.py; large graphs omit peers that do not fit into memory.
TIMED = {
    f"{graph} {dtype} {names[0]}": (*names, "--graph", graph, "--dtype", dtype, *rest)
    for dtype in ("float32", "bfloat16")
    for graph, names, rest in (
        ("pubmed-size", _ATTENTIONS, (*_ONE_HEAD, "--peers", "gat_ext", "gat_ext-replayed", "pyg")),
        ("arxiv-size", ("operators",), (*_ONE_HEAD, *_EAGER)),
        ("arxiv-size", ("layers", "epoch"), (*_FOUR_HEADS, *_COMPILED)),
        ("amazon0505-size", _ATTENTIONS, (*_ONE_HEAD, *_EAGER)),
        ("yelp-size", _ATTENTIONS, (*_ONE_HEAD, *_EAGER)),
        ("reddit-size", _ATTENTIONS, (*_ONE_HEAD, *_OURS)),
        ("products-size", _ATTENTIONS, (*_ONE_HEAD, *_OURS)),
    )
}


@dataclass(frozen=True)
class Command:
    """One process of a stage; ``env`` is added to this process's."""

    name: str
    arguments: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


def commands(stage: str, seconds: float, out: Path) -> Iterator[Command]:
    """The commands of a stage.

    Args:
        stage: one of ``STAGES``.
        seconds: time for each tool of the sanitizer.
        out: folder for the figures.

    Raises:
        FileNotFoundError: compute-sanitizer is not installed.
    """
    if stage == "build":
        major, minor = torch.cuda.get_device_capability()
        env = {"GAT_EXT_CUDA": "1", "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}"}
        yield Command("build", (sys.executable, "setup.py", "build_ext", "--inplace"), env)
    elif stage == "test":
        files = [f"tests/test_{name}.py" for name in TESTS]
        yield Command("test", (sys.executable, "-m", "pytest", "-q", *files))
    elif stage == "sanitize":
        exercise = (sys.executable, "benchmarks/cuda/exercise.py", "--seconds", f"{seconds:g}")
        for tool in TOOLS:
            checked = (find_sanitizer(), "--tool", tool, "--error-exitcode", "86", *exercise)
            yield Command(tool, checked, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"})
    else:
        for number, (name, arguments) in enumerate(TIMED.items()):
            run = (sys.executable, "benchmarks/run.py", *arguments, "--device", "cuda")
            yield Command(f"time {name}", (*run, "--out", str(out / f"time_{number:02}")))


def find_sanitizer() -> str:
    """The path of compute-sanitizer.

    Raises:
        FileNotFoundError: it is neither on PATH nor next to nvcc.
    """
    folders = [os.environ.get("PATH", ""), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    found = shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
    if found is None:
        raise FileNotFoundError("compute-sanitizer is neither on PATH nor in $CUDA_HOME/bin")
    return found


def execute(command: Command, out: Path) -> tuple[str, str]:
    """Runs a command with its output in a log; returns the status and the last line."""
    log = out / f"{command.name.replace(' ', '_')}.log"
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": search, **command.env}
    with log.open("w") as file:
        code = subprocess.call(
            command.arguments, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT
        )
    text = log.read_text(errors="replace")
    if _UNSUPPORTED in text:
        return "absent", f"compute-sanitizer: {_UNSUPPORTED}"
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
    return ("ok", last) if code == 0 else ("FAILED", f"{last} (see {log})")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument(
        "--seconds", type=float, default=60, help="per tool of the sanitizer (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/cuda"), help="(%(default)s)")
    args = parser.parse_args(argv)
    for stage in args.stages:
        if stage not in STAGES:
            parser.error(f"unknown stage '{stage}': choose from {', '.join(STAGES)}")
    if not torch.cuda.is_available():
        print("torch finds no GPU; run this on a machine with one", file=sys.stderr)
        return 2
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    failed = False
    for stage in args.stages or STAGES:
        try:
            for command in commands(stage, args.seconds, out):
                start = time.perf_counter()
                status, detail = execute(command, out)
                failed = failed or status == "FAILED"
                seconds = time.perf_counter() - start
                print(f"{command.name:<42} {status:<7} {seconds:5.0f} s  {detail}", flush=True)
        except FileNotFoundError as error:
            print(f"{stage:<42} absent           {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
