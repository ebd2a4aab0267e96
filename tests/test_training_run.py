"""Runs over seeds: checkpoints, resuming, Ctrl-C, reports, renumbered nodes, dense PyTorch."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading

import numpy as np
import pytest
import torch
from torch.testing import assert_close
from typer.testing import CliRunner

from gat_ext import datasets
from gat_ext.graph import ORDERS
from gat_ext.training import Recipe, checkpoint, checkpointed, metrics
from gat_ext.training import compare as compare_module
from gat_ext.training.checkpointed import Interrupted
from gat_ext.training.cli import app
from gat_ext.training.compare import compare
from gat_ext.training.files import replacing
from gat_ext.training.run import Run, RunConfig

SHORT = Recipe(epochs=12, patience=50)


@pytest.fixture(scope="module")
def data():
    return datasets.load("karate")


def test_checkpoint_is_read_without_running_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"format": 1, "x": Evil()}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(ValueError, match="not a checkpoint"):
            checkpoint.load(tmp_path / name)
    assert not (tmp_path / "pwned").exists()
    torch.save({"format": 99}, tmp_path / "new.pt")
    with pytest.raises(ValueError, match="format 99"):
        checkpoint.load(tmp_path / "new.pt")
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path / "none.pt")


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.pt"
    checkpoint.save({"x": torch.ones(2)}, path)
    with pytest.raises(Exception, match="pickle"):
        checkpoint.save({"x": lambda: None}, path)
    assert torch.equal(checkpoint.load(path)["x"], torch.ones(2))
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_files_are_replaced_whole_and_readable_by_others(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with replacing(path) as file:
        file.write(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_run_over_seeds_resumes_and_reports(data, tmp_path):
    config = RunConfig("gat", "karate", 0, 3, Recipe(epochs=6), {})
    whole = Run(config, data, tmp_path / "whole")
    whole.train(lambda trainer: None)

    class Stop(Exception):
        pass

    def stop_in_second_seed(trainer):
        if trainer.seed == 1 and trainer.epoch == 3:
            cut.save_checkpoint()
            raise Stop

    cut = Run(config, data, tmp_path / "cut")
    with pytest.raises(Stop):
        cut.train(stop_in_second_seed)
    resumed = Run(config, data, tmp_path / "cut")
    resumed.resume()
    assert len(resumed.results) == 1
    resumed.train(lambda trainer: None)
    for a, b in zip(whole.results, resumed.results, strict=True):
        assert (a.history, a.test_score, a.best_epoch) == (b.history, b.test_score, b.best_epoch)
    assert len(whole.best_models) == len(resumed.best_models) == 3
    for one, other in zip(whole.best_models, resumed.best_models, strict=True):
        assert all(torch.equal(value, other[key]) for key, value in one.items())
    mean, deviation = whole.summary()
    scores = [r.test_score for r in whole.results]
    assert mean == pytest.approx(np.mean(scores)) and deviation == pytest.approx(
        np.std(scores, ddof=1)
    )
    with pytest.raises(ValueError, match=r"--seeds is 3 there and 2 here \(it may grow only\)"):
        Run(RunConfig("gat", "karate", 0, 2, Recipe(epochs=6), {}), data, tmp_path / "cut").resume()

    assert [line[:20] for line in whole.report()] == ["Attention is uniform"]  # after 6 epochs
    written = {p.name for p in (tmp_path / "whole").iterdir()}
    assert written == {"metrics.json", "curves.png", "attention.png", "checkpoint.pt"}
    report = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert report["test_score_mean"] == mean
    assert len(report["seeds"]) == 3 and len(report["seeds"][0]["history"]["val_loss"]) == 6
    for name in ("curves.png", "attention.png"):
        assert (tmp_path / "whole" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_options_change_the_preset_and_nothing_else(data):
    def model(name, dataset, **options):
        return RunConfig(name, dataset, 0, 1, SHORT, options).make_model(data)

    gat = model("gat", "cora", heads=4)
    assert [layer.heads for layer in gat.layers] == [4, 1]
    assert [layer.feat_dropout for layer in gat.layers] == [0.6, 0.6]
    pubmed = model("gat", "pubmed", hidden_channels=16)
    assert [(layer.heads, layer.out_channels) for layer in pubmed.layers] == [(8, 16), (8, 2)]
    agnn = model("agnn", "cora", hidden_channels=32, num_layers=3)
    assert agnn.lin_in.out_features == 32
    assert [layer.beta.requires_grad for layer in agnn.layers] == [False, True, True]
    assert agnn.layers[0].beta.item() == 0


def interrupted(config, data, folder, times):
    run = Run(config, data, folder)

    def progress(trainer):
        if trainer.epoch == 3:
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    try:
        run.train(progress)
    finally:
        assert signal.getsignal(signal.SIGINT) is before
    return run


@pytest.fixture
def handler():
    """Sets the handler of SIGINT, which background processes, such as these tests, may ignore."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda chosen: signal.signal(signal.SIGINT, chosen)
    signal.signal(signal.SIGINT, before)


