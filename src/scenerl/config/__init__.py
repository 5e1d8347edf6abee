"""Options of the commands, and how recipes and command lines become them. The only room that knows YAML.

Adding an option: one line in :mod:`scenerl.config.options`. Nothing here imports torch, transformers or TRL when it is
imported.
"""

from __future__ import annotations

from scenerl.config.options import (
    OPTIONS,
    TRL_CONFIGS,
    AnswerOptions,
    AppOptions,
    DataOptions,
    DemoOptions,
    EvalOptions,
    GRPOOptions,
    LaunchOptions,
    MergeOptions,
    Options,
    PlanOptions,
    PredictOptions,
    ReportOptions,
    ScoreOptions,
    SFTOptions,
)
from scenerl.config.parse import Extra, dump_yaml, load_recipe, load_yaml, parse, plain, resolve_extra

__all__ = [
    "OPTIONS",
    "TRL_CONFIGS",
    "AnswerOptions",
    "AppOptions",
    "DataOptions",
    "DemoOptions",
    "EvalOptions",
    "Extra",
    "GRPOOptions",
    "LaunchOptions",
    "MergeOptions",
    "Options",
    "PlanOptions",
    "PredictOptions",
    "ReportOptions",
    "SFTOptions",
    "ScoreOptions",
    "dump_yaml",
    "load_recipe",
    "load_yaml",
    "parse",
    "plain",
    "resolve_extra",
]
