"""Hits, charts, tables and the choice of images, on values that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scenerl.metrics import MetricOptions
from scenerl.metrics.file import Metrics, Reliability
from scenerl.metrics.registry import headline
from scenerl.report import charts
from scenerl.report.curves import curve_groups
from scenerl.report.gallery import choose, options_of
from scenerl.report.tables import count_table, metric_table, predicate_table
from scenerl.report.text import short, truncated, visible
from scenerl.types import FAILURES


def test_choice_is_seeded_in_data_order_and_shows_a_failure_of_each_stage():
    images = [f"{n}" for n in range(100)]
    failed = {"A": ["77"], "B": ["elsewhere", "42", "3"], "C": []}
    chosen = choose(images, failed, 10, seed=0)
    assert chosen == choose(images, failed, 10, seed=0) != choose(images, failed, 10, seed=1)
    assert len(set(chosen)) == 10 and chosen == sorted(chosen, key=int) and {"77", "42"} <= set(chosen)
    assert choose(images, failed, 100, seed=0) == images
    assert choose(images, failed, 1, seed=0) == ["77"]


def test_choice_holds_the_images_on_which_stages_differ_most():
    images = [f"{n}" for n in range(100)]
    gaps = {"90": 0.5, "10": 0.9, "20": 0.7, "30": 0.0, "77": 1.0}
    chosen = choose(images, {"A": ["77"]}, 8, 0, gaps)
    # The failure, a quarter of 8 by difference (the failure is there already), the others at random.
    assert len(chosen) == 8 and {"77", "10", "20"} <= set(chosen)
    assert {"77", "10", "20", "90"} <= set(choose(images, {"A": ["77"]}, 16, 0, gaps))


def test_conventions_come_from_the_metrics_file():
    assert options_of({"task": "det", "iou_threshold": 0.7, "ks": "x", "unknown": 3}) == MetricOptions(
        task="det", iou_threshold=0.7
    )


def test_a_reliability_curve_lies_in_its_square():
    curve = Reliability(ece=0.25, confidence=[0.0, 0.5, 1.0], accuracy=[0.0, 0.25, 1.0], counts=[5, 20, 1])
    (chart,) = charts.reliability_charts("t", [("A", 0, results({}, relations=curve)), ("B", 1, results({}))])
    assert chart.title == "Relations" and [line.name for line in chart.curves] == ["A"]
    low, middle, high = ((x, y) for x, y, _, _ in chart.curves[0].dots)
    assert low == (charts.MARGIN, charts.SIDE - charts.MARGIN) and high == (charts.SIDE - 8, 8)
    assert middle == ((low[0] + high[0]) / 2, low[1] + 0.25 * (high[1] - low[1]))
    radii = [radius for _, _, radius, _ in chart.curves[0].dots]
    assert radii == [3.5, 5.5, 2.4]  # 1.5 + 4 sqrt(count / 20)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_ordered_and_enclose_the_range(low, size):
    ticks = charts.nice_ticks(low, low + size)
    assert 2 <= len(ticks) <= 7
    assert all(a < b for a, b in zip(ticks, ticks[1:], strict=False))
    assert ticks[0] <= low + size * 1e-6 and ticks[-1] >= (low + size) - size * 1e-6


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-1e9, 1e9)), min_size=2, max_size=60))
def test_charts_stay_inside_their_frame(points):
    chart = charts.line_chart([("a", 0, sorted(points))])
    for line in chart.lines:
        for text in (line.path, line.raw):
            for x, y in (point.split() for point in text.removeprefix("M").split("L") if point):
                assert charts.LEFT - 0.2 <= float(x) <= charts.WIDTH - charts.RIGHT + 0.2
                assert charts.TOP - 0.2 <= float(y) <= charts.HEIGHT - charts.BOTTOM + 0.2


def test_a_long_log_is_thinned_to_means():
    points = charts.thin([(float(n), float(n % 2)) for n in range(4000)])
    assert len(points) == charts.MAX_POINTS
    assert points[0] == (4.5, 0.5) and math.isclose(points[-1][0], 3994.5)


def test_smoothing_keeps_constants_and_length():
    assert charts.smooth([2.0] * 90) == pytest.approx([2.0] * 90)
    assert charts.smooth([0.0, 3.0]) == [1.5, 1.5]


def test_curves_of_supervised_and_reinforced_stages_are_apart_and_zeros_are_named():
    sft = {"loss": [(1.0, 3.0), (2.0, 2.0)], "grad_norm": [(1.0, 1.0), (2.0, 1.0)]}
    rl = {"reward": [(1.0, 0.1), (2.0, 0.2)], "kl": [(1.0, 0.0), (2.0, 0.0)], "single": [(1.0, 5.0)]}
    groups = curve_groups([("SFT", 0, sft), ("A", 1, rl), ("B", 2, rl)])
    assert [group.name for group in groups] == ["Supervised fine-tuning", "Reinforcement learning"]
    assert [curve.key for curve in groups[0].shown] == ["loss"]
    assert [curve.key for curve in groups[0].more] == ["grad_norm"]
    assert [line.name for line in groups[1].shown[0].chart.lines] == ["A", "B"]
    assert groups[1].flat == ("kl",) and not groups[1].more
    assert curve_groups([]) == []


def results(values, per_predicate=None, **calibration) -> Metrics:
    return Metrics(
        metrics={name: {"value": value, "interval": interval} for name, (value, interval) in values.items()},
        per_predicate={
            name: {"recall": recall, "num_targets": number} for name, (recall, number) in (per_predicate or {}).items()
        },
        calibration=calibration,
    )


def test_metric_table_formats_bars_and_intervals():
    rows = [
        results({"Recall": (0.2, (0.1, 0.3)), "failure_rate": (0.5, None), "relations_per_image": (6.0, None)}),
        results({"Recall": (0.4, None), "failure_rate": (0.0, None), "relations_per_image": (2.0, None)}),
        results({}),
    ]
    table = metric_table("t", [(name, n, row) for n, (name, row) in enumerate(zip("ABC", rows, strict=True))])
    assert [column.name for column in table.columns] == ["failure_rate", "Recall", "relations_per_image"]
    (_, _, (_, recall, relations)), (_, _, best), (_, _, nothing) = table.rows
    # The scale of the column ends at its largest value or interval, 0.4.
    assert (recall.text, recall.interval, recall.bar, recall.whisker) == ("20.0", "10.0\u201330.0", 50.0, (25.0, 75.0))
    assert [cell.best for cell in best] == [True, True, False]
    assert (relations.text, table.columns[2].unit) == ("6.0", "")
    assert nothing == (None, None, None)


def test_a_value_is_the_best_only_where_no_interval_overlaps_its_own():
    def best(*values) -> list[bool]:
        table = metric_table("t", [(f"{n}", n, results({"AP": value})) for n, value in enumerate(values)])
        return [cells[0].best for _, _, cells in table.rows]

    assert best((0.5, (0.4, 0.6)), (0.7, (0.61, 0.8))) == [False, True]
    assert best((0.5, (0.4, 0.6)), (0.7, (0.59, 0.8))) == [False, False]
    assert best((0.5, None), (0.5, None)) == [False, False] and best((0.5, None)) == [False]


def test_no_metric_disappears_and_recall_never_stands_alone():
    table = metric_table("t", [("A", 0, results(dict.fromkeys(("brand_new", "zR@20", "AP"), (0.5, None))))])
    assert [column.name for column in table.columns] == ["zR@20", "AP", "brand_new"]
    shown = headline(["R@20", "R@50", "triplet_precision", "relations_per_image", "AP"])
    assert {"R@50", "triplet_precision", "relations_per_image"} <= set(shown)


def test_predicates_are_ordered_by_frequency():
    recalls = results({}, {"on": (0.5, 10), "in": (None, 20), "by": (0.1, 5)})
    table = predicate_table([("A", 0, recalls)], {"in": 50, "on": 100})
    assert table.columns == (("In training", None, ""), ("A", 0, "%"))
    assert [(name, cells) for name, _, cells in table.rows] == [
        ("on", [(100.0, "100"), (50.0, "50")]),
        ("in", [(50.0, "50"), None]),
        ("by", [(0.0, "0"), (10.0, "10")]),
    ]
    assert predicate_table([("A", 0, results({}))], {}) is None


def test_failures_are_shares_of_the_images_and_unknown_types_come_last():
    table = count_table([("A", 0, {"odd": 1, "truncated": 2, "empty": 0}, 8), ("B", 1, {}, 0)], FAILURES)
    assert [(kind, cells) for kind, _, cells in table.rows] == [
        ("truncated", [(25.0, "2"), (0.0, "0")]),
        ("odd", [(12.5, "1"), (0.0, "0")]),
    ]


def test_text_is_made_visible_and_bounded():
    assert visible("a\r\nb\tc") == "a\nb\tc"
    assert visible("\x00\x1b\x7f\u202e\ud800") == "\u2400\u241b\u27e8U+007F\u27e9\u27e8U+202E\u27e9\u27e8U+D800\u27e9"
    assert short("a" * 100, 10) == "a" * 9 + "\u2026" and short("a\nb") == "a\u2424b" and short(3) == "3"
    assert truncated("abc", 5) == ("abc", "") and truncated("abcdef", 5)[0] == "abcde"


@given(st.text(st.characters(), max_size=200))
def test_any_text_becomes_one_that_utf8_holds(text):
    shown = short(text)
    shown.encode("utf-8")
    assert "\n" not in shown and not any(ord(character) < 32 for character in shown)