def test_first_interrupt_waits_for_the_epoch_second_does_not(data, tmp_path, handler):
    handler(signal.default_int_handler)
    config = RunConfig("gat", "karate", 0, 1, Recipe(epochs=6), {})
    for folder, times, error, epoch in (("a", 1, Interrupted, 3), ("b", 2, KeyboardInterrupt, 0)):
        with pytest.raises(error):
            interrupted(config, data, tmp_path / folder, times)
        state = checkpoint.load(tmp_path / folder / "checkpoint.pt")
        assert len(state["trainers"][0]["history"]["val_loss"]) == epoch


def test_a_run_that_ignores_interrupts_or_is_in_a_thread_goes_on(data, tmp_path, handler):
    config = RunConfig("gat", "karate", 0, 1, Recipe(epochs=6), {})
    handler(signal.SIG_IGN)
    assert interrupted(config, data, tmp_path / "ignores", 1).results[0].epochs == 6
    run = Run(config, data, tmp_path / "thread")
    thread = threading.Thread(target=run.train, args=(lambda trainer: None,))
    thread.start()
    thread.join()
    assert run.results[0].epochs == 6


def test_a_long_run_saves_now_and_then(data, tmp_path, monkeypatch):
    """A killed run goes on from the last of them, and ends as if it had not been killed."""
    monkeypatch.setattr(checkpointed, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(checkpointed, "CHECKPOINT_SHARE", 0.0)
    config = RunConfig("gat", "karate", 0, 1, Recipe(epochs=6), {})
    whole, killed = Run(config, data, tmp_path / "whole"), Run(config, data, tmp_path / "killed")
    whole.train(lambda trainer: None)

    class Killed(Exception):
        pass

    def kill(trainer):
        if trainer.epoch == 4:
            raise Killed

    with pytest.raises(Killed):
        killed.train(kill)
    saved = checkpoint.load(tmp_path / "killed" / "checkpoint.pt")
    assert len(saved["trainers"][0]["history"]["val_loss"]) == 3
    resumed = Run(config, data, tmp_path / "killed")
    resumed.resume()
    resumed.train(lambda trainer: None)
    assert resumed.results[0].history == whole.results[0].history
    assert all(torch.equal(v, whole.best_models[-1][k]) for k, v in resumed.best_models[-1].items())


def test_checkpoint_of_something_else_is_refused(data, tmp_path):
    run = Run(RunConfig("gat", "karate", 0, 1, SHORT, {}), data, tmp_path)
    checkpoint.save({"config": {}}, run.checkpoint_path)
    with pytest.raises(ValueError, match="not of a run"):
        run.resume()


def test_comparison_checks_before_it_times(monkeypatch):
    row = compare(40, degree=3, repeats=1)
    assert row.num_nodes == 40 and 0 < row.num_edges <= 120 and row.dense > 0 and row.fused > 0
    right = compare_module.gat_attention

    def wrong_gradient(graph, value, dst_term, src_term):
        return right(graph, value, dst_term, src_term.detach() + 0 * src_term)

    monkeypatch.setattr(compare_module, "gat_attention", wrong_gradient)
    with pytest.raises(AssertionError):
        compare(40, degree=3, repeats=1)


# ---- nodes renumbered before training


@pytest.mark.parametrize("method", ORDERS)
@pytest.mark.parametrize("name", ["karate", "sbm"])
def test_dataset_is_renumbered_whole(name, method):
    data = datasets.load(name)
    data = datasets.NodeDataset(**{**vars(data), "graph_ids": torch.arange(data.num_nodes)})
    moved, permutation = data.reorder(method)
    datasets.NodeDataset(**vars(moved))  # its checks
    for field in ("x", "y", "train_mask", "val_mask", "test_mask", "graph_ids"):
        assert torch.equal(getattr(moved, field), getattr(data, field)[permutation])
    assert (moved.name, moved.num_classes) == (data.name, data.num_classes)
    keys = moved.edge_index[1] * data.num_nodes + moved.edge_index[0]
    assert (keys.diff() > 0).all()  # sorted by destination, then source
    pairs = set(map(tuple, permutation[moved.edge_index].t().tolist()))
    assert pairs == set(map(tuple, data.edge_index.t().tolist()))


def test_training_goes_the_same_way_without_chance(tmp_path):
    """Without dropout nothing depends on the order but rounding."""
    data, options = datasets.load("sbm", num_nodes=300), {"hidden_channels": 4}
    runs = []
    for method in (None, *ORDERS):
        config = RunConfig("agnn", "sbm", 0, 1, Recipe(epochs=5), options, method)
        run = Run(config, data, tmp_path / str(method))
        expected = data if method is None else data.reorder(method)[0]
        assert torch.equal(run.data.edge_index, expected.edge_index)
        make = RunConfig.make_model

        def without_dropout(config, data, make=make):
            model = make(config, data)
            model.dropout = 0.0
            return model

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunConfig, "make_model", without_dropout)
            run.train(lambda trainer: None)
        run.report()
        runs.append(run)
    first = runs[0]
    entropy = spread(first)
    for run in runs[1:]:
        assert_close(
            run.results[0].history["train_loss"],
            first.results[0].history["train_loss"],
            rtol=1e-4,
            atol=1e-5,
        )
        assert run.results[0].test_score == pytest.approx(first.results[0].test_score, abs=0.01)
        for key, value in first.best_models[-1].items():
            assert_close(run.best_models[-1][key], value, rtol=1e-3, atol=1e-4)
        assert_close(spread(run), entropy, rtol=1e-3, atol=1e-4)
        assert (run.folder / "attention.png").read_bytes()[:4] == b"\x89PNG"


