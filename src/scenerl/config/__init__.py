"""Options of the commands, and how recipes and command lines become them. The only room that knows YAML.

Adding an option: one line in :mod:`scenerl.config.options`. Nothing here imports torch, transformers or TRL when it is
imported.
"""

from __future__ import annotations

from scenerl.config.options import (
    OPTIONS,
    TRL_CONFIGS,
    DataOptions,
    DemoOptions,
    EvalOptions,
    GRPOOptions,
    PredictOptions,
    ReportOptions,
    ScoreOptions,
    SFTOptions,
)

__all__ = [
    "OPTIONS",
    "TRL_CONFIGS",
    "DataOptions",
    "DemoOptions",
    "EvalOptions",
    "GRPOOptions",
    "PredictOptions",
    "ReportOptions",
    "ScoreOptions",
    "SFTOptions",
]
