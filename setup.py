"""Builds the native parts of gat_ext against the installed torch; metadata: pyproject.toml.

libgat_ext.so has the operators and links to torch only, so that C++ can load it; _C is the Python
module on top of it.

GAT_EXT_CUDA=auto|0|1       build CUDA kernels; auto: if torch has CUDA and a matching nvcc is found
TORCH_CUDA_ARCH_LIST=9.0    for which GPUs; unset: that of the machine, else DEFAULT_ARCHITECTURES
MAX_JOBS=2                  number of compilers that run at once
CXX=g++                     the C++ compiler
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch
from setuptools import Extension, setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension

ROOT = Path(__file__).resolve().parent
LIBRARY, MODULE, MODULE_SOURCE = "gat_ext.libgat_ext", "gat_ext._C", "csrc/torch/module.cpp"
CXX_FLAGS = ["-O3", "-g0", "-std=c++20", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]
# -lineinfo, which costs nothing at run time, gives profilers and sanitizers the lines.
NVCC_FLAGS = ["-O3", "-std=c++17", "-lineinfo", "-Xcompiler", "-fvisibility=hidden"]
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"


OLDEST_TORCH = (2, 10)
COMPILER_PROBE = """
#include <Python.h>
#include <bit>
#include <omp.h>
static_assert(std::has_single_bit(8u));
int threads() { return omp_get_max_threads(); }
"""


def check_requirements() -> None:
    """Exits with one sentence, before anything is compiled, if the build cannot succeed."""
    version = torch.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        sys.exit(f"gat_ext needs torch {oldest} or later; {version} is installed: upgrade torch")
    if "egg_info" in sys.argv or "dist_info" in sys.argv or "sdist" in sys.argv:
        return  # compiles nothing
    compiler = shlex.split(os.environ.get("CXX") or "g++")
    if shutil.which(compiler[0]) is None:
        sys.exit(
            f"gat_ext needs a C++20 compiler; no {compiler[0]} is on PATH: install one (Debian"
            " and Ubuntu: apt install g++), or name another in CXX"
        )
    with tempfile.TemporaryDirectory() as folder:
        probe = Path(folder, "probe.cpp")
        probe.write_text(COMPILER_PROBE)
        include = sysconfig.get_path("include")
        tried = subprocess.run(
            [*compiler, "-std=c++20", "-fopenmp", "-fsyntax-only", "-I", include, str(probe)],
            capture_output=True,
            text=True,
        )
    if "Python.h: No such file" in tried.stderr:
        sys.exit(
            f"gat_ext needs the headers of Python, which {include} lacks: install them (Debian and "
            "Ubuntu: apt install python3-dev)"
        )
    if tried.returncode:
        errors = [line for line in tried.stderr.splitlines() if "error" in line] or ["no message"]
        sys.exit(
            "gat_ext needs a C++20 compiler with OpenMP, such as GCC 11 or later; the test program "
            f"of setup.py failed with {shlex.join(compiler)}: {errors[0]}"
        )


class Nvcc:
    """The CUDA compiler; it reports its version and the folders of its headers and libraries."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Not from the path, which may be a wrapper, or have a layout with folders for each target.
        told = subprocess.run(
            [path, "--dryrun", "-E", "-x", "cu", os.devnull],
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        release = re.search(r"__CUDACC_VER_MAJOR__=(\d+) -D__CUDACC_VER_MINOR__=(\d+)", told)
        if release is None:
            sys.exit(f"{path} --dryrun does not name its version")
        self.version = f"{release[1]}.{release[2]}"
        self.include_dirs = self._folders(told, "INCLUDES", "-I")
        self.library_dirs = self._folders(told, "LIBRARIES", "-L")

    @staticmethod
    def _folders(told: str, name: str, flag: str) -> list[str]:
        line = re.search(rf"^#\$ {name}=(.*)$", told, re.MULTILINE)
        words = shlex.split(line[1]) if line else []
        return [os.path.realpath(word.removeprefix(flag)) for word in words]


def find_nvcc() -> Nvcc | None:
    path = Path(CUDA_HOME or "", "bin", "nvcc")
    return Nvcc(path) if CUDA_HOME and path.is_file() else None


def architectures() -> str:
    """The GPUs to build for, in words; sets the default if there is no GPU that torch could ask."""
    given = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    if given not in ("", "native"):
        return f"TORCH_CUDA_ARCH_LIST={given}"
    if torch.cuda.is_available():
        return "the GPUs of this machine"
    os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_ARCHITECTURES
    return f"{DEFAULT_ARCHITECTURES}, because there is no GPU; set TORCH_CUDA_ARCH_LIST for others"


def choose_nvcc() -> Nvcc | None:
    """The compiler of the CUDA kernels, or None for a build without; prints the choice and why."""
    choice = os.environ.get("GAT_EXT_CUDA") or "auto"
    if choice not in ("auto", "0", "1"):
        sys.exit(f"GAT_EXT_CUDA is {choice!r}; expected auto, 0 or 1")
    nvcc = None if choice == "0" else find_nvcc()
    missing = []
    if choice == "0":
        missing.append("GAT_EXT_CUDA=0")
    elif torch.version.cuda is None:
        missing.append("torch was built without CUDA")
    elif nvcc is None:
        missing.append("no nvcc on PATH, in CUDA_HOME or in /usr/local/cuda")
    elif nvcc.version.split(".")[0] != torch.version.cuda.split(".")[0]:
        missing.append(f"nvcc is {nvcc.version}, torch was built with CUDA {torch.version.cuda}")
    if choice == "1" and missing:
        sys.exit(f"GAT_EXT_CUDA=1, but: {'; '.join(missing)}")
    decision = (
        f"no ({missing[0]})" if missing else f"yes, by nvcc {nvcc.version} for {architectures()}"
    )
    print(f"gat_ext: torch {torch.__version__}; CUDA kernels: {decision}", flush=True)
    return None if missing else nvcc


def operators(nvcc: Nvcc | None) -> Extension:
    patterns = ["csrc/torch/*.cpp", "csrc/torch/cpu/*.cpp", "csrc/cpu/*.cpp", "csrc/cpu/isa/*.cpp"]
    options = {
        "extra_compile_args": {"cxx": CXX_FLAGS},
        "extra_link_args": ["-fopenmp", "-Wl,-soname,libgat_ext.so"],
    }
    if nvcc:
        patterns += ["csrc/torch/cuda/*.cpp", "csrc/cuda/*.cu"]
        options["extra_compile_args"]["nvcc"] = NVCC_FLAGS
        options["define_macros"] = [("GAT_EXT_WITH_CUDA", None)]
        options["include_dirs"] = nvcc.include_dirs
        options["library_dirs"] = nvcc.library_dirs
        if shutil.which("ccache"):
            # Depend mode, because ccache would otherwise hash nvcc -E, which has the code of one
            # architecture only.
            cached = f"env CCACHE_DEPEND=1 ccache {shlex.quote(str(nvcc.path))}"
            os.environ.setdefault("PYTORCH_NVCC", cached)
    sources = {str(p.relative_to(ROOT)) for pattern in patterns for p in ROOT.glob(pattern)}
    make = CUDAExtension if nvcc else CppExtension
    library = make(LIBRARY, sorted(sources - {MODULE_SOURCE}), **options)
    library.libraries.remove("torch_python")
    return library


def module(nvcc: Nvcc | None) -> Extension:
    return CppExtension(
        MODULE,
        [MODULE_SOURCE],
        define_macros=[("GAT_EXT_WITH_CUDA", None)] if nvcc else [],
        extra_compile_args={"cxx": CXX_FLAGS},
        extra_link_args=["-fopenmp", "-Wl,-rpath,$ORIGIN"],
    )


class Build(BuildExtension):
    """Builds the library, then the module that links to it."""

    def build_extension(self, ext: Extension) -> None:
        """Builds the library or the module."""
        if ext.name == MODULE:
            ext.extra_link_args.append(self.get_ext_fullpath(LIBRARY))
        super().build_extension(ext)


def requirement() -> str:
    """The required version of torch, whose ABI is stable only within a release."""
    return f"torch=={torch.__version__.split('+')[0]}"


check_requirements()
nvcc = choose_nvcc()
setup(
    ext_modules=[operators(nvcc), module(nvcc)],
    cmdclass={
        "build_ext": Build.with_options(
            use_ninja=shutil.which("ninja") is not None, no_python_abi_suffix=True
        )
    },
    install_requires=[requirement(), "numpy"],
)
