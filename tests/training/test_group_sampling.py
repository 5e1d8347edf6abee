"""Groups without signal: which prompts are drawn, which groups are kept, and what a step learns from them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from trl import GRPOConfig

from scenerl import cli
from scenerl.errors import UserError
from scenerl.training import grpo
from scenerl.training.checkpoints import fit
from scenerl.training.group_sampling import Group, GroupSampling, SolvedPrompts, spread_of
from training import processes
from training.small_run import QUICK_GRPO, STYLE, load_checkpoint, read_rows, words
from training.test_checkpoints import assert_equal_weights, interrupted

HALF = 0.5**0.5
"""Standard deviation of 0 and 1, with Bessel's correction."""


def group(row: int, *totals: float, spread: float = 0.0) -> Group:
    return Group(row, [((1, 2), [], None)] * len(totals), torch.tensor([totals]).T, torch.tensor(totals), spread)


@pytest.mark.parametrize(
    ("rewards", "summed", "normalised"),
    [
        ([[1, 1], [1, 1]], 0, 0),
        ([[0, 0], [1, 0]], HALF, HALF),  # weights 1 and 2: sums 0 and 1
        ([[0, 0], [0, 1]], 2 * HALF, 2 * HALF),
        ([[0, 0.5], [1, 0]], 0, 2 * HALF),  # sums 1 and 1: the two rewards cancel, but each of them says something
        ([[0, torch.nan], [1, torch.nan]], HALF, HALF),  # the second reward does not apply
        ([[torch.nan, torch.nan], [1, 1]], 0, 0),  # one completion alone is no comparison
    ],
)
def test_the_spread_of_a_group(rewards, summed, normalised):
    rewards, weights = torch.tensor([rewards], dtype=torch.float32), torch.tensor([1.0, 2.0])
    assert spread_of(rewards, weights, "sum_then_normalize").item() == pytest.approx(summed)
    assert spread_of(rewards, weights, "normalize_then_sum").item() == pytest.approx(normalised)


def test_equal_rewards_that_floats_cannot_hold_have_no_spread():
    rewards = torch.full((1, 8, 3), 0.1)
    assert spread_of(rewards, torch.tensor([0.3, 0.7, 0.1]), "sum_then_normalize").item() == 0


def test_which_groups_are_kept():
    groups = [group(row, 0, 1, spread=spread) for row, spread in enumerate([0.0, 0.2, 0.0, 0.5, 0.1])]
    assert [kept.row for kept in GroupSampling(max_rounds=2).choose(groups, 2)] == [1, 3]
    assert [kept.row for kept in GroupSampling(max_rounds=2).choose(groups, 4)] == [1, 3, 4, 0]
    assert [kept.row for kept in GroupSampling(keep_top_ratio=0.5).choose(groups, 2)] == [3, 1]


def test_a_prompt_solved_n_times_in_a_row_is_left_out_n_times():
    solved, history = SolvedPrompts(threshold=1.0), []
    for _ in range(9):  # its turns
        if solved.take_turn(7):
            history.append("out")
        else:
            solved.add(group(7, 1.0, 1.5))
            history.append("in")
    assert history == ["in", "out", "in", "out", "out", "in", "out", "out", "out"]
    assert not solved.take_turn(7)
    solved.add(group(7, 1.0, 0.9))  # one completion fell short: it starts again
    assert not solved.turns
    solved.add(group(7, 2.0, 2.0))
    assert solved.turns == {7: (1, 1)}


WITH_SIGNAL = (3, 4, 5)


def by_row(completion_ids, row, **_) -> list[float]:
    """The members of a group get 0 and 1 in rows 3, 4 and 5, more in later rows; others all get 1."""
    return [float(number * (place % 2)) if number in WITH_SIGNAL else 1.0 for place, number in enumerate(row)]


