"""The claims of the papers as comparisons of numbers, and what the seeds say to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scenerl.study.experiments import DENSITY, density_name
from scenerl.study.measures import Mean, Measured, mean

HOLDS, FAILS, OPPOSITE, PARTLY, UNKNOWN = "holds", "does not hold", "opposite", "holds in part", "not measured"

Expected = Literal["higher", "lower", "not higher", "not lower"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One number beside another, or below a limit.

    Attributes:
        text: what is compared.
        number: name of the number, as :class:`~scenerl.study.measures.Measured` has it.
        other: that of the number beside it, or the limit.
        expected: where the claim has ``number``, seen from ``other``.
    """

    text: str
    number: str
    other: str | float
    expected: Expected = "higher"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim of a paper.

    Attributes:
        name: for anchors and notes.
        text: the claim in a sentence.
        source: where it is made.
        paper: its numbers there.
        comparisons: what it says of our runs.
    """

    name: str
    text: str
    source: str
    paper: str
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a comparison gave.

    Attributes:
        values: means of the number and of the other one, None for a limit; both None: not measured.
        difference: mean over the seeds of the number less the other.
        verdict: one of the words above.
    """

    values: tuple[Mean | None, Mean | None]
    difference: Mean | None
    verdict: str


def judge(comparison: Comparison, measured: Measured) -> Result:
    """Compare seed by seed. A difference counts where its 95 % interval leaves out zero."""
    if isinstance(comparison.other, str):
        rows = measured.values(comparison.number, comparison.other)
        pairs = [(a, b) for a, b in rows]
    else:
        pairs = [(a, comparison.other) for (a,) in measured.values(comparison.number)]
    if not pairs:
        return Result((None, None), None, UNKNOWN)
    difference = mean([a - b for a, b in pairs])
    is_limit = not isinstance(comparison.other, str)
    values = mean([a for a, _ in pairs]), None if is_limit else mean([b for _, b in pairs])
    return Result(values, difference, _verdict(difference, comparison.expected))


def _verdict(difference: Mean, expected: Expected) -> str:
    if difference.half is None:
        return UNKNOWN
    if expected == "not higher":
        return FAILS if difference.low > 0 else HOLDS
    if expected == "not lower":
        return FAILS if difference.high < 0 else HOLDS
    low, high = (difference.low, difference.high) if expected == "higher" else (-difference.high, -difference.low)
    return HOLDS if low > 0 else OPPOSITE if high < 0 else FAILS


def verdict_of(results: list[Result]) -> str:
    """The verdict on a claim from those on its comparisons, which may be none."""
    found = {result.verdict for result in results}
    if UNKNOWN in found or not found:
        return UNKNOWN
    if HOLDS in found:
        return HOLDS if found == {HOLDS} else PARTLY
    return OPPOSITE if OPPOSITE in found else FAILS


def _cell(model: str, annotations: str, metric: str, experiment: str = density_name(DENSITY)) -> str:
    return f"{experiment}/{model}/{annotations}/{metric}"


def _beats(
    winner: str,
    loser: str,
    metrics: dict[str, str],
    annotations: str | None = None,
    experiment: str = density_name(DENSITY),
    expected: Expected = "higher",
) -> tuple[Comparison, ...]:
    """Comparisons of two models by metrics (name to text); of scene graphs against sparse annotations, as in R1-SGG."""
    annotations = annotations or ("sparse" if experiment == density_name(DENSITY) else "complete")
    return tuple(
        Comparison(
            text,
            _cell(winner, annotations, metric, experiment),
            _cell(loser, annotations, metric, experiment),
            "lower" if metric in ("failure_rate", "absent_answered") else expected,
        )
        for metric, text in metrics.items()
    )


_R1, _VLM = "R1-SGG (arXiv 2504.13617)", "VLM-R1's report on detection"

