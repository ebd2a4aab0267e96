"""Pool and AttentionPool: values, gradients, forms of a batch, traces and mistakes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from gat_ext import SparseFeatures
from gat_ext.nn import AttentionPool, Pool

# Graphs 1 and 6 have no nodes; the nodes are in no order.
BATCH = torch.tensor([4, 0, 2, 0, 5, 2, 2, 3, 0, 5, 4, 4])
NUM_GRAPHS, NUM_NODES, CHANNELS = 7, 12, 6


def features(dtype=torch.float64, **options):
    x = torch.randn(NUM_NODES, CHANNELS, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x.requires_grad_(**options) if options else x


def attention(heads=1, channels=CHANNELS, dtype=torch.float64):
    torch.manual_seed(1)
    inner = torch.nn.Linear(CHANNELS, channels)
    return AttentionPool(torch.nn.Linear(CHANNELS, heads), inner).to(dtype)


POOLS = {
    **{reduce: lambda reduce=reduce: Pool(reduce) for reduce in ("sum", "mean", "max", "min")},
    "attention": attention,
    "attention of 2 heads": lambda: attention(2),
    "attention of channels": lambda: attention(CHANNELS),
}
over_pools = pytest.mark.parametrize("name", POOLS)


def by_hand(pool, x, batch, num_graphs):
    """One graph after the other."""
    rows = []
    for g in range(num_graphs):
        mine = x[batch == g]
        if isinstance(pool, AttentionPool):
            gate, value = pool.gate_nn(mine), pool.nn(mine)
            alpha = gate.softmax(0).repeat_interleave(value.shape[1] // gate.shape[1], dim=1)
            rows.append((alpha * value).sum(0))
        elif len(mine) == 0:
            rows.append(torch.zeros_like(x[0]))
        else:
            out = getattr(mine, {"max": "amax", "min": "amin"}.get(pool.reduce, pool.reduce))(0)
            rows.append(out)
    return torch.stack(rows)


@over_pools
def test_values_and_gradients(name):
    pool = POOLS[name]()
    x = features(requires_grad=True)
    out = pool(x, BATCH, num_graphs=NUM_GRAPHS)
    expected = by_hand(pool, x, BATCH, NUM_GRAPHS)
    assert_close(out, expected)
    assert not out[1].any() and not out[6].any()
    wanted = [x, *pool.parameters()]
    given = torch.autograd.grad(out.sin().sum(), wanted)
    assert_close(given, torch.autograd.grad(expected.sin().sum(), wanted))
    assert torch.autograd.gradcheck(lambda x: pool(x, BATCH), x)
    assert torch.autograd.gradgradcheck(lambda x: pool(x, BATCH), x)


@pytest.mark.parametrize("form", ["sorted", "shuffled"])
def test_values_are_those_of_pyg(form):
    nn = pytest.importorskip("torch_geometric.nn")
    batch, x = BATCH, features()
    if form == "sorted":
        batch = BATCH.sort().values
    for reduce, theirs in (
        ("sum", nn.global_add_pool),
        ("mean", nn.global_mean_pool),
        ("max", nn.global_max_pool),
    ):
        assert_close(Pool(reduce)(x, batch), theirs(x, batch))
        assert_close(Pool(reduce)(x, batch, num_graphs=9), theirs(x, batch, 9))
        assert_close(Pool(reduce)(x), theirs(x, None))
    for ours in (attention(), attention(CHANNELS)):
        like = torch.nn.Linear(CHANNELS, ours.gate_nn.out_features)
        theirs = nn.aggr.AttentionalAggregation(like, torch.nn.Linear(CHANNELS, CHANNELS)).double()
        theirs.load_state_dict(ours.state_dict())
        assert_close(ours(x, batch), theirs(x, batch))
        alone = theirs(x, torch.zeros(NUM_NODES, dtype=torch.int64))
        assert_close(ours(x), alone)


@over_pools
def test_pointers_are_a_batch(name):
    pool, x = POOLS[name](), features()
    node_ptr = torch.tensor([0, 0, 3, 4, 4, 12, 12])
    batch = torch.arange(6).repeat_interleave(node_ptr.diff())
    out = pool(x, node_ptr=node_ptr)
    assert out.shape == (6, CHANNELS)
    assert torch.equal(out, pool(x, batch, num_graphs=6))


@over_pools
def test_batch_of_features(name):
    pool = POOLS[name]()
    x = torch.stack([features(), features().flip(0), features() + 1])
    expected = torch.stack([pool(one, BATCH) for one in x])
    assert_close(pool(x, BATCH), expected)
    assert_close(pool(x.expand(2, 3, -1, -1), BATCH), expected.expand(2, 3, -1, -1))
    if isinstance(pool, AttentionPool):
        out, alpha = pool(x, BATCH, return_attention_weights=True)
        assert_close(alpha[1], pool(x[1], BATCH, return_attention_weights=True)[1])
        assert out.shape == (3, 6, CHANNELS)


def test_attention_is_a_distribution_over_the_nodes_of_each_graph():
    alpha = attention(2)(features(), BATCH, return_attention_weights=True)[1]
    assert alpha.shape == (NUM_NODES, 2)
    total = torch.zeros(6, 2, dtype=alpha.dtype).index_add(0, BATCH, alpha)
    assert_close(total, torch.tensor([1.0, 0, 1, 1, 1, 1]).double().view(-1, 1).expand(-1, 2))


@over_pools
def test_any_number_of_threads_gives_the_same_bits(name):
    pool = POOLS[name]().float()
    batch = torch.randint(50, (3000,), generator=torch.Generator().manual_seed(0))
    x = torch.randn(3000, CHANNELS, generator=torch.Generator().manual_seed(1)).requires_grad_()
    gate = torch.randn(3000, 2, generator=torch.Generator().manual_seed(2))
    if isinstance(pool, AttentionPool):  # torch's matrix products are its own affair
        pool.gate_nn, pool.nn = _Given(gate), None
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            out = pool(x, batch)
            results.append((out, *torch.autograd.grad(out.sin().sum(), x)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


class _Given(torch.nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x):
        return self.result


@over_pools
def test_narrow_dtypes(name):
    x = features(torch.bfloat16)
    narrow, wide = POOLS[name]().to(torch.bfloat16), POOLS[name]()
    out = narrow(x, BATCH)
    assert out.dtype == torch.bfloat16
    assert_close(out.double(), wide(x.double(), BATCH), rtol=0.05, atol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        cast = wide.float()(x.float(), BATCH)
    assert_close(cast.double(), wide.double()(x.double(), BATCH), rtol=0.05, atol=0.05)


@pytest.mark.one_in(4)
@torch._dynamo.config.patch(error_on_recompile=True)
@pytest.mark.parametrize("form", ["batch", "node_ptr", "one graph"])
@pytest.mark.parametrize("name", ["mean", "max", "attention of 2 heads"])
def test_compiles_once_for_all_sizes(name, form):
    torch._dynamo.reset()
    pool = POOLS[name]()
    compiled = torch.compile(pool, fullgraph=True, dynamic=True, backend="aot_eager")
    for repeats in (1, 3):
        x = features().repeat(repeats, 1).requires_grad_()
        given = {"batch": {"batch": BATCH.repeat(repeats), "num_graphs": 5 + repeats}}
        given["node_ptr"] = {"node_ptr": torch.tensor([0, 2, 5, 5, 12 * repeats])}
        arguments = given.get(form, {})
        expected, out = pool(x, **arguments), compiled(x, **arguments)
        assert_close(out, expected)
        grads = [torch.autograd.grad(one.sin().sum(), x)[0] for one in (out, expected)]
        assert_close(*grads)
    if form == "batch":
        with pytest.raises(IndexError, match="contains 8; expected node numbers below num_dst=8"):
            compiled(x, **(arguments | {"batch": BATCH.repeat(3) + 3}))
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["mean", "max", "attention"])
def test_transforms_and_exports(name):
    pool, x = POOLS[name](), features()
    expected = pool(x, BATCH, num_graphs=7)
    made = torch.fx.experimental.proxy_tensor.make_fx(lambda x: pool(x, BATCH, num_graphs=7))(x)
    assert_close(made(x), expected)
    exported = torch.export.export(pool, (x,), {"batch": BATCH, "num_graphs": 7})
    assert_close(exported.module()(x, batch=BATCH, num_graphs=7), expected)
    several = torch.stack([x, x.flip(0)])
    mapped = torch.func.vmap(lambda x: pool(x, BATCH))(several)
    assert_close(mapped, pool(several, BATCH))
    tangent = torch.randn_like(x)
    forward = torch.func.jvp(lambda x: pool(x, BATCH), (x,), (tangent,))[1]
    backward = torch.autograd.functional.jvp(lambda x: pool(x, BATCH), x, tangent)[1]
    assert_close(forward, backward)


def test_modified_batch_is_noticed():
    pool, x, batch = Pool(), features(), BATCH.clone()
    pool(x, batch)
    batch[0] = 6
    assert_close(pool(x, batch), by_hand(pool, x, batch, 7))
    node_ptr = torch.tensor([0, 5, 12])
    pool(x, node_ptr=node_ptr)
    node_ptr[1] = 1
    assert_close(pool(x, node_ptr=node_ptr)[0], x[0])


def test_no_nodes():
    none, nobody = torch.empty(0, 3), torch.empty(0, dtype=torch.int64)
    for pool in (Pool("max"), AttentionPool(torch.nn.Linear(3, 1))):
        assert pool(none, nobody).shape == (0, 3)
        assert_close(pool(none, nobody, num_graphs=2), torch.zeros(2, 3))
        assert_close(pool(none), torch.zeros(1, 3))


X = features(torch.float32)
MISTAKES = {
    "a list": ((X, BATCH.tolist()), {}, TypeError, "batch is a list; expected a torch.Tensor"),
    "int32": ((X, BATCH.int()), {}, TypeError, "batch has dtype torch.int32; expected int64"),
    "a column": ((X, BATCH[:, None]), {}, ValueError, r"batch has shape \[12, 1\]; expected \[N\]"),
    "too short": ((X, BATCH[1:]), {}, ValueError, r"batch has shape \[11\]; expected \[12\]"),
    "negative": ((X, BATCH - 1), {}, IndexError, "batch has the value -1; expected 0 to 4"),
    "beyond": ((X, BATCH), {"num_graphs": 5}, IndexError, "batch has the value 5; expected 0 to 4"),
    "no graphs": ((X, BATCH), {"num_graphs": 0}, ValueError, "num_graphs is 0; expected at least"),
    "a float": ((X, BATCH), {"num_graphs": 2.0}, TypeError, "num_graphs is 2.0 of type float"),
    "both": ((X, BATCH), {"node_ptr": BATCH}, ValueError, "batch and node_ptr are two ways"),
    "alone": ((X,), {"num_graphs": 3}, ValueError, "num_graphs is 3, without batch; expected None"),
    "short": ((X,), {"node_ptr": [0, 11]}, ValueError, "goes from 0 to 11; expected 0 to 12"),
    "late": ((X,), {"node_ptr": [1, 12]}, ValueError, "node_ptr goes from 1 to 12; expected 0"),
    "falling": ((X,), {"node_ptr": [0, 7, 5, 12]}, ValueError, "graph 1 has -2 nodes by node_ptr"),
    "one pointer": ((X,), {"node_ptr": [0]}, ValueError, r"node_ptr has shape \[1\]"),
    "integers": ((BATCH, BATCH), {}, TypeError, "x has dtype torch.int64; expected float32"),
    "a vector": ((X[:, 0], BATCH), {}, ValueError, r"x has shape \[12\]; expected \[N, C\], or"),
    "sparse": ((SparseFeatures(X), BATCH), {}, TypeError, "x is a SparseFeatures; expected a to"),
    "on meta": ((X.to("meta"), BATCH), {}, ValueError, "batch is on cpu and x is on meta"),
}


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("pool", [Pool, attention])
def test_mistakes(pool, name, monkeypatch):
    """Each is an error before anything is computed."""
    for operator in ("spmm", "edge_softmax"):
        monkeypatch.setattr(f"gat_ext.nn.pool.{operator}", None)
    module = pool()
    if isinstance(module, AttentionPool):
        module.gate_nn = None  # which cannot be called
    arguments, options, error, message = MISTAKES[name]
    if isinstance(options.get("node_ptr"), list):
        options = {"node_ptr": torch.tensor(options["node_ptr"])}
    with pytest.raises(error, match=message):
        module(*arguments, **options)


def test_mistakes_in_the_modules_of_attention():
    with pytest.raises(ValueError, match="reduce is 'avg'; expected one of 'sum', 'mean'"):
        Pool("avg")
    with pytest.raises(TypeError, match="gate_nn is a int; expected a module, such as"):
        AttentionPool(8)
    with pytest.raises(TypeError, match="nn is a str; expected a module"):
        AttentionPool(torch.nn.Linear(6, 1), "nn")
    with pytest.raises(ValueError, match="gate_nn returned 4 gates for 6 channels to pool"):
        attention(4)(features(), BATCH)
    flat = AttentionPool(torch.nn.Sequential(torch.nn.Linear(6, 1), torch.nn.Flatten(0)))
    with pytest.raises(ValueError, match=r"gate_nn returned shape \[12\] for x of shape \[12, 6\]"):
        flat(X, BATCH)
    with pytest.raises(TypeError, match="return_attention_weights is a int; expected True or Fal"):
        attention()(features(), BATCH, return_attention_weights=1)
    traced = torch.compile(Pool(), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="num_graphs is None in a compiled function"):
        traced(X, BATCH)
    torch._dynamo.reset()
    with pytest.raises(NotImplementedError, match=r"not supported by Pool of gat_ext\.nn"):
        torch.jit.script(Pool())