def build(base, examples, folder, sampling, reward=by_row, shared="on", **fields):
    """A trainer of rollouts of two groups of two."""
    checkpoint = load_checkpoint(base)
    args = GRPOConfig(output_dir=str(folder), **{**QUICK_GRPO, "per_device_train_batch_size": 4, **fields})
    trainer = grpo.build_trainer(
        checkpoint,
        checkpoint.conversation(STYLE),
        examples,
        args,
        ["format"],
        shared_prefix=shared,
        group_sampling=sampling,
        rollout_check_tolerance=0,
    )
    trainer.reward_funcs[0] = reward
    return trainer


def rollouts(trainer) -> list[dict]:
    """What is sampled and kept from now on: rows, and the batches that are learnt from."""
    seen, plain_round, plain = [], trainer._sample_round, trainer._generate_and_score_completions

    def sample_round(rows, known):
        seen[-1]["rounds"].append(rows)
        return plain_round(rows, known)

    def generate(inputs):
        seen.append({"rounds": []})
        seen[-1]["batch"] = plain(inputs)
        return seen[-1]["batch"]

    trainer._sample_round, trainer._generate_and_score_completions = sample_round, generate
    return seen


def test_dynamic_sampling_draws_until_every_group_has_signal(base, examples, tmp_path):
    trainer = build(base, examples, tmp_path, GroupSampling(max_rounds=6), max_steps=3)
    seen = rollouts(trainer)
    trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    assert len(seen) == len(log) == 3
    assert any(len(rollout["rounds"]) > 1 for rollout in seen)
    for rollout, row in zip(seen, log, strict=True):
        drawn = [number for rows in rollout["rounds"] for number in rows]
        assert len(drawn) == len(set(drawn))  # six rows, so that none is needed twice
        found = [sum(number in WITH_SIGNAL for number in rows) for rows in rollout["rounds"]]
        assert [len(rows) for rows in rollout["rounds"]] == [2, *(2 - sum(found[:i]) for i in range(1, len(found)))]
        assert rollout["batch"]["advantages"].abs().min() > 0.5  # plus and minus one half of the standard deviation
        assert row["groups/rounds"] == len(found)
        assert row["groups/with_signal"] == pytest.approx(sum(found) / len(drawn))
        assert row["groups/sampled"] == len(drawn) / 2
        assert 2 * len(drawn) <= row["groups/generated_tokens"] <= 2 * 8 * len(drawn)
        # every group's mean: row / 2 where the members get 0 and row, else 1
        assert row["groups/reward"] == pytest.approx(
            sum(number / 2 if number in WITH_SIGNAL else 1 for number in drawn) / len(drawn)
        )
        assert row["frac_reward_zero_std"] == 0


def test_too_few_groups_with_signal_are_filled_up(base, examples, tmp_path):
    def only_row_3(completion_ids, row, **_):
        return [float(number == 3 and place % 2) for place, number in enumerate(row)]

    trainer = build(base, examples, tmp_path, GroupSampling(max_rounds=3), only_row_3)
    trainer.model.train()
    seen = rollouts(trainer)
    batch = trainer._generate_and_score_completions([trainer.train_dataset[index] for index in (0, 0, 3, 3)])
    assert [len(rows) for rows in seen[0]["rounds"]] == [2, 1, 1]
    assert batch["advantages"].tolist() == pytest.approx([-HALF, HALF, 0, 0], abs=1e-3)  # 0.5 / 0.7071


