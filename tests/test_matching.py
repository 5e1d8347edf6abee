"""Assignments on matrices small enough to check by eye."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from scenerl.matching import greedy, hungarian


def pairs(match) -> list[tuple[int, int]]:
    return list(zip(*(indices.tolist() for indices in match), strict=True))


def test_hungarian_takes_the_least_total():
    # the greedy choice 1 + 9 costs 10, the other diagonal 2 + 3 costs 5
    assert pairs(hungarian(np.array([[1.0, 2.0], [3.0, 9.0]]))) == [(0, 1), (1, 0)]


def test_hungarian_matches_the_smaller_side_whole():
    assert pairs(hungarian(np.array([[5.0], [1.0], [3.0]]))) == [(1, 0)]
    assert pairs(hungarian(np.array([[5.0, 1.0, 3.0]]))) == [(0, 1)]
    assert pairs(hungarian(np.zeros((0, 3)))) == []
    assert pairs(hungarian(np.zeros((3, 0)))) == []


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=4, max_size=4))
def test_hungarian_equals_trying_everything(rows):
    cost = np.array(rows, dtype=float)
    best = min(sum(cost[n, m] for n, m in enumerate(order)) for order in permutations(range(4)))
    assert sum(cost[n, m] for n, m in pairs(hungarian(cost))) == best


def test_hungarian_equals_scipy():
    """Random numbers have one best assignment; in half of these each of the smaller side has a best of its own."""
    generator = np.random.default_rng(0)
    for n in range(300):
        cost = generator.normal(size=[(2, 3), (3, 2), (3, 3)][n % 3])
        expected = list(zip(*linear_sum_assignment(cost), strict=True))
        assert pairs(hungarian(cost)) == expected


def test_greedy_goes_by_row_order_and_takes_the_best_free_target():
    score = np.array([[0.6, 0.7], [0.0, 0.9], [0.8, 0.1]])
    # row 0 takes column 1, row 1 finds it taken and 0.0 too low, row 2 takes column 0
    assert pairs(greedy(score, 0.5)) == [(0, 1), (2, 0)]


def test_greedy_threshold_is_inclusive_and_ties_go_to_the_lower_target():
    assert pairs(greedy(np.array([[0.5, 0.5]]), 0.5)) == [(0, 0)]
    assert pairs(greedy(np.array([[0.49]]), 0.5)) == []


def test_greedy_of_nothing():
    assert pairs(greedy(np.zeros((0, 3)), 0.5)) == []
    assert pairs(greedy(np.zeros((3, 0)), 0.5)) == []
