"""GAM and GAMMemory: outputs, and the gradient of REINFORCE against the exact one."""

from __future__ import annotations

import itertools

import pytest
import torch

from gat_ext import Graph
from gat_ext.models import GAM, GAMMemory
from gat_ext.nn import walk_agent
from gat_ext.ops.walk import draw_starts
from gat_ext.reference.walk import transition_probabilities

SEED = torch.tensor([3])
MODELS = {"gam": GAM, "gam-mem": GAMMemory}


@pytest.fixture
def graphs():
    """Three graphs as one: a triangle with a tail, a single node, a path."""
    pairs = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3], [5, 6], [6, 7]]).t()
    graph = Graph(torch.cat([pairs, pairs.flip(0)], dim=1), num_nodes=8)
    return graph, torch.tensor([0, 1, 2, 1, 0, 2, 1, 0]), torch.tensor([0, 4, 5, 8])


def make_model(name, scale=1.0, **options):
    torch.manual_seed(1)
    sizes = {"num_steps": 4, "num_agents": 3, "hidden_channels": 6, "step_channels": (5, 4)}
    model = MODELS[name](3, 2, **{**sizes, **options}).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("walk", ["attention", "greedy", "uniform"])
def test_shapes_and_starts(graphs, name, walk):
    model = make_model(name, walk=walk)
    out = model(*graphs, graphs=torch.tensor([2, 0]), seed=SEED)
    assert out.logits.shape == (2, 3 if name == "gam" else 1, 2)
    assert out.baseline.shape == (2, 3, 3) and out.walks.nodes.shape == (6, 5)
    # Agents stay in their graphs.
    assert (out.walks.nodes[:3] >= 5).all() and (out.walks.nodes[3:] < 4).all()
    torch.testing.assert_close(
        out.probabilities, torch.stack([g.softmax(1).mean(0) for g in out.logits])
    )
    again = model(*graphs, graphs=torch.tensor([2, 0]), seed=SEED)
    assert torch.equal(out.logits, again.logits)
    predicted = model.predict(*graphs, graphs=torch.tensor([2, 0]), seed=SEED)
    assert torch.equal(predicted, out.probabilities) and not predicted.requires_grad


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_in_a_batch_equals_the_graph_alone(graphs, name):
    """With given starts and one possible walk, a graph's result is independent of its batch."""
    model, (graph, types, ptr) = make_model(name, walk="greedy"), graphs
    start = torch.tensor([[5, 6, 7]])
    among = model(graph, types, ptr, graphs=torch.tensor([2]), start=start)
    path = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]))
    alone = model(path, types[5:], torch.tensor([0, 3]), start=start - 5)
    torch.testing.assert_close(among.logits, alone.logits)


@pytest.mark.parametrize("name", MODELS)
def test_more_agents_than_in_training(graphs, name):
    model = make_model(name)
    out = model(*graphs, num_agents=7, seed=SEED)
    assert out.walks.nodes.shape == (21, 5)
    assert out.logits.shape == (3, 7 if name == "gam" else 1, 2)
    spread = [
        torch.stack(
            [model.predict(*graphs, num_agents=m, seed=SEED + i)[0, 0] for i in range(50)]
        ).std()
        for m in (1, 16)
    ]
    assert spread[1] < 0.5 * spread[0]  # 0.25 for an average over agents


def test_memory_is_the_formula(graphs):
    model = make_model("gam-mem")
    out = model(*graphs, seed=SEED)
    memory = torch.zeros(3, 6, dtype=torch.float64)
    for g, agent in itertools.product(range(3), range(3)):
        history = out.walks.hidden[3 * g + agent]
        u = model.remember(history).flatten().softmax(0)
        memory[g] += sum(u[t] * history[t] for t in range(4)) / 3
    torch.testing.assert_close(out.logits[:, 0], model.classifier(memory))


def test_starts_are_uniform_over_the_nodes_of_a_graph():
    ptr = torch.tensor([0, 1, 5, 8])
    start = draw_starts(ptr, torch.tensor([1, 0]), 40_000, SEED)
    assert (start[1] == 0).all()
    shares = torch.bincount(start[0], minlength=8) / 40_000
    torch.testing.assert_close(
        shares, torch.tensor([0, 0.25, 0.25, 0.25, 0.25, 0, 0, 0]), rtol=0, atol=0.01
    )