@pytest.mark.parametrize("shared", ["on", "off"])
def test_what_is_kept_is_learnt_from_as_a_rollout_of_its_own(base, examples, tmp_path, shared):
    """Where the first round will do, the batch is the one that a plain rollout gives."""

    def by_tokens(completion_ids, row, **_):
        return [place % 2 + sum(ids) % 7 / 7 for place, ids in enumerate(completion_ids)]

    sampling = GroupSampling(max_rounds=3)
    trainer = build(base, examples, tmp_path, sampling, by_tokens, shared=shared, beta=0.1, num_iterations=2)
    trainer.model.train()
    rows = [trainer.train_dataset[index] for index in (2, 2, 0, 0)]
    batches = []
    for chosen in (None, sampling):
        trainer.group_sampling = chosen
        torch.manual_seed(5)
        batches.append(trainer._generate_and_score_completions([dict(row) for row in rows]))
    plain, kept = batches
    assert plain.keys() == kept.keys()
    for key, value in plain.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(kept[key], value, rtol=0, atol=0)
        else:
            assert kept[key] == value


def test_the_groups_that_differ_most_are_kept(base, examples, tmp_path):
    trainer = build(base, examples, tmp_path, GroupSampling(keep_top_ratio=0.4), max_steps=2)
    seen = rollouts(trainer)
    trainer.train()
    for rollout in seen:
        (rows,) = rollout["rounds"]
        assert len(rows) == 5 == len(set(rows))  # 2 / 0.4
        kept = sorted((row for row in rows if row in WITH_SIGNAL), reverse=True)[:2]  # spreads grow with the row
        assert rollout["batch"]["advantages"].abs().min() > 0.5
        assert len(kept) == 2
    assert [row["groups/sampled"] for row in trainer.state.log_history if "loss" in row] == [2.5, 2.5]


def test_solved_prompts_make_room_for_others(base, examples, tmp_path):
    solved = SolvedPrompts(1.0, {0: (1, 1), 1: (3, 2)})
    trainer = build(base, examples, tmp_path, GroupSampling(solved=solved))
    trainer.model.train()
    seen = rollouts(trainer)
    trainer._generate_and_score_completions([trainer.train_dataset[index] for index in (0, 0, 5, 5)])
    ((first, second),) = seen[0]["rounds"]
    assert first == 5 and second in (2, 3, 4)
    # row 0 took its turn, row 1 waits; row 2 always gets 1, so it is solved where it was drawn; row 5 is not
    assert solved.turns == {0: (1, 0), 1: (3, 2), **({2: (1, 1)} if second == 2 else {})}
    assert trainer._metrics["train"]["groups/skipped"] == [0.5]


def test_where_every_prompt_is_solved_they_are_sampled_all_the_same(base, examples, tmp_path):
    solved = SolvedPrompts(1.0, dict.fromkeys(range(6), (1, 1)))
    trainer = build(base, examples, tmp_path, GroupSampling(solved=solved))
    trainer.model.train()
    seen = rollouts(trainer)
    trainer._generate_and_score_completions([trainer.train_dataset[index] for index in (0, 0, 1, 1)])
    assert len(seen[0]["rounds"][0]) == 2


def test_draws_depend_on_seed_step_and_round_only(base, examples, tmp_path):
    trainer = build(base, examples, tmp_path, GroupSampling(max_rounds=2))
    first = trainer._draw(3, [1, 2], 1)
    torch.manual_seed(99)
    assert trainer._draw(3, [1, 2], 1) == first and not {1, 2} & set(first)
    others = [trainer._draw(6, [], number) for number in range(4)]
    trainer._step = 1
    others += [trainer._draw(6, [], number) for number in range(4)]
    assert len(set(map(tuple, others))) > 1
    assert trainer._draw(8, range(6), 0)[:2] == trainer._draw(8, range(6), 0)[6:]  # a small set is gone through again


