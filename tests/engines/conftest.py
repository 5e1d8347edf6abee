"""A small model that has learnt a little, launches that tests share, and the results that the table is made of."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from engines import table
from engines.launched import Done, Launcher

RESULTS: dict[tuple[str, str], dict[str, str | None]] = defaultdict(dict)
"""Engine and test to the outcome of each case: `tested`, `failed`, another cell, or None where it did not run."""

if importlib.util.find_spec("trl") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def launcher(tmp_path_factory) -> Iterator[Launcher]:
    """A model after a few steps of SFT, so that its answers end, differ in length and are not drawn by a hair."""
    import torch

    from scenerl import cli, tiny
    from training.small_run import SHAPE, STYLE, examples_of, words, write_data

    torch.set_num_threads(1)
    busy = ExitStack()
    with suppress(OSError):  # accelerate's usual port is taken: runs on one machine find others
        busy.enter_context(socket.create_server(("127.0.0.1", 29500)))
    folder = tmp_path_factory.mktemp("engines")
    rows = write_data(folder / "data", 8)
    tiny.create(folder / "untrained", examples_of(rows), STYLE, replace(SHAPE, vision_width=64))  # blocks of 64: 4 bits
    command = ["sft", "--model", str(folder / "untrained"), "--data", str(rows), "--out", str(folder / "base")]
    fields = {
        "format": "compact", "grid": 20, "max_steps": 60, "per_device_train_batch_size": 4, "learning_rate": 3e-3,
        "save_strategy": "no", "report_to": "none", "gradient_checkpointing": False,
    }  # fmt: skip
    assert cli.main([*command, *words(fields)]) == 0
    yield Launcher(folder, folder / "base", rows)
    busy.close()


@pytest.fixture(scope="session")
def taught(launcher) -> Path:
    """A model most of whose answers to the same images are right, and differ."""
    from scenerl import cli
    from training.small_run import words

    command = ["sft", "--muon", "--model", launcher.base, "--data", launcher.rows, "--out", launcher.folder / "taught"]
    fields = {
        "format": "compact", "grid": 20, "max_steps": 60, "per_device_train_batch_size": 8, "learning_rate": 5e-3,
        "save_strategy": "no", "report_to": "none", "gradient_checkpointing": False,
    }  # fmt: skip
    assert cli.main([*map(str, command), *words(fields)]) == 0
    return launcher.folder / "taught"


@pytest.fixture(scope="session")
def train(launcher):
    """``Launcher.train`` for runs that several tests look at: each is done once. Returns its end and its folder."""

    @cache
    def once(engine: str, command: str, name: str, environment, fields) -> tuple[Done, Path]:
        done = launcher.train(engine, command, name, dict(environment), **dict(fields))
        return done, launcher.folder / name

    def train(engine: str, command: str, kind: str = "whole", environment=(), **fields) -> tuple[Done, Path]:
        name = f"{engine}_{command}_{kind}"
        return once(engine, command, name, tuple(dict(environment).items()), tuple(fields.items()))

    return train


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Count the cases of each test before any is left out: a cell of the table stands for all of them."""
    for item in items:
        if engine := _engine(item):
            RESULTS[engine, item.originalname][item.name] = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if (engine := _engine(item)) and (call.when == "call" or report.failed):
        passed = dict(item.user_properties).get("cell", "tested")
        RESULTS[engine, item.originalname][item.name] = passed if report.passed else "failed"
    return report


def pytest_sessionfinish(session):
    if path := os.environ.get("ENGINE_RESULTS"):
        table.write_results(Path(path), RESULTS)


def _engine(item) -> str | None:
    return item.callspec.params.get("engine") if hasattr(item, "callspec") else None
