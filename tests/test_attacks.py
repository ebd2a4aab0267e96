"""The runner of tests/attack: what it reports of a case that fails, crashes, hangs or exits."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parent / "attack"


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("run_attacks", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def attack_of(run, *cases):
    """An attack whose cases are these functions."""
    numbers = {}
    made = run.Attack("fake", SimpleNamespace(), seed=3)
    for number in range(len(cases)):
        rnd = made.random(number)
        rnd.getrandbits(63)  # torch's seed
        numbers[rnd.random()] = number
    made.module.attack = lambda rnd, note: cases[numbers[rnd.random()]](note)
    return made


def holds(note):
    note("all is well")


def fails(note):
    note("two and two")
    assert 2 + 2 == 5, "are not five"


def test_every_failure_is_reported_and_the_next_case_runs(run, capfd):
    cases = [
        *(holds, fails, lambda note: os.abort(), holds, lambda note: os._exit(3)),
        *(lambda note: time.sleep(60), holds),
    ]
    attack = attack_of(run, *cases)
    outcome = run.watch(attack, range(len(cases)), 60.0, hangs=0.5)
    assert outcome.cases == len(cases) and set(outcome.failures) == {1, 2, 4, 5}
    assert "two and two" in outcome.failures[1] and "are not five" in outcome.failures[1]
    assert "SIGABRT" in outcome.failures[2] and "exit status 3" in outcome.failures[4]
    assert "does not end within 0.5 s" in outcome.failures[5]
    capfd.readouterr()  # the stack of what crashed
    run.report(attack, outcome, True)
    printed = capfd.readouterr().out
    assert "7 cases" in printed and "4 did NOT hold" in printed
    assert "python tests/attack/run.py fake --seed 3 --case 2\n" in printed


def test_an_attack_ends_after_its_time_or_many_failures(run):
    endless = run.Attack("fake", SimpleNamespace(attack=lambda rnd, note: time.sleep(0.01)), 0)
    outcome = run.watch(endless, range(sys.maxsize), 0.2)
    assert not outcome.failures and 1 < outcome.cases < 50
    outcome = run.watch(attack_of(run, *[fails] * 20), range(20), 60.0)
    assert len(outcome.failures) == run.MOST_FAILURES


def test_one_case_shows_its_notes(run, capfd):
    outcome = run.watch(attack_of(run, fails, holds), run.parse_cases("1"), 60.0, shown=True)
    assert outcome.cases == 1 and not outcome.failures
    assert capfd.readouterr().out == "all is well\n"
    assert run.parse_cases("2:5") == range(2, 5)


def test_every_attack_says_what_it_tries(run):
    paths = run.discover()
    assert len(paths) >= 7
    for path in paths.values():
        names = [getattr(node, "name", "") for node in ast.parse(path.read_text()).body]
        assert "attack" in names and len(run.title_of(path)) > 40, path
