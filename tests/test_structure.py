"""The house plan, checked: who may include and import whom, and registries that must agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from gat_ext import _C, reference

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"

# Folder of csrc → the folders of csrc it may include.
MAY_INCLUDE = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "torch": {"core", "cpu", "cuda", "torch"},
}
# Module of gat_ext → the modules of gat_ext it may import, beside itself. Private helpers are listed under whom they serve.
MAY_IMPORT = {
    "graph": {"_graph_csr", "_graph_io", "_graph_order"},
    "_graph_order": set(),
    "_graph_csr": {"_C", "graph"},
    "_graph_io": {"graph", "_graph_csr"},
    "reference": {"graph", "_reference_edges", "reference_dense"},
    "_reference_edges": {"graph"},
    "reference_dense": {"graph"},
    "reference_walk": {"graph"},
    "testing": {"graph", "reference"},
    "_native": set(),
    "_ops": {"_C", "_graph_csr"},
    "_ops_second": {"_ops", "reference"},
    "_ops_edge_attention": {"_ops", "_ops_second"},
    "_ops_walk": {"_ops"},
    "_ops_adjacency": {"_ops", "_ops_edge_attention", "_ops_second"},
    "_ops_transforms": {"_ops", "_ops_adjacency", "_ops_second"},
    "_traced": {"_ops", "_ops_adjacency", "_ops_transforms", "graph"},
    "_by_torch": {"_dense", "_ops_second", "_traced", "graph", "reference"},
    "_dense": {"_ops"},
    "_contents": {"_C"},
    "_checks": {"_C", "_dense", "graph"},
    "_masked": {"_checks", "_dense", "_ops", "_traced", "graph"},
    "functional": {
        "_by_torch",
        "_checks",
        "_dense",
        "_masked",
        "_ops",
        "_ops_edge_attention",
        "_traced",
        "functional_sparse",
        "functional_walk",
        "graph",
    },
    "functional_sparse": {"_checks", "_dense", "_ops", "graph", "reference"},
    "functional_walk": {"_checks", "_ops", "_ops_walk", "graph"},
    "features": {"_contents", "_dense", "_graph_io", "functional", "graph"},
    "interop": {"nn"},
    "nn": {
        "_checks",
        "_contents",
        "_dense",
        "_graph_csr",
        "_graph_io",
        "_traced",
        "features",
        "functional",
        "graph",
    },
    "models": {
        "_contents",
        "_dense",
        "_ops_walk",
        "_traced",
        "nn",
        "features",
        "functional",
        "graph",
    },
    "explain": {"_checks", "functional", "graph", "nn"},
    "datasets": {"graph"},
    "training": {"models", "datasets", "graph", "functional", "reference", "_C", "__version__"},
}


def includes(path: Path) -> list[str]:
    return re.findall(r'#include\s*[<"]([^>"]+)[>"]', path.read_text())


@pytest.mark.parametrize("folder", [f for f in MAY_INCLUDE if (CSRC / f).is_dir()])
def test_include_directions(folder):
    files = [p for p in (CSRC / folder).rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    assert files
    for path in files:
        for name in includes(path):
            local = (path.parent / name).resolve()
            if local.is_relative_to(CSRC) and local.exists():
                target = local.relative_to(CSRC).parts[0]
                assert target in MAY_INCLUDE[folder], f"{path} includes {name}"
            elif folder != "torch":
                assert not re.match(r"(torch|ATen|c10|pybind11|Python)\b", name), (
                    f"{path} includes {name}"
                )
                if folder == "core":
                    assert "/" not in name, f"{path} includes {name}: core stands on std alone"


def imported(path: Path) -> set[str]:
    """Modules of gat_ext that a file imports, by their first name below gat_ext."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gat_ext"):
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("gat_ext.")}
    return found - {"Graph"} | ({"graph"} if "Graph" in found else set())


def modules() -> list[Path]:
    return [p for p in (ROOT / "gat_ext").rglob("*.py") if p != ROOT / "gat_ext" / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_import_directions(path):
    owner = path.relative_to(ROOT / "gat_ext").parts[0].removesuffix(".py")
    assert owner in MAY_IMPORT, f"say in this test what {owner} may import"
    assert imported(path) <= MAY_IMPORT[owner] | {owner}


def test_package_does_not_import_tests_or_benchmarks():
    for path in modules():
        assert not re.search(r"^\s*(from|import) (tests|benchmarks)\b", path.read_text(), re.M), (
            path
        )


def test_files_are_short():
    files = [*modules(), *CSRC.rglob("*.h"), *CSRC.rglob("*.cpp"), *CSRC.rglob("*.cuh")]
    long = {
        str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 420
    }
    assert not long


def test_scores_agree():
    assert set(_C.score_names()) == set(reference.SCORES) == set(_C.score_inputs())


WITHOUT_GRADIENT = {
    "gat_ext::edge_dropout_mask",
    "gat_ext::csr_of_edges",
    "gat_ext::csr_transpose",
    "gat_ext::checked_csr",
    "gat_ext::edge_slots",
    "gat_ext::random_walk",
    "gat_ext::draw_starts",
}


def test_every_operator_has_fake_and_device_kernels(operators_of_the_cpu):
    names = [n for n in torch._C._dispatch_get_all_op_names() if n.startswith("gat_ext::")]
    assert len(names) >= 9
    for name in names:
        assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, "CPU"), name
        entry = torch._library.simple_registry.singleton.find(name)
        assert entry.fake_impl.kernel is not None, f"{name} has no fake kernel"
        if _C.build_info()["cuda"] and name not in operators_of_the_cpu:
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA"), name
        if name not in WITHOUT_GRADIENT:
            assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "Autograd"), name


@pytest.mark.parametrize(
    "name",
    [
        "edge_softmax",
        "sddmm",
        "spmm",
        "spmm_extremum",
        "edge_attention",
        "adjacency_attention",
        "walk_step",
    ],
)
@pytest.mark.parametrize("key", ["AutocastCPU", "AutocastCUDA"])
def test_every_public_operator_has_autocast(name, key):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gat_ext::{name}", key)
