"""The command line, as a person uses it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from gat_ext.training.cli import app

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("model", ["gat", "gatv2", "agnn", "transformer"])
def test_train_every_model(model, tmp_path):
    result = run(
        "train", model, "--dataset", "karate", "--epochs", 5, "--seeds", 2, "--out", tmp_path
    )
    assert result.exit_code == 0, result.output
    assert {p.name for p in tmp_path.iterdir()} == {
        "metrics.json",
        "curves.png",
        "attention.png",
        "checkpoint.pt",
    }
    last = result.output.strip().splitlines()[-1]
    report = json.loads((tmp_path / "metrics.json").read_text())
    mean, deviation = 100 * report["test_score_mean"], 100 * report["test_score_std"]
    assert last == f"Test accuracy: {mean:.1f} ± {deviation:.1f} % (2 seeds)"


def test_train_options_reach_the_model(tmp_path):
    options = (
        "--layers",
        3,
        "--hidden",
        5,
        "--heads",
        2,
        "--lr",
        0.02,
        "--weight-decay",
        0,
        "--patience",
        3,
        "--bf16",
    )
    result = run("train", "--dataset", "karate", "--epochs", 4, *options, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "metrics.json").read_text())["config"]
    assert config["options"] == {"num_layers": 3, "hidden_channels": 5, "heads": 2}
    assert (
        config["recipe"]["lr"],
        config["recipe"]["weight_decay"],
        config["recipe"]["patience"],
        config["recipe"]["bf16"],
    ) == (0.02, 0.0, 3, True)


def test_attention_beats_uniform_attention_and_logistic_regression(tmp_path):
    """Real training by default, cut short; the whole of it is in test_noise.py."""
    result = run("train", "--epochs", 90, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "metrics.json").read_text())
    uniform = report["uniform_attention"]["test_score_mean"]
    assert report["test_score_mean"] > report["logistic_regression"] > 0.9
    assert report["test_score_mean"] >= max(0.95, uniform + 0.02)
    assert "Logistic regression" in result.output and str(tmp_path) in result.output


def test_several_labels_and_graphs_give_micro_f1(tmp_path):
    """Two graphs for training and one each for validation and test, in the files of ppi."""
    generator = np.random.default_rng(0)
    for split, graphs in (("train", [1, 2]), ("valid", [3]), ("test", [4])):
        graph_id = np.repeat(graphs, 3)
        links = [
            {"source": i, "target": i + 1} for i in range(len(graph_id) - 1) if (i + 1) % 3 != 0
        ]
        graph = {"nodes": [{"id": i} for i in range(len(graph_id))], "links": links}
        (tmp_path / f"{split}_graph.json").write_text(json.dumps(graph))
        np.save(tmp_path / f"{split}_feats.npy", generator.random((len(graph_id), 5)))
        np.save(tmp_path / f"{split}_labels.npy", generator.integers(0, 2, (len(graph_id), 4)))
        np.save(tmp_path / f"{split}_graph_id.npy", graph_id)
    options = ("--dataset", "ppi", "--root", tmp_path, "--hidden", 4, "--epochs", 3)
    result = run("train", *options, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["metric"] == "micro-F1" and report["config"]["recipe"]["graphs_per_batch"] == 2
    last = result.output.strip().splitlines()[-1]
    assert last == f"Test micro-F1: {100 * report['test_score_mean']:.1f} % (1 seed)"


MISTAKES = [
    (("train", "gta"), 2, "one of gat, "),
    (("train", "gat", "--dataset", "coar"), 2, "one of cora, "),
    (("train", "gat", "--dataset", "PUBMD"), 2, "one of pubmed, "),
    (("train", "--lr", "nan"), 2, "not a positive number"),
    (("train", "--lr", "0"), 2, "not a positive number"),
    (("train", "--weight-decay", "-1"), 2, "not 0 or a positive number"),
    (("train", "--seed", "99999999999999999999"), 2, "less than or equal"),
    (("train", "--out", __file__), 2, "is a file"),
    (("train", "--preset", "papr"), 2, "paper"),
    (("train", "--device", "gpu"), 2, "cpu"),
    (("train", "--epochs", "0"), 2, "epochs"),
    (("train", "agnn", "--heads", "2"), 2, "no heads"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), MISTAKES, ids=lambda v: str(v))
def test_mistakes_list_the_choices(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    result = run(*arguments)
    assert result.exit_code == code
    assert words in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())  # nothing ran


def test_brackets_in_a_folder_are_printed(tmp_path):
    out = tmp_path / "[red] runs"
    result = run("train", "--dataset", "karate", "--epochs", 1, "--out", out)
    assert result.exit_code == 0 and f"{out}/" in result.output, result.output


def test_missing_files_and_foreign_checkpoints(tmp_path):
    result = run("train", "--dataset", "cora", "--root", tmp_path / "nowhere", "--out", tmp_path)
    assert (
        result.exit_code == 1
        and result.output.startswith("Error: ")
        and "Traceback" not in result.output
    )
    result = run("train", "--dataset", "karate", "--resume", "--out", tmp_path / "none")
    assert result.exit_code == 1 and "start without --resume" in result.output
    result = run("train", "--dataset", "karate", "--hidden", 2 * 10**9, "--out", tmp_path / "huge")
    assert result.exit_code == 1 and result.output.splitlines()[-1].startswith("Error: out of mem")
    run("train", "--dataset", "karate", "--epochs", 2, "--out", tmp_path)
    result = run("train", "--dataset", "karate", "--epochs", 1, "--resume", "--out", tmp_path)
    assert result.exit_code == 1
    assert "--epochs is 2 there and 1 here (it may grow only)" in result.output


def test_interrupt_leaves_a_checkpoint_and_resume_is_exact(tmp_path):
    command = ["train", "--dataset", "karate", "--epochs", "80", "--patience", "80"]
    # Slow the run down with several seeds rather than sleeping in it.
    command += ["--seeds", "2", "--threads", "1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(*command, "--out", whole).exit_code == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "gat_ext.training.cli", *command, "--out", cut],
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # as in the foreground
    )
    deadline = time.monotonic() + 60
    while not (cut / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130, output + errors
    assert (
        "To go on: gat-ext train" in output and "--resume" in output and "Traceback" not in errors
    )
    assert run(*command, "--out", cut, "--resume").exit_code == 0
    reports = [
        json.loads((folder / "metrics.json").read_text())["seeds"] for folder in (whole, cut)
    ]
    for report in reports:
        for seed in report:
            del seed["seconds"]
    assert reports[0] == reports[1]


def test_info_and_bench():
    result = run("info")
    assert (
        result.exit_code == 0
        and "instruction set" in result.output
        and "of torch, " in result.output
        and "additive_v2" in result.output
        and "cpu (" in result.output
    )
    result = run("bench", "--threads", 1)
    assert result.exit_code == 0 and "2000" in result.output