CLAIMS = (
    Claim(
        "rl",
        "After SFT, RL cuts failures and lifts Recall and mRecall.",
        f"{_R1}, tables 1 and 2",
        "2B on VG150: failures 72.4 to 0.1 %, Recall 5.5 to 21.1, mRecall 1.5 to 7.5",
        _beats(
            "hard_recall",
            "sft",
            {
                "failure_rate": "failure rate, RL and SFT",
                "Recall": "Recall, RL and SFT",
                "mRecall": "mRecall, RL and SFT",
            },
        ),
    ),
    Claim(
        "zero",
        "RL alone reaches almost no failures and beats SFT on what it finds.",
        f"{_R1}, table 1",
        "2B on VG150: failures 0.34 %, Recall 11.9 (SFT 5.5), mRecall 5.7 (SFT 1.5)",
        (
            Comparison("failure rate of Zero, and 2 %", _cell("zero", "sparse", "failure_rate"), 0.02, "lower"),
            *_beats("zero", "base", {"failure_rate": "failure rate, Zero and base"}),
            *_beats("zero", "sft", {"Recall": "Recall, Zero and SFT", "mRecall": "mRecall, Zero and SFT"}),
        ),
    ),
    Claim(
        "rewards",
        "Hard Recall gives the best mRecall, Soft Recall the lowest.",
        f"{_R1}, table 4",
        "7B on VG150, mRecall: Hard 11.4, relaxed 9.6, Soft 5.6",
        _beats("hard_recall", "soft_recall", {"mRecall": "mRecall, Hard and Soft", "Recall": "Recall, Hard and Soft"}),
    ),
    Claim(
        "settings",
        "β 0 is better than 0.04, twice the completion length gains nothing, and groups of 16 are steadier than of 8.",
        f"{_R1}, figure 5",
        "curves only",
        (
            *_beats("hard_recall", "beta", {"Recall": "Recall, β 0 and 0.04"}),
            *_beats("long", "hard_recall", {"Recall": "Recall, length 160 and 80"}, expected="not higher"),
            Comparison(
                "noise of the reward, 4 groups of 16 and 8 groups of 8",
                _cell("groups_of_16", "log", "reward:noise"),
                _cell("hard_recall", "log", "reward:noise"),
                "lower",
            ),
        ),
    ),
    Claim(
        "frequency",
        "RL gains on common and on rare predicates.",
        f"{_R1}, figures 3 and 4",
        "curves only",
        _beats(
            "hard_recall",
            "sft",
            {f"mRecall_{group}": f"mRecall of the {group}, RL and SFT" for group in ("head", "body", "tail")},
            "complete",
        ),
    ),
    Claim(
        "detection",
        "In detection RL beats SFT in mAP, greedy precision and greedy recall.",
        _VLM,
        "COCO filtered: mAP 17.8 to 20.1, precision 53.2 to 57.6, recall 39.4 to 43.7",
        _beats(
            "od_length",
            "sft",
            {
                "AP": "mAP, RL and SFT",
                "greedy_precision": "greedy precision, RL and SFT",
                "greedy_recall": "greedy recall, RL and SFT",
            },
            experiment="detection",
        ),
    ),
    Claim(
        "ap50",
        "An AP50 reward rises fast, and ends in a lower mAP than an AP reward.",
        _VLM,
        "curves only",
        (
            Comparison(
                "rise of the sampled reward, AP50 and AP",
                "detection/ap50/log/rewards/ap50/mean:rise",
                "detection/ap/log/rewards/ap/mean:rise",
            ),
            *_beats("ap50", "ap", {"AP50": "AP50, trained on AP50 and on AP"}, experiment="detection"),
            *_beats("ap50", "ap", {"AP": "mAP, trained on AP50 and on AP"}, experiment="detection", expected="lower"),
        ),
    ),
    Claim(
        "length",
        "β 0 with plain AP breeds redundant boxes; od_length cures it, with shorter answers at equal accuracy.",
        _VLM,
        "COCO filtered mAP 11.4 to 18.8, OVDEval 12.0 to 30.2 with od_length",
        (
            *_beats("ap", "sft", {"objects_per_image": "boxes per image, AP and SFT"}, experiment="detection"),
            *_beats("ap", "ap_beta", {"objects_per_image": "boxes per image, β 0 and 0.04"}, experiment="detection"),
            Comparison(
                "boxes per image, od_length and AP",
                "detection/od_length/complete/objects_per_image",
                "detection/ap/complete/objects_per_image",
                "lower",
            ),
            Comparison(
                "tokens per answer, od_length and AP",
                "detection/od_length/answers/num_tokens",
                "detection/ap/answers/num_tokens",
                "lower",
            ),
            *_beats("od_length", "ap", {"AP": "mAP, od_length and AP"}, experiment="detection", expected="not lower"),
        ),
    ),
    Claim(
        "generalisation",
        "SFT memorises, RL generalises: RL gains on what training never showed.",
        f"{_VLM}, after Chu et al. (arXiv 2501.17161); {_R1}, table 3",
        "OVDEval: position 33.7 to 42.9, relation 13.1 to 21.5, negation 34.4 to 37.7, colour 4.3 to 4.5",
        (
            *_beats("f1", "sft", {"triplet_f1": "F1, new triplets"}, "triplets"),
            *_beats("f1", "sft", {"zR@50": "zR@50, new triplets"}, "triplets"),
            *_beats("f1", "sft", {"triplet_f1": "F1, new places"}, "places"),
            *_beats("f1", "sft", {"triplet_f1": "F1, a world of another look"}, "other"),
            *_beats("od_length", "sft", {"object_f1": "F1, new combinations"}, "names", "combinations"),
            *_beats("od_length", "sft", {"object_f1": "F1, new negations"}, "negations", "combinations"),
        ),
    ),
    Claim(
        "absent",
        "RL learns to leave out what is not there; with reasoning before the answer more so.",
        _VLM,
        "none in numbers",
        (
            *_beats(
                "od_length", "sft", {"absent_answered": "absent phrases answered, RL and SFT"}, experiment="phrases"
            ),
            Comparison(
                "absent phrases answered, RL with and without reasoning",
                "phrases_think/od_length/complete/absent_answered",
                "phrases/od_length/complete/absent_answered",
                "lower",
            ),
            Comparison(
                "mAP, RL with and without reasoning",
                "phrases_think/od_length/complete/AP",
                "phrases/od_length/complete/AP",
            ),
        ),
    ),
)
