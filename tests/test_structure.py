"""Allowed includes and imports between folders, and registries that must agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import torch

from gat_ext import _C, reference
from gat_ext.ops import scores

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"

# Folder of csrc → the folders of csrc that it may include.
MAY_INCLUDE = {
    "core": {"core"},
    "cpu": {"core", "cpu"},
    "cuda": {"core", "cuda"},
    "torch": {"core", "cpu", "cuda", "torch"},
}
# Subpackage or top-level module of gat_ext → the others that it may import.
MAY_IMPORT = {
    "ops": {"_C"},
    "graph": {"ops", "_C"},
    "functional": {"graph", "ops", "_C"},
    "nn": {"functional", "graph", "ops"},
    "models": {"nn", "functional", "graph", "ops"},
    "sampling": {"graph", "ops"},
    "explain": {"nn", "functional", "graph"},
    "export": {"models", "nn", "ops"},  # refuses the models and layers that cannot be exported
    "interop": {"nn"},
    "datasets": {"graph"},
    "distributed": {"models", "nn", "functional", "graph", "ops"},
    "training": {"models", "datasets", "distributed", "sampling", "export"}
    | {"functional", "graph", "_C", "__version__"},
    "reference": {"graph"},  # shares no code with what it tests
    "testing": {"reference", "graph"},
    "__main__": set(),
}
TORCH_PRIVATE = re.compile(r"torch\._C\.|torch\._library|torch\._dynamo\.|forward_ad\._")


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
    """The subpackages and top-level modules of gat_ext that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("gat_ext."):
            below = node.module.split(".")[1:]
            found |= {below[0]} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {n.name.split(".")[1] for n in node.names if n.name.startswith("gat_ext.")}
    return found - {"Graph"} | ({"graph"} if "Graph" in found else set())


def test_torchs_private_state_is_read_in_one_module():
    state = ROOT / "gat_ext" / "ops" / "state.py"
    assert TORCH_PRIVATE.search(state.read_text())
    assert not [p for p in modules() if p != state and TORCH_PRIVATE.search(p.read_text())]


@pytest.mark.parametrize("room", [r for r in MAY_IMPORT if (ROOT / "gat_ext" / r).is_dir()])
def test_every_folder_is_documented(room):
    text = ast.get_docstring(ast.parse((ROOT / "gat_ext" / room / "__init__.py").read_text()))
    (uses,) = re.findall(r"Uses ([^.;]*)", text.replace("\n", " "))
    assert set(re.findall(r"``(\w+)``", uses)) == MAY_IMPORT[room] - {"_C", "__version__"}


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
    assert set(_C.score_traits()) == set(reference.SCORES) == set(scores.SCORES)
    for name, traits in scores.TRAITS.items():
        assert traits.required == reference.score_inputs(name)
        assert traits.has_term == (scores.SCORES[name].term is not None)


WITHOUT_GRADIENT = {
    "gat_ext::edge_dropout_mask",
    "gat_ext::csr_of_edges",
    "gat_ext::csr_transpose",
    "gat_ext::adjacency_csr",
    "gat_ext::csr_with_loops",
    "gat_ext::random_walk",
    "gat_ext::draw_starts",
    "gat_ext::neighbor_sample",
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
        "walk_step",
    ],
)
@pytest.mark.parametrize("key", ["AutocastCPU", "AutocastCUDA"])
def test_every_public_operator_has_autocast(name, key):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gat_ext::{name}", key)
