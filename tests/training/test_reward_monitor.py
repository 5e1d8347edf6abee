"""Warnings about rewards from which nothing is learnt any more."""

from __future__ import annotations

import pytest

from scenerl.training.reward_monitor import RewardMonitor
from scenerl.types import Issue, ParseResult, SceneGraph

FINE = ParseResult("ok", SceneGraph())
BROKEN = ParseResult("invalid_json", None)
DANGLING = ParseResult("ok", SceneGraph(), (Issue("dangling_relation", "relations[0]"),) * 3)


def messages_of(names, window, batches) -> list[str]:
    """The messages for a sequence of batches of (text, result, rewards)."""
    messages = []
    monitor = RewardMonitor(names, window, messages.append)
    for step, batch in enumerate(batches, start=1):
        monitor.add(step, batch)
    return messages


def test_names_reward_window_most_common_problem_example_and_advice():
    batch = [("{bad", BROKEN, {"r": 0.0})] * 3 + [("", ParseResult("empty", None), {"r": 0.0})]
    (message,) = messages_of(["r"], 3, [batch] * 3)
    assert message.startswith("step 3: reward 'r' was 0 for every completion of the last 3 rollouts")
    # 3 of 4 answers in each of 3 rollouts
    assert "invalid_json in 75% of the completions" in message
    assert "'{bad'" in message
    assert "start from an SFT checkpoint" in message


def test_fires_once_per_window():
    batches = [[("{bad", BROKEN, {"r": 0.0})] * 2] * 10
    assert [message.split(":")[0] for message in messages_of(["r"], 3, batches)] == ["step 3", "step 6", "step 9"]


def test_a_change_starts_the_window_anew():
    low, high = [("a", FINE, {"r": 0.0})] * 2, [("a", FINE, {"r": 0.5})] * 2
    assert messages_of(["r"], 3, [low, low, high, high, low, low]) == []
    assert len(messages_of(["r"], 3, [low, low, high, high, high])) == 1


def test_silent_while_the_completions_of_a_step_differ():
    mixed = [("a", FINE, {"r": 0.0}), ("b", FINE, {"r": 0.1})]
    constant = [("a", FINE, {"r": 0.0})] * 2
    assert messages_of(["r"], 2, [mixed] * 9) == []
    assert messages_of(["r"], 2, [constant, mixed] * 5) == []


def test_rewards_are_watched_one_by_one_and_shares_stay_shares():
    """Two rewards that are constant together, one of them not from the start: neither counts the other's answers."""
    first = [("{bad", BROKEN, {"a": 0.0, "b": 0.3})] * 2
    later = [("{bad", BROKEN, {"a": 0.0, "b": 0.0})] * 2
    messages = messages_of(["a", "b"], 3, [first, later, later, later])
    assert ["'a'" in messages[0], "'b'" in messages[1], len(messages)] == [True, True, 2]
    assert all("in 100% of the completions" in message for message in messages)


def test_a_saturated_reward_is_called_so():
    (message,) = messages_of(["format"], 2, [[("x", FINE, {"format": 1.0})] * 2] * 2)
    assert "saturated" in message and "was 1 for" in message
    (message,) = messages_of(["format"], 2, [[("x", DANGLING, {"format": 1.0})] * 2] * 2)
    assert "saturated" in message


def test_answers_that_parse_but_never_score():
    (message,) = messages_of(["hard_recall"], 2, [[("x", FINE, {"hard_recall": 0.0})] * 2] * 2)
    assert "does not distinguish them" in message and "temperature" in message


def test_an_issue_counts_once_per_answer():
    batch = [("x", DANGLING, {"r": 0.0}), ("x", FINE, {"r": 0.0}), ("x", FINE, {"r": 0.0})]
    (message,) = messages_of(["r"], 2, [batch] * 2)
    assert "dangling_relation in 33% of the completions" in message
    assert "easier reward" in message  # a third of the completions does not explain it all


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J\x1b[31mred", "[bold]markup[/bold]\n\r\0", "<script>alert(1)</script>", "\u202e\U0001f600", "a" * 10**6],
)
def test_model_text_is_escaped_and_short(text):
    (message,) = messages_of(["r"], 1, [[(text, BROKEN, {"r": 0.0})]])
    assert message.isascii() and message.isprintable()
    assert len(message) < 1200
