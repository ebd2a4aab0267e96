"""All steps on a machine with a GPU: build, test, sanitize, profile, time.

    python benchmarks/cuda/visit.py build test sanitize profile    the first ten minutes
    python benchmarks/cuda/visit.py time                           the second

"build" compiles the extension in place for this GPU and the installed torch; "test" runs the tests
that name a device on it, and then those of layers, models, walks and compiled programs with tensors
created there; "sanitize" runs every operator under compute-sanitizer; "profile" shows a forward and
backward to Nsight Compute; "time" runs ``run.py`` on graphs of public sizes, the most telling
first, and compares the figures with the targets. After a failed stage the next one runs. A stage
that is out of its time is stopped, and the rest of it left out; what a stage does not need, the
later ones have. The folder of --out gets a log of each command and the figures. The exit status is
1 if a command failed, 2 without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import targets
import torch

ROOT = Path(__file__).resolve().parents[2]
# Seconds of each stage. Those before "time" fit into ten minutes together.
PLAN = {"build": 150, "test": 220, "sanitize": 110, "profile": 90, "time": 570}
STAGES = tuple(PLAN)
TOOLS = ("memcheck", "initcheck")  # no kernel has shared memory or barriers
# Tests that name their devices, and tests that run on the device of --device.
OPERATOR_TESTS = ("cuda", "raw_operators", "head_terms", "edge_attention", "sparse_ops",
                  "edge_mask", "large_scores", "linear_edges", "graph", "reorder", "edge_weight",
                  "edge_attention_edge_cases")  # fmt: skip
LAYER_TESTS = ("nn", "models", "walk", "walk_agent", "autocast", "adjacency_csr", "native",
               "compile", "nn_parameters", "walk_edge_cases", "determinism")  # fmt: skip
PROFILED = (
    ("gat_attention", "reddit-size", "bfloat16"),
    ("gat_attention", "arxiv-size", "float32"),
    ("dot_attention", "reddit-size", "bfloat16"),
)
_UNSUPPORTED = "Device not supported"

_ONE_HEAD = ("--heads", "1", "--channels", "128")
_FOUR_HEADS = ("--heads", "4", "--channels", "32")
_OURS = ("--peers", "gat_ext")
_EAGER = ("--peers", "gat_ext", "pyg", "triton")
_COMPILED = ("--peers", "gat_ext", "gat_ext-compiled", "pyg", "pyg-compiled")
_ATTENTIONS = ("gat_attention", "gatv2_attention", "dot_attention", "cosine_attention")
# Arguments of run.py, in the order in which time may run out; large graphs omit peers that do not
# fit into memory.
_CASES = (
    ("pubmed-size", _ATTENTIONS, (*_ONE_HEAD, "--peers", "gat_ext", "gat_ext-replayed", "pyg")),
    ("arxiv-size", ("operators",), (*_ONE_HEAD, *_EAGER)),
    ("amazon0505-size", _ATTENTIONS, (*_ONE_HEAD, *_EAGER)),
    ("reddit-size", _ATTENTIONS, (*_ONE_HEAD, *_OURS)),
    ("arxiv-size", ("layers", "epoch"), (*_FOUR_HEADS, *_COMPILED)),
    ("products-size", _ATTENTIONS, (*_ONE_HEAD, *_OURS)),
    ("yelp-size", _ATTENTIONS, (*_ONE_HEAD, *_EAGER)),
)
TIMED = {
    f"{graph} {dtype} {names[0]}": (*names, "--graph", graph, "--dtype", dtype, *rest)
    for graph, names, rest in _CASES
    for dtype in ("bfloat16", "float32")
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
        # More processes only wait for each other's time slices on the GPU.
        parallel = ("-n", "4") if importlib.util.find_spec("xdist") else ()
        pytest = (sys.executable, "-m", "pytest", "-q", *parallel)
        yield Command("test operators", (*pytest, *_files(OPERATOR_TESTS)))
        yield Command("test layers", (*pytest, "--device", "cuda", *_files(LAYER_TESTS)))
    elif stage == "sanitize":
        exercise = (sys.executable, "benchmarks/cuda/exercise.py", "--seconds", f"{seconds:g}")
        for tool in TOOLS:
            checked = (find("compute-sanitizer"), "--tool", tool, "--error-exitcode", "86")
            env = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
            yield Command(tool, (*checked, *exercise), env)
    elif stage == "profile":
        script = (sys.executable, "benchmarks/cuda/profiled.py")
        for name, graph, dtype in PROFILED:
            title = f"profile {name} {graph} {dtype}"
            file = str(out / title.replace(" ", "_"))
            ncu = (find("ncu"), "--set", "full", "--import-source", "yes", "--clock-control",
                   "none", "--profile-from-start", "off", "--force-overwrite", "--export",
                   file)  # fmt: skip
            yield Command(title, (*ncu, *script, name, "--graph", graph, "--dtype", dtype))
            page = (ncu[0], "--import", f"{file}.ncu-rep", "--csv", "--page", "raw")
            yield Command(f"csv of {title}", (*page, "--log-file", f"{file}.csv"))
            yield Command(f"table of {title}", (*script, "--read", f"{file}.csv"))
    else:
        for number, (name, arguments) in enumerate(TIMED.items()):
            run = (sys.executable, "benchmarks/run.py", *arguments, "--device", "cuda")
            yield Command(f"time {name}", (*run, "--out", str(out / f"time_{number:02}")))


def _files(names: Sequence[str]) -> list[str]:
    return [f"tests/test_{name}.py" for name in names]


def find(tool: str) -> str:
    """The path of a tool of CUDA.

    Raises:
        FileNotFoundError: it is neither on PATH nor next to nvcc.
    """
    folders = [os.environ.get("PATH", ""), f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin"]
    found = shutil.which(tool, path=os.pathsep.join(folders))
    if found is None:
        raise FileNotFoundError(f"{tool} is neither on PATH nor in $CUDA_HOME/bin")
    return found


def execute(command: Command, out: Path, seconds: float = PLAN["time"]) -> tuple[str, str]:
    """Runs a command with its output in a log; returns the status and the last line.

    Args:
        command: what to run.
        out: folder of the log.
        seconds: after which the command and its children are killed.
    """
    log = out / f"{command.name.replace(' ', '_')}.log"
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # ninja, without which the build is serial, may be installed beside python only.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    env = {**os.environ, "PYTHONPATH": search, "PATH": path, **command.env}
    late = False
    with log.open("w") as file:
        process = subprocess.Popen(
            command.arguments, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code, late = process.wait(), True
    text = log.read_text(errors="replace")
    if _UNSUPPORTED in text:
        return "absent", f"{command.arguments[0]}: {_UNSUPPORTED}"
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "no output")
    if late:
        return "LATE", f"stopped after {seconds:.0f} s; {last} (see {log})"
    return ("ok", last) if code == 0 else ("FAILED", f"{last} (see {log})")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the stages; the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"of {', '.join(STAGES)}")
    parser.add_argument(
        "--seconds", type=float, default=30, help="per tool of the sanitizer (%(default)s)"
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
    return run(args.stages or STAGES, args.seconds, out)


def run(stages: Sequence[str], seconds: float, out: Path) -> int:
    """Runs stages within their time; the exit status."""
    failed, end = False, time.perf_counter()
    for stage in stages:
        end += PLAN[stage]
        try:
            for command in commands(stage, seconds, out):
                start = time.perf_counter()
                if start >= end:
                    print(f"{command.name:<42} left out: no time", flush=True)
                    continue
                status, detail = execute(command, out, end - start)
                # Figures that are missing are no failure; a test that did not end is.
                failed = failed or status == "FAILED" or (status == "LATE" and stage != "time")
                took = time.perf_counter() - start
                print(f"{command.name:<42} {status:<7} {took:5.0f} s  {detail}", flush=True)
            if stage == "time":
                targets.report(out)
        except FileNotFoundError as error:
            print(f"{stage:<42} absent           {error}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