def test_a_rollout_without_signal_ends_the_run_and_nothing_is_lost(base, examples, tmp_path):
    """Two rollouts a step, but one in step 2, which ends the epoch. The second of step 3 has no signal."""
    calls = []

    def failing(completion_ids, row, **fields):
        calls.append(row)
        return by_row(completion_ids, [5] * len(row)) if len(calls) < 5 else [0.25] * len(row)

    fields = {"gradient_accumulation_steps": 2, "steps_per_generation": 1, "max_steps": 4}
    trainer = build(base, examples, tmp_path, GroupSampling(max_rounds=2), failing, **fields)
    with pytest.raises(UserError) as error:
        fit(trainer)
    said = str(error.value)
    assert said.startswith("dynamic_sampling: none of 4 groups in 2 rounds had rewards that differ (mean 0.25)")
    assert said.endswith("the run is saved after step 2, and the same command goes on")
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    assert torch.load(tmp_path / "checkpoint-2" / "rollout_0.pt")["step"] == 3
    trainer = build(base, examples, tmp_path, GroupSampling(max_rounds=2), **fields)
    fit(trainer)
    assert trainer.state.global_step == 4 and trainer._step == 6
    assert [row["step"] for row in read_rows(tmp_path / "log.jsonl") if "loss" in row] == [1, 2, 3, 4]


def test_a_run_without_any_signal_ends_at_once(base, examples, tmp_path):
    trainer = build(base, examples, tmp_path, GroupSampling(max_rounds=2), lambda row, **_: [1.0] * len(row))
    with pytest.raises(UserError, match="nothing was learnt yet$"):
        fit(trainer)
    assert not list(tmp_path.glob("checkpoint-*"))


REWARD = "def by_text(pair):\n    return sum(map(ord, pair.text)) % 3 / 2\n"


@pytest.mark.slow
def test_a_run_that_goes_on_draws_the_same(base, rows, tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text(REWARD)
    fields = {**QUICK_GRPO, "max_steps": 5, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}
    fields |= {"per_device_train_batch_size": 4, "dynamic_sampling": 3, "skip_solved": 0.5}
    argv = ["grpo", "--traceback", "--model", str(base), "--data", str(rows), "--rewards", f"{own}:by_text"]
    argv += words(fields)
    assert cli.main([*argv, "--out", str(tmp_path / "whole")]) == 0
    interrupted(monkeypatch, grpo, 3, [*argv, "--out", str(tmp_path / "run")])
    saved = json.loads((tmp_path / "run" / "checkpoint-2" / "rollout_solved.json").read_text())
    assert cli.main([*argv, "--out", str(tmp_path / "run")]) == 0
    wanted, found = (read_rows(tmp_path / folder / "log.jsonl") for folder in ("whole", "run"))
    times = {"time", "step_time"}
    wanted, found = (
        [{k: row[k] for k in row.keys() - times} for row in log if "loss" in row] for log in (wanted, found)
    )
    assert found == wanted
    assert saved and any(row.get("groups/rounds", 1) > 1 for row in wanted)  # or this would prove nothing
    assert_equal_weights(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (["--dynamic_sampling", "0"], "dynamic_sampling"),
        (["--keep_top_group_ratio", "0"], "keep_top_group_ratio"),
        (["--keep_top_group_ratio", "1.5"], "keep_top_group_ratio"),
    ],
)
def test_mistakes_are_one_line(base, rows, tmp_path, capsys, word, said):
    assert cli.main(["grpo", "--model", str(base), "--data", str(rows), "--out", str(tmp_path / "run"), *word]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("batch", "size"), [(3, 2), (3, 3)])
def test_two_processes_agree(base, rows, tmp_path, batch, size):
    """Three completions a process: in groups of two, one group is in both; groups of three are drawn two at a time."""
    script = Path(__file__).with_name("group_processes.py")
    codes, errors = processes.run(2, script, rows, base, tmp_path, batch, size)
    assert codes == [0, 0], errors[0][-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["rounds"] == second["rounds"] and any(len(rounds) > 1 for rounds in first["rounds"])
    assert all(len(rows) % (size - 1 if size == 3 else 1) == 0 for rounds in first["rounds"] for rows in rounds)
    assert first["weights"] == second["weights"] and first["log"] == second["log"]
    assert first["wrong"] == second["wrong"] == 0
    assert all(row["frac_reward_zero_std"] == 0 for row in first["log"])