@pytest.mark.parametrize("name", MODELS)
def test_loss_is_the_formula(graphs, name):
    model, y = make_model(name, gamma=0.5), torch.tensor([0, 1, 1])
    out = model(*graphs, seed=SEED)
    loss = model.loss(out, y)
    cross, reinforce, error = [], [], []
    for g in range(3):
        total = 0.0
        for agent in range(3):
            logits = out.logits[g, agent if name == "gam" else 0]
            cross.append(-logits.log_softmax(0)[y[g]])
            reward = 1.0 if logits.argmax() == y[g] else -1.0
            for t in (2, 3, 4):  # the first move has uniform ranks
                target = 0.5 ** (4 - t + 1) * reward
                b = out.baseline[g, agent, t - 2]
                error.append((target - b) ** 2)
                total += (target - b) * out.walks.log_prob[3 * g + agent, t - 1]
        reinforce.append(-total / (3 if name == "gam" else 1))
    torch.testing.assert_close(loss.classification, torch.stack(cross).mean())
    torch.testing.assert_close(loss.reinforce, torch.stack(reinforce).mean())
    torch.testing.assert_close(loss.baseline, torch.stack(error).mean())
    torch.testing.assert_close(loss.total(), sum(loss))
    torch.testing.assert_close(loss.total(0.5), sum(loss) - 0.5 * loss.reinforce)
    # Only the baseline has a gradient of its own part, and none of the others.
    names = [n for n, _ in model.named_parameters()]
    for part, mine in (
        (loss.baseline, True),
        (loss.reinforce, False),
        (loss.classification, False),
    ):
        grads = torch.autograd.grad(
            part, list(model.parameters()), retain_graph=True, allow_unused=True
        )
        touched = {
            n.startswith("baseline") for n, g in zip(names, grads, strict=True) if g is not None
        }
        assert touched == {mine}


def test_only_drawn_walks_are_reinforced(graphs):
    for walk in ("greedy", "uniform"):
        model = make_model("gam", walk=walk)
        loss = model.loss(model(*graphs), torch.tensor([0, 1, 1]))
        assert loss.reinforce == 0 and not loss.reinforce.requires_grad
    short = make_model("gam", num_steps=1)
    loss = short.loss(short(*graphs), torch.tensor([0, 1, 1]))
    assert loss.reinforce == 0 and loss.baseline == 0
    loss.total().backward()


def all_walks(graph, start, num_steps):
    walks = [[start]]
    for _ in range(num_steps):
        walks = [
            [*walk, node]
            for walk in walks
            for node in graph.col[graph.rowptr[walk[-1]] : graph.rowptr[walk[-1] + 1]].tolist()
        ]
    return walks


@pytest.mark.parametrize(("name", "num_agents", "num_steps"), [("gam", 1, 4), ("gam-mem", 2, 3)])
def test_reinforce_is_the_gradient_of_the_expected_reward(monkeypatch, name, num_agents, num_steps):
    """Over all walks, the mean estimate is the negative gradient of the expected reward."""
    pairs = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 3]]).t()
    graph = Graph(torch.cat([pairs, pairs.flip(0)], dim=1))
    types, ptr, y = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 4]), torch.tensor([1])
    model = make_model(name, scale=4.0, num_agents=num_agents, num_steps=num_steps)
    walks = all_walks(graph, 0, num_steps)
    current_walks: list[list[int]] = []

    def forced(graph, current, rank, node_type, *, mode, seed, step):
        """walk_step with given moves."""
        moved, log_probs = [], []
        for agent, walk in enumerate(current_walks):
            begin, end = graph.rowptr[walk[step]], graph.rowptr[walk[step] + 1]
            p = transition_probabilities(graph, walk[step], rank[agent], node_type)
            place = graph.col[begin:end].tolist().index(walk[step + 1])
            moved.append(walk[step + 1])
            log_probs.append(p[place].log())
        return torch.tensor(moved), torch.stack(log_probs)

    monkeypatch.setattr(walk_agent, "walk_step", forced)
    parameters = [p for n, p in model.named_parameters() if n.startswith("agent")]
    expected_reward = torch.zeros((), dtype=torch.float64)
    probability = 0.0
    rewards = set()
    estimates = {}
    without = {"zero": 0.0, "learned": 1.0, "large": 50.0}
    start = torch.zeros(1, num_agents, dtype=torch.int64)
    margins = []
    for chosen in itertools.product(walks, repeat=num_agents):
        current_walks[:] = chosen
        first, second = model(graph, types, ptr, start=start).logits[0, 0].tolist()
        margins.append(second - first)
    with torch.no_grad():  # so that half of the walks are rewarded
        model.classifier.bias[1] -= torch.tensor(margins).median()
    for chosen in itertools.product(walks, repeat=num_agents):
        current_walks[:] = chosen
        out = model(graph, types, ptr, start=start)
        assert out.walks.nodes.tolist() == list(chosen)
        p = out.walks.log_prob.sum().exp()
        reward = 1.0 if out.logits[0, 0].argmax() == 1 else -1.0
        rewards.add(reward)
        probability += p.item()
        expected_reward = expected_reward + p * reward
        for kind, factor in without.items():
            loss = model.loss(out._replace(baseline=out.baseline * factor), y).reinforce
            grads = torch.autograd.grad(
                p.detach() * loss, parameters, retain_graph=True, allow_unused=True
            )
            grads = [
                torch.zeros_like(q) if g is None else g
                for g, q in zip(grads, parameters, strict=True)
            ]
            total = estimates.get(kind)
            estimates[kind] = (
                grads if total is None else [a + b for a, b in zip(total, grads, strict=True)]
            )
    assert rewards == {1.0, -1.0} and probability == pytest.approx(1.0, abs=1e-12)
    exact = torch.autograd.grad(expected_reward, parameters)
    assert max(g.abs().max() for g in exact) > 1e-3
    for estimate in estimates.values():
        torch.testing.assert_close([-g for g in estimate], list(exact), rtol=1e-9, atol=1e-11)


