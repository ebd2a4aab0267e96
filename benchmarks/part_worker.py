"""A process of ``bench_distributed.py``: one part of a graph, and a model that trains on it.

    python benchmarks/part_worker.py '{"rank": 0, "size": 1, "port": 29501, ...}'

It answers each line of standard input with a line of JSON: to "step", the seconds of a step of
training and its loss; to "memory", its peak beyond that before the graph was loaded.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

# For a package built in place; an installed one has priority.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from timing import memory_status, reset_peak, trim

from gat_ext import Graph
from gat_ext.distributed import DistGraph, load, sum_over_processes
from gat_ext.models import AGNN, GAT, GATv2, GraphTransformer


def make_model(name: str, channels: int, heads: int) -> torch.nn.Module:
    """Two layers; the width between them is that of the input."""
    hidden = channels // heads
    plain: dict[str, Any] = {"heads": heads, "dropout": 0.0, "attn_dropout": 0.0}
    if name == "agnn":
        return AGNN(channels, channels, channels, dropout=0.0)
    kind = {"gat": GAT, "gatv2": GATv2, "transformer": GraphTransformer}[name]
    return kind(channels, hidden, channels, **plain)


def features_of(nodes: Tensor, channels: int) -> Tensor:
    """Features that depend on the numbers of the nodes alone."""
    column = torch.arange(channels, dtype=torch.float32)
    phase = nodes.to(torch.float32).unsqueeze(1) * 0.01 + column
    return phase.sin_()


class Trainer:
    """A part of the graph, or with one process all of it as a Graph."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.size = config["size"]
        torch.set_num_threads(config["threads"])
        if self.size > 1:
            store = dist.TCPStore("127.0.0.1", config["port"], is_master=config["rank"] == 0)
            sizes = {"rank": config["rank"], "world_size": self.size}
            dist.init_process_group("gloo", store=store, timeout=timedelta(seconds=300), **sizes)
        torch.manual_seed(0)
        model = make_model(config["model"], config["channels"], config["heads"])
        self.model = DistributedDataParallel(model) if self.size > 1 else model
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        model(torch.randn(4, config["channels"]), torch.tensor([[0, 1], [1, 2]])).sum().backward()
        self.optimizer.zero_grad()
        trim()
        reset_peak()
        self.before = memory_status("VmRSS")
        if config.get("limit"):
            allowed = memory_status("VmData") + config["limit"]
            resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))
        part = load(config["folder"], config["rank"]).part
        if self.size > 1:
            self.graph: Any = DistGraph(part, mode=config["mode"])
            nodes = part.dst_nodes
        else:
            self.graph = Graph(part.edge_index, num_nodes=part.num_own_dst)
            nodes = part.dst_nodes
        self.num_nodes = part.num_dst
        self.x = features_of(nodes, config["channels"])

    def step(self) -> dict[str, float]:
        """One step of training: the mean square of the logits as the loss."""
        if self.size > 1:
            dist.barrier()
            self.graph.traffic.forward = self.graph.traffic.backward = 0
        start = time.perf_counter()
        logits = self.model(self.x, self.graph)
        loss = logits.square().sum() * (self.size / self.num_nodes)  # gradients are averaged
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        seconds = time.perf_counter() - start
        sent = 0
        if self.size > 1:
            sent = self.graph.traffic.forward + self.graph.traffic.backward
        total = sum_over_processes(loss.detach().double()) / self.size
        return {"seconds": seconds, "loss": float(total), "sent": sent}

    def memory(self) -> dict[str, float]:
        """Bytes at the peak since the graph was loaded."""
        return {"memory": memory_status("VmHWM") - self.before}


def main() -> None:
    """Reads requests until the end of standard input."""
    trainer = Trainer(json.loads(sys.argv[1]))
    print(json.dumps({"ready": 1}), flush=True)
    for line in sys.stdin:
        answer = trainer.step() if line.strip() == "step" else trainer.memory()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
