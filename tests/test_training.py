"""Loop, early stopping, checkpoints, metrics."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gat_ext import datasets, models
from gat_ext.training import (
    BestValidation,
    PaperStopping,
    Recipe,
    Trainer,
    checkpoint,
    metrics,
    recipe,
)
from gat_ext.training.run import Run, RunConfig
from gat_ext.training.stopping import make_stopping

SHORT = Recipe(epochs=12, patience=50)


@pytest.fixture(scope="module")
def data():
    return datasets.load("karate")


def make_trainer(data, recipe=SHORT, seed=0, **options):
    return Trainer(
        lambda: models.GAT(data.num_features, 4, data.num_classes, heads=2, **options),
        data,
        recipe,
        seed,
    )


def finish(trainer):
    while trainer.step():
        pass
    return trainer.result()


def test_paper_stopping_is_the_authors_rule():
    """Against the rule written out as in section 3.3: an epoch that beats either quantity resets the wait."""
    generator = np.random.default_rng(0)
    rule, kept = PaperStopping(patience=7), []
    best_loss, best_accuracy, waited, expected = np.inf, 0.0, 0, []
    for epoch, (loss, accuracy) in enumerate(generator.integers(0, 20, (400, 2)) / 10):
        if rule.keep(loss, accuracy):
            kept.append(epoch)
        if accuracy >= best_accuracy or loss <= best_loss:
            if accuracy >= best_accuracy and loss <= best_loss:
                expected.append(epoch)
            best_accuracy, best_loss, waited = max(accuracy, best_accuracy), min(loss, best_loss), 0
        else:
            waited += 1
        assert rule.stop == (waited >= 7)
        if rule.stop:
            break
    assert kept == expected and rule.stop


def test_best_validation():
    rule = BestValidation(patience=2)
    assert rule.keep(1.0, 0.5) and rule.keep(0.9, 0.5) and not rule.keep(0.95, 0.5)
    assert not rule.stop and not rule.keep(0.1, 0.4) and rule.stop


def test_unknown_rule_and_patience():
    with pytest.raises(ValueError, match="'paper', 'best'"):
        make_stopping("last", 3)
    with pytest.raises(ValueError, match="patience is 0"):
        PaperStopping(0)


def test_training_learns_and_reproduces(data):
    first, second = finish(make_trainer(data)), finish(make_trainer(data))
    assert first.history == second.history and first.test_score == second.test_score
    faster = Recipe(epochs=12, lr=0.05)
    losses = finish(make_trainer(data, faster, dropout=0.0, attn_dropout=0.0)).history["train_loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert finish(make_trainer(data, seed=1)).history != first.history
    assert first.epochs == 12 and 1 <= first.best_epoch <= 12


def test_kept_weights_are_the_best_and_the_test_set_is_not_used(data):
    trainer = make_trainer(data, Recipe(epochs=30, patience=30, stopping="best"))
    result = finish(trainer)
    history = result.history["val_score"]
    assert history[result.best_epoch - 1] == max(history) == result.val_score
    # Other test labels: the same weights, another test score.
    import dataclasses

    flipped = dataclasses.replace(data, y=torch.where(data.test_mask, 1 - data.y, data.y))
    other_trainer = make_trainer(flipped, Recipe(epochs=30, patience=30, stopping="best"))
    other = finish(other_trainer)
    for a, b in zip(trainer.model.parameters(), other_trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert other.history == result.history
    assert other.test_score == pytest.approx(1 - result.test_score)


def test_resume_is_exact(data, tmp_path):
    whole = make_trainer(data)
    expected = finish(whole)
    trainer = make_trainer(data)
    for _ in range(5):
        trainer.step()
    checkpoint.save({"trainer": trainer.state_dict()}, tmp_path / "c.pt")
    torch.manual_seed(999)  # another process would have other generators
    again = make_trainer(data)
    again.load_state_dict(checkpoint.load(tmp_path / "c.pt")["trainer"])
    result = finish(again)
    assert result.history == expected.history
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="seed"):
        make_trainer(data, seed=3).load_state_dict(trainer.state_dict())


def test_checkpoint_is_read_without_running_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil()))
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


def test_diverged_training_is_refused(data):
    trainer = make_trainer(data)
    with torch.no_grad():
        trainer.model.layers[0].bias.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        trainer.step()


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
    for key, value in whole.best_model.items():
        assert torch.equal(value, resumed.best_model[key])
    mean, deviation = whole.summary()
    scores = [r.test_score for r in whole.results]
    assert mean == pytest.approx(np.mean(scores)) and deviation == pytest.approx(
        np.std(scores, ddof=1)
    )
    with pytest.raises(ValueError, match="seeds differ"):
        Run(RunConfig("gat", "karate", 0, 4, Recipe(epochs=6), {}), data, tmp_path / "cut").resume()

    whole.report(extra_figure=0.5)
    report = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert report["test_score_mean"] == mean and report["extra_figure"] == 0.5
    assert len(report["seeds"]) == 3 and len(report["seeds"][0]["history"]["val_loss"]) == 6
    for name in ("curves.png", "attention.png"):
        assert (tmp_path / "whole" / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_scores_and_entropies():
    logits = torch.tensor([[2.0, -1.0, 3.0], [-1.0, 4.0, -2.0]])
    assert metrics.score(logits, torch.tensor([2, 0]), False) == 0.5
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    from sklearn.metrics import f1_score

    assert metrics.score(logits, labels, True) == pytest.approx(
        f1_score(labels, logits > 0, average="micro")
    )
    edges = torch.tensor([[0, 1, 2, 0], [0, 0, 0, 2]])
    alpha = torch.tensor([[1 / 3, 1.0], [1 / 3, 0.0], [1 / 3, 0.0], [1.0, 1.0]])
    entropy, uniform = metrics.entropies(edges, alpha, 3)
    assert_close(uniform, torch.tensor([3.0, 1.0]).log())
    assert_close(entropy, torch.stack([torch.tensor([3.0, 1.0]).log(), torch.zeros(2)], dim=1))


def test_graphs_in_batches():
    """A data set of three graphs, two of them for training: a batch holds whole graphs and nothing else."""
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    masks = torch.eye(3, dtype=torch.bool).repeat_interleave(2, dim=1)
    data = datasets.NodeDataset(
        "three", torch.randn(6, 4), torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 3), edges, masks[0] | masks[1], masks[2],
        torch.zeros(6, dtype=torch.bool) | (torch.arange(6) > 99), 2, multilabel=True, graph_ids=torch.tensor([0, 0, 1, 1, 2, 2]),
    )  # fmt: skip
    trainer = make_trainer(data, Recipe(epochs=2, graphs_per_batch=1))
    assert len(trainer.batches) == 2
    for batch, x in zip(trainer.batches, (data.x[:2], data.x[2:4]), strict=True):
        assert torch.equal(batch.x, x) and batch.graph.num_edges == 2 and batch.train_mask.all()
    trainer.step()
    assert trainer.epoch == 1


def test_recipes():
    assert (
        recipe("gat", "cora").lr,
        recipe("gat", "cora").weight_decay,
        recipe("gat", "cora").patience,
    ) == (0.005, 5e-4, 100)
    assert recipe("gat", "pubmed").lr == 0.01 and recipe("gat", "ppi").graphs_per_batch == 2
    assert recipe("gat", "cora").with_overrides(lr=0.1, epochs=None).lr == 0.1


def test_weight_decay_spares_biases(data):
    groups = make_trainer(data).optimizer.param_groups
    assert [g["weight_decay"] for g in groups] == [5e-4, 0.0]
    assert all(p.dim() == 1 for p in groups[1]["params"]) and all(
        p.dim() > 1 for p in groups[0]["params"]
    )
