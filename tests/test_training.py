"""Loop, early stopping, metrics, recipes."""

from __future__ import annotations

import dataclasses

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
    """Against the rule of section 3.3: an epoch that improves either quantity resets the wait."""
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
    with pytest.raises(ValueError, match="'paper', 'best', 'last'"):
        make_stopping("never", 3)
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


def test_training_in_bf16(data):
    trainer = make_trainer(data, Recipe(epochs=12, lr=0.05, bf16=True), dropout=0, attn_dropout=0)
    dtypes = []
    trainer.model.layers[0].lin.register_forward_hook(lambda *call: dtypes.append(call[-1].dtype))
    losses = finish(trainer).history["train_loss"]
    assert set(dtypes) == {torch.bfloat16} and losses[-1] < 0.5 * losses[0]
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    in_float32 = make_trainer(data, Recipe(epochs=12, lr=0.05), dropout=0, attn_dropout=0)
    assert_close(losses, finish(in_float32).history["train_loss"], rtol=0.1, atol=0.02)


def test_kept_weights_are_the_best_and_the_test_set_is_not_used(data):
    trainer = make_trainer(data, Recipe(epochs=30, patience=30, stopping="best"))
    result = finish(trainer)
    history = result.history["val_score"]
    assert history[result.best_epoch - 1] == max(history) == result.val_score
    # Other test labels: the same weights, another test score.
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
    with pytest.raises(ValueError, match="another model"):
        make_trainer(data, num_layers=3).load_state_dict(trainer.state_dict())


def test_a_state_is_a_copy(data):
    """Neither training on, nor a trainer that was loaded with it, changes a state."""
    trainer = make_trainer(data)
    trainer.step()
    state = trainer.state_dict()
    weights = {name: value.clone() for name, value in state["model"].items()}
    finish(trainer)
    results = []
    for _ in range(2):
        other = make_trainer(data)
        other.load_state_dict(state)
        results.append(finish(other))
    assert len(state["history"]["val_loss"]) == 1
    assert all(torch.equal(value, state["model"][name]) for name, value in weights.items())
    assert results[0].history == results[1].history == trainer.history


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_split_needs_nodes(data, split):
    mask = f"{split}_mask"
    empty = dataclasses.replace(data, **{mask: torch.zeros_like(data.train_mask)})
    with pytest.raises(ValueError, match=f"{mask} is empty"):
        make_trainer(empty)


def test_diverged_training_is_refused(data):
    trainer = make_trainer(data)
    with torch.no_grad():
        trainer.model.layers[0].bias.fill_(torch.inf)
    with pytest.raises(FloatingPointError, match="epoch 1"):
        trainer.step()


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
    """A data set of three graphs, two of them for training: a batch consists of whole graphs."""
    edges = torch.tensor([[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]])
    masks = torch.eye(3, dtype=torch.bool).repeat_interleave(2, dim=1)
    data = datasets.NodeDataset(
        "three", torch.randn(6, 4), torch.tensor([[1.0, 0.0], [0.0, 1.0]] * 3), edges,
        masks[1] | (torch.arange(6) == 0), masks[2], masks[0] & (torch.arange(6) == 1), 2,
        multilabel=True,
        graph_ids=torch.tensor([0, 0, 1, 1, 2, 2]),
    )  # fmt: skip
    trainer = make_trainer(data, Recipe(epochs=2, graphs_per_batch=1))
    assert len(trainer.batches) == 2
    for batch, (x, counted) in zip(
        trainer.batches, ((data.x[:2], [True, False]), (data.x[2:4], [True, True])), strict=True
    ):
        assert torch.equal(batch.x, x) and batch.graph.num_edges == 2
        assert batch.mask.tolist() == counted
    seen = []
    trainer.model.register_forward_hook(lambda model, given, out: seen.append(given[0]))
    trainer.step()
    assert trainer.epoch == 1 and len(seen) == 3
    assert torch.equal(seen[-1], data.x[4:])  # validation looks at its own graph alone


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