def separable(num_graphs):
    """Paths of five nodes whose class is the type of the middle node; all else is the same."""
    types = torch.zeros(num_graphs, 5, dtype=torch.int64)
    y = torch.arange(num_graphs) % 2
    types[:, 2] = 1 + y
    one = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])
    edges = (one.unsqueeze(1) + 5 * torch.arange(num_graphs).view(1, -1, 1)).flatten(1)
    return Graph(edges), types.flatten(), torch.arange(num_graphs + 1) * 5, y


@pytest.mark.parametrize("name", MODELS)
def test_overfits_a_tiny_set(name):
    graph, types, ptr, y = separable(8)
    torch.manual_seed(0)
    model = MODELS[name](3, 2, num_steps=6, num_agents=4, hidden_channels=16, step_channels=(8, 16))
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        loss = model.loss(model(graph, types, ptr), y)
        adam.zero_grad()
        loss.total().backward()
        adam.step()
    out = model(graph, types, ptr, seed=SEED)
    assert torch.equal(out.probabilities.argmax(1), y)
    assert (out.probabilities.max(1).values > 0.8).all()


@pytest.mark.parametrize("chosen", [None, torch.tensor([2, 0])])
def test_opcheck_of_starts(graphs, chosen):
    torch.library.opcheck(torch.ops.gat_ext.draw_starts.default, (graphs[2], chosen, 3, SEED))


@pytest.mark.parametrize(("name", "chosen"), [("gam", None), ("gam-mem", torch.tensor([2, 0]))])
def test_compiles(graphs, name, chosen):
    """Starts, walks and the loss compile to one graph, with the results of the eager call."""
    model, y = make_model(name, num_steps=2), torch.tensor([1, 0, 1])
    y = y if chosen is None else y[chosen]

    def total(seed):
        return sum(model.loss(model(*graphs, graphs=chosen, seed=seed), y))

    torch._dynamo.reset()
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    for seed in (SEED, SEED + 1):
        ours, plain = compiled(seed), total(seed)
        torch.testing.assert_close(ours, plain)
        gradients = [
            torch.autograd.grad(t, list(model.parameters()), allow_unused=True)
            for t in (ours, plain)
        ]
        torch.testing.assert_close(*gradients)
    torch._dynamo.reset()


def test_mistakes():
    with pytest.raises(ValueError, match="num_agents is 0"):
        GAM(3, 2, num_agents=0)
    with pytest.raises(ValueError, match="'attention', 'greedy', 'uniform'"):
        GAMMemory(3, 2, walk="random")
    with pytest.raises(ValueError, match=r"gamma is 1\.5"):
        GAM(3, 2, gamma=1.5)
    model, alone = (
        GAM(3, 2),
        (Graph(torch.zeros(2, 0, dtype=torch.int64), num_nodes=1), torch.zeros(1).long()),
    )
    with pytest.raises(ValueError, match="num_agents is 0"):
        model(*alone, torch.tensor([0, 1]), num_agents=0)
    with pytest.raises(ValueError, match="graph 1 has 0 nodes"):
        model(*alone, torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match=r"start has shape \[3\]; expected \[1, M\]"):
        model(*alone, torch.tensor([0, 1]), start=torch.zeros(3).long())
