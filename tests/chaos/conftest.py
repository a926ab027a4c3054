"""Rounds from seeds. A default run of the tests takes few, always the same; `make chaos` takes many new ones and says which.

`make chaos ARGS='--seed 7 --rounds 50'`: the rounds of seed 7; round i of seed s is round 0 of seed s + i, so a failed one is
repeated alone by its own seed. Only `make chaos` has a cluster of RabbitMQ nodes.
"""

import random
from pathlib import Path
from typing import Final

import pytest

FEW = 3
# Not part of a default run: a cluster of brokers takes as long to start as all else of such a test.
_LONG: Final = {"test_rabbitmq_cluster_faults.py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--seed", type=int, default=None, help="of the first round; a random one where only --rounds is given")
    group.addoption("--rounds", type=int, default=None, help=f"of each test that takes a seed (default {FEW})")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("rounds") is not None and config.getoption("seed") is None:
        config.option.seed = random.SystemRandom().randrange(1_000_000)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in _LONG and config.getoption("rounds", default=None) is None else None


def pytest_report_header(config: pytest.Config) -> str:
    seed, rounds = _chosen(config)
    return f"chaos: {rounds} rounds from seed {seed}; again with --seed {seed} --rounds {rounds}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        seed, rounds = _chosen(metafunc.config)
        if metafunc.config.getoption("rounds", default=None) is None:
            rounds = getattr(metafunc.module, "FEW", rounds)
        metafunc.parametrize("seed", range(seed, seed + rounds))


def _chosen(config: pytest.Config) -> tuple[int, int]:
    # Without the tests' own directory among the arguments pytest learns of the options too late to have them.
    seed, rounds = config.getoption("seed", default=None), config.getoption("rounds", default=None)
    return (1 if seed is None else seed), (FEW if rounds is None else rounds)
