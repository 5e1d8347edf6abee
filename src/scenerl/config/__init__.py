"""How recipes (YAML) and command lines become options. The options themselves stand with their commands.

Nothing here imports torch, transformers or TRL.
"""

from __future__ import annotations

from scenerl.config.command_line import Extra, parse_options, resolve_extra
from scenerl.config.recipes import dump_yaml, load_recipe, load_yaml, plain

__all__ = ["Extra", "dump_yaml", "load_recipe", "load_yaml", "parse_options", "plain", "resolve_extra"]