def spread(run: Run) -> torch.Tensor:
    """What attention.png shows: the entropies, in no order."""
    model = run.config.make_model(run.data)
    model.load_state_dict(run.best_models[-1])
    layers = model.attention_weights(run.data.x, run.data.edge_index)
    return torch.stack(
        [metrics.entropies(*layer, run.data.num_nodes)[0].sort(0).values for layer in layers]
    )


def test_resume_needs_the_same_order(tmp_path):
    data = datasets.load("karate")

    def run(method):
        config = RunConfig("gat", "karate", 0, 1, Recipe(epochs=2), {}, method)
        return Run(config, data, tmp_path)

    run("rcm").train(lambda trainer: None)
    run("rcm").resume()
    for other in (None, "degree"):
        with pytest.raises(ValueError, match="--reorder is rcm there and"):
            run(other).resume()


def test_a_checkpoint_without_the_setting_is_of_no_order(tmp_path):
    config = RunConfig("gat", "karate", 0, 1, Recipe(epochs=2), {})
    run = Run(config, datasets.load("karate"), tmp_path)
    run.train(lambda trainer: None)
    state = torch.load(run.checkpoint_path, weights_only=True)
    del state["config"]["reorder"]
    torch.save(state, run.checkpoint_path)
    run.resume()


def test_the_command_line_takes_an_order(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    command = ["train", "--dataset", "karate", "--epochs", "3", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*command, "--reorder", "community"])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert report["config"]["reorder"] == "community"
    result = CliRunner().invoke(app, [*command, "--reorder", "comunity"])
    assert result.exit_code == 2 and "one of community, " in result.output
