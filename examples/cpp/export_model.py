"""A model for C++: the export
===========================

Exports a GAT for any number of nodes and edges to a package that C++ runs without Python: writes
gat.pt2 and sample.pt, with features, edges and the model's result, into the current folder.
"""

from __future__ import annotations

import torch
from torch.export import Dim, export

from gat_ext.models import GAT


def main() -> None:
    """Exports the model and saves a sample."""
    torch.manual_seed(0)
    model = GAT(in_channels=16, hidden_channels=8, out_channels=4, heads=4).eval()
    nodes, edges = Dim("nodes"), Dim("edges")
    example = torch.randn(10, 16), torch.randint(10, (2, 30))
    with torch.no_grad():
        program = export(model, example, dynamic_shapes=({0: nodes}, {1: edges}))
        torch._inductor.aoti_compile_and_package(program, package_path="gat.pt2")
        x, edge_index = torch.randn(1000, 16), torch.randint(1000, (2, 20_000))
        torch.save((x, edge_index, model(x, edge_index)), "sample.pt")


if __name__ == "__main__":
    main()
