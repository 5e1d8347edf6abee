"""Two data-parallel processes train to the weights of one process with the doubled batch."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors import safe_open

from training.processes import run

SCRIPT = Path(__file__).with_name("doubled_batch.py")


def train(count: int, *words) -> tuple[dict, dict]:
    """Run the script in ``count`` processes that know each other; returns the weights before and after, by name."""
    codes, errors = run(count, SCRIPT, *words)
    assert codes == [0] * count, errors[0][-2000:]
    weights = []
    for name in ("before", "after"):
        with safe_open(Path(words[3]) / f"{name}.safetensors", framework="pt") as file:
            assert file.metadata()["processes"] == str(count)
            weights.append({name: file.get_tensor(name) for name in file.keys()})
    return weights[0], weights[1]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command, batch", [("sft", 1), ("grpo", 2)])
def test_two_processes_train_as_one_with_the_doubled_batch(base, rows, tmp_path, command, batch):
    before, one = train(1, command, rows, base, tmp_path / "one", 2 * batch)
    before_two, two = train(2, command, rows, base, tmp_path / "two", batch)
    assert before.keys() == one.keys() == two.keys()
    assert all(before[name].equal(before_two[name]) for name in before)
    moved = max((one[name] - before[name]).abs().max().item() for name in one)
    apart = max((one[name] - two[name]).abs().max().item() for name in one)
    assert moved > 1e-3, "nothing was learnt"
    assert apart < 1e-5, f"moved by {moved}, apart by {apart}"
