"""Parts of the GPU benchmark on the CPU: float64 check, graphs, byte model, targets, clock."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = ["--device", "cpu", "--tiny", "--seconds", "0"]

pytest.importorskip("torch_geometric")


@pytest.fixture(scope="module", autouse=True)
def benchmarks_on_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield


def row_of(**changes):
    from cuda_plan import Row

    row = Row("arxiv", "dot", 1, 128, "bfloat16", ("forward",), ())
    return replace(row, **changes)


# ---- the check on a part of the graph


def test_a_part_of_a_graph_is_enough_to_check_it():
    from cuda_cases import SPECS, make_case
    from cuda_check import judge, take_part, truth
    from cuda_operators import SCORES, draw, leaves_of, make

    spec = replace(SPECS["arxiv"], num_src=3000, num_dst=3000, num_edges=18_000, hub=400)
    case = make_case(spec, torch.device("cpu"))
    part = take_part(case, 6000)
    src, dst = case.edge_index
    assert not part.whole and len(part.rows) < 2000 and len(part.sources) > 3
    assert len(part.src) == torch.isin(dst, part.rows).sum() <= 6000
    assert torch.isin(dst[torch.isin(src, part.sources)], part.rows).all()
    assert case.rowptr.diff().argmax() in part.rows
    whole = take_part(case, 18_000)
    assert whole.whole and len(whole.src) == 18_000
    for score in SCORES:
        tensors = draw(score, case, 2, 6, torch.float64, seed=0)
        out = make("gat_ext", score, case, torch.float64)(tensors)
        leaves = leaves_of(tensors)
        grads = torch.autograd.grad(out, list(leaves.values()), tensors["grad_out"])
        got = {"out": out.detach()}
        got |= {f"grad {name}": g for name, g in zip(leaves, grads, strict=True)}
        for one in (part, whole):
            want = truth(score, tensors, one)
            verdict = judge(got, want, one, "float64")
            assert verdict.problem is None and set(verdict.errors) == set(want)
        names = {f"grad {name}" for name in leaves}
        assert set(verdict.errors) == {"out", *names}
        source = next(name for name in ("value", "key") if name in leaves)
        got[f"grad {source}"][part.sources[-1]] *= 1.5
        verdict = judge(got, truth(score, tensors, part), part, "float64")
        assert verdict.problem is not None and f"'grad {source}'" in verdict.problem


def test_graphs_have_the_sizes_and_degrees_asked_for():
    from cuda_cases import SPECS, make_case, tiny

    for name in ("cora", "pubmed"):
        case = make_case(SPECS[name], torch.device("cpu"))
        assert case.edge_index.shape == (2, SPECS[name].num_edges)
        degrees = case.rowptr.diff()
        assert degrees.min() >= 1 and 0.5 < degrees.max() / SPECS[name].hub < 1.5
        assert torch.equal(case.rowptr, case.graph.rowptr) and case.graph.edge_id is None
        again = make_case(SPECS[name], torch.device("cpu"))
        assert torch.equal(case.edge_index, again.edge_index)
    weather = SPECS["weather"]
    assert (weather.num_src, weather.num_dst) == (542_080, 40_320)
    case = make_case(tiny(weather), torch.device("cpu"))
    assert (torch.bincount(case.edge_index[0]) == 4).all() and case.rowptr.diff().min() >= 1
    assert case.edge_index.unique(dim=1).shape == case.edge_index.shape


# ---- the byte model, by hand


def test_bytes_of_additive_by_hand():
    from cuda_traffic import Sizes, backward, forward

    # 10 edges from 3 sources to 4 destinations; 2 heads of 8 floats: rows of 64, terms of 8 bytes.
    sizes = Sizes(edges=10, sources=3, destinations=4, heads=2, channels=8, itemsize=4)
    once = 4 * (8 + 64 + 8 + 8)  # row pointer, out, lse, dst_term
    moved = forward("additive", sizes)
    assert moved.gathered == 10 * (4 + 64 + 8) + once
    assert moved.unique == 10 * 4 + 3 * (64 + 8) + once
    delta = 4 * (64 + 64 + 8)
    streamed = 10 * (4 + 4 + 8)  # col, pos, the written ds
    by_source = 3 * (8 + 2 * 64 + 2 * 8)
    sums = 10 * 8 + 4 * (8 + 8)
    back = backward("additive", sizes)
    row_of_destination = 64 + 8 + 8 + 8  # gradient, dst_term, lse, delta
    assert back.gathered == delta + streamed + 10 * row_of_destination + by_source + sums
    assert back.unique == delta + streamed + 4 * row_of_destination + by_source + sums


def test_bytes_of_dot_by_hand():
    from cuda_traffic import BOTH, FORWARD, Sizes, traffic

    # bf16: rows of 2 · 128 = 256 bytes, statistics stay 4 bytes; one edge per source.
    sizes = Sizes(
        edges=5, sources=5, destinations=2, heads=1, channels=128, itemsize=2, index_bytes=8
    )
    forward = traffic("dot", FORWARD, sizes)
    once = 2 * (8 + 2 * 256 + 4)
    assert forward.gathered == forward.unique == 5 * (8 + 2 * 256) + once
    both = traffic("dot", BOTH, sizes)
    delta = 2 * (2 * 256 + 4)
    by_destination = 5 * (8 + 2 * 256) + 2 * (8 + 3 * 256 + 2 * 4)
    by_source = 5 * (8 + 2 * 256 + 2 * 4) + 5 * (8 + 4 * 256)
    assert both.gathered == forward.gathered + delta + by_destination + by_source
    assert both.gathered - both.unique == (5 - 2) * (2 * 256 + 2 * 4)


# ---- targets


def record_of(*results):
    from cuda_results import Record

    return Record({}, {"l2": 60e6, "device": "cuda", "torch": "2"}, 4000.0, list(results))


def result_of(milliseconds, library="gat_ext", mode="forward", ratio=None, share=None, **changes):
    from cuda_results import Result

    features = changes.pop("feature_bytes", 0)
    result = Result(row_of(**changes), mode, library, milliseconds=milliseconds, edges=1000)
    result.ratio, result.share, result.feature_bytes = ratio, share, features
    result.errors = {"out": 1e-3}
    return result


def verdicts(*results):
    from cuda_targets import judge_targets

    return {t.name: (t.verdict, t.found) for t in judge_targets(record_of(*results))}


def test_targets_are_judged():
    from cuda_results import REPLAY

    found = verdicts(
        result_of(8.5, graph="reddit"),
        result_of(9.5, graph="reddit", item="cosine"),
        result_of(40.0, graph="reddit", channels=32, heads=4),
        result_of(0.05, graph="pubmed"),
        result_of(0.02, REPLAY, graph="pubmed"),
    )
    assert found["reddit bfloat16 forward, 1 × 128"] == ("no", "dot 8.500, cosine 9.500")
    assert found["reddit float32 forward, 1 × 128"] == ("not measured", "")
    assert found["pubmed bfloat16 forward, 1 × 128"][0] == "no"
    assert found["pubmed bfloat16 forward, 1 × 128 in a CUDA graph"][0] == "yes"
    assert found["results right by float64"] == ("yes", "4 of 4 checked and right, 0 wrong")

    both = "forward+backward"
    found = verdicts(
        result_of(3.0, mode=both),
        result_of(2.1, mode=both, graph="arxiv-uniform"),
        result_of(30.0, "pyg", both, ratio=10.0),
        result_of(30.0, "pyg", both, ratio=2.0, item="layer gat"),
        result_of(8.0, "pyg-compiled", both, ratio=2.7),
    )
    assert found["arxiv over arxiv-uniform, time an edge, forward+backward"] == (
        "yes", "dot bfloat16 1.43",
    )  # fmt: skip
    assert found["forward+backward over pyg"] == ("yes", "arxiv 10.0-10.0")
    assert found["forward+backward over pyg-compiled"][0] == "no"

    share = "share of the copy bandwidth, features beyond L2, forward"
    small, large = {"feature_bytes": 5e7, "share": 0.2}, {"feature_bytes": 7e7, "share": 0.75}
    assert verdicts(result_of(1.0, **small), result_of(1.0, graph="yelp", **large))[share] == (
        "yes", "yelp bfloat16 75%-75%",
    )  # fmt: skip


def test_quick_has_every_row_that_a_target_names():
    from cuda_plan import full, quick
    from cuda_results import Result
    from cuda_targets import judge_targets

    results = [
        Result(
            row, mode, library, milliseconds=1.0, edges=1, ratio=1.0, share=1.0, feature_bytes=1e9
        )
        for row in quick()
        for mode in row.modes
        for library in ("gat_ext", "gat_ext, replayed", *row.peers)
    ]
    missing = [t.name for t in judge_targets(record_of(*results)) if t.verdict == "not measured"]
    assert missing == ["CUDA graph replays equal eager, bit for bit"]  # not a row
    assert {row.graph for row in quick()} == {row.graph for row in full()}


# ---- the clock


def test_clock_rotates_over_inputs_and_stops_in_time():
    from cuda_clock import Clock, TimeLimitError, sets_beyond_cache, time_limit

    seen = []
    timing = Clock(torch.device("cpu")).time(lambda k: (seen.append(k), time.sleep(2e-4)), 0.01)
    assert 0.2 <= timing.median < 20 and timing.low <= timing.median <= timing.high
    assert seen[-1] == timing.samples * timing.calls_per_sample - 1
    with pytest.raises(TimeLimitError, match="more than 0 s"), time_limit(0.05):
        time.sleep(5)
    assert sets_beyond_cache(200, cache=60, free=10_000) == 1
    assert sets_beyond_cache(20, cache=60, free=10_000) == 9
    assert sets_beyond_cache(100, cache=60, free=10_000) == 2
    assert sets_beyond_cache(100, cache=0, free=10_000) == 2
    assert sets_beyond_cache(1, cache=60, free=40) == 10


class Replayed:
    """A CUDA graph in name: replay runs the body again, into the tensors of the captured run."""

    def __init__(self, body, faithful=True):
        self.body, self.faithful, self.captured = body, faithful, body()

    def replay(self):
        if self.faithful:
            for name, tensor in (self.body() or {}).items():
                self.captured[name].copy_(tensor)


@pytest.mark.parametrize("faithful", [True, False])
def test_a_capture_is_compared_on_new_inputs(faithful):
    from cuda_capture import captures_equal
    from cuda_cases import SPECS, make_case, tiny
    from cuda_clock import Clock

    clock = Clock(torch.device("cpu"))
    case = make_case(tiny(SPECS["pubmed"]), clock.device)
    assert captures_equal(clock, case, "pubmed", "dot", "float32").status == "left out"
    clock.capture = lambda body: (graph := Replayed(body, faithful), graph.captured)
    clock.on_gpu, clock.synchronize = True, lambda: None
    found = captures_equal(clock, case, "pubmed", "cosine", "bfloat16")
    if faithful:
        assert (found.status, found.note) == ("ok", "")
    else:
        assert found.note == "differs in out, query, key, dst_term, src_term"
    clock.capture = lambda body: 1 / 0
    assert captures_equal(clock, case, "pubmed", "dot", "float32").status == "failed"


def test_a_replay_is_timed_by_the_call():
    from cuda_clock import Clock

    clock, seen = Clock(torch.device("cpu")), []
    clock.capture = lambda body: (graph := Replayed(body), graph.captured)
    timing = clock.time_replay(lambda k: (seen.append(k), time.sleep(5e-4)), sets=4, seconds=0.0)
    assert set(seen) == {0, 1, 2, 3} and 0.5 <= timing.median < 20
