"""Builds the native extension gat_ext._C against the torch that is installed; metadata is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension

ROOT = Path(__file__).resolve().parent
COMPILE_FLAGS = ["-O3", "-std=c++20", "-fopenmp", "-fvisibility=hidden", "-Wall", "-Wno-psabi"]


def want_cuda() -> bool:
    """Whether to build the CUDA kernels: GAT_EXT_CUDA=0|1, or auto: torch has CUDA, and nvcc and the kernels are there."""
    choice = os.environ.get("GAT_EXT_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        sys.exit(f"GAT_EXT_CUDA is {choice!r}; expected auto, 0 or 1")
    missing = []
    if not list(ROOT.glob("csrc/cuda/*.cu")):
        missing.append("this version has no CUDA kernels")
    if torch.version.cuda is None:
        missing.append("torch was built without CUDA")
    if CUDA_HOME is None:
        missing.append("no nvcc")
    if choice == "1" and missing:
        sys.exit(f"GAT_EXT_CUDA=1, but: {'; '.join(missing)}")
    build = choice != "0" and not missing
    reason = (
        "GAT_EXT_CUDA=0"
        if choice == "0"
        else "; ".join(missing) or "torch has CUDA and nvcc is there"
    )
    print(
        f"gat_ext: torch {torch.__version__}; CUDA kernels: {'yes' if build else 'no'} ({reason})",
        flush=True,
    )
    return build


def extension() -> CppExtension:
    sources = [
        *ROOT.glob("csrc/torch/*.cpp"),
        *ROOT.glob("csrc/torch/cpu/*.cpp"),
        *ROOT.glob("csrc/cpu/isa/*.cpp"),
    ]
    return CppExtension(
        "gat_ext._C",
        sorted(str(path.relative_to(ROOT)) for path in sources),
        extra_compile_args={"cxx": COMPILE_FLAGS},
        extra_link_args=["-fopenmp"],
        py_limited_api=False,
    )


def requirement() -> str:
    """The one torch that the binary fits: the ABI of torch is stable within a release only."""
    return f"torch=={torch.__version__.split('+')[0]}"


want_cuda()
setup(
    ext_modules=[extension()],
    cmdclass={
        "build_ext": BuildExtension.with_options(use_ninja=shutil.which("ninja") is not None)
    },
    install_requires=[requirement(), "numpy"],
)
