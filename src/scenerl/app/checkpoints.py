"""The checkpoints that the page offers, named by the user; the browser chooses among these names only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scenerl.answers.formats import FORMATS
from scenerl.errors import UserError
from scenerl.inference.engine import Sampling
from scenerl.models.folders import ADAPTER_CONFIG
from scenerl.models.loading import load, model_type_of
from scenerl.models.output_formats import saved_output_format

if TYPE_CHECKING:
    from scenerl.inference.hf import HFEngine

CONFIGS = ("config.json", ADAPTER_CONFIG)
"""A folder with one of them is a checkpoint."""
KEPT = 2
"""Models in memory: two are compared."""


def named_models(words: Sequence[str]) -> dict[str, str]:
    """Names to checkpoint folders or hub names.

    Args:
        words: each ``CHECKPOINT`` or ``NAME=CHECKPOINT``. A folder that is no checkpoint itself stands for those in it,
            such as the stages of a demo run, the newest first.

    Raises:
        UserError: no checkpoint there, or two with one name.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, place = word.partition("=")
        if not equals or Path(word).exists():
            name, place = "", word
        inside = []
        if not any((Path(place) / config).is_file() for config in CONFIGS):
            configs = [path for config in CONFIGS for path in Path(place).glob(f"*/{config}")]
            inside = [path.parent for path in sorted(configs, key=lambda path: (-path.stat().st_mtime, path))]
        for path in inside or [place]:
            last = Path(path).name or str(path)
            key = (f"{name}/{last}" if name else last) if inside else name or last
            if key in found and found[key] != str(path):
                raise UserError(f"models: two are named {key!r}; name them: NAME={path}")
            found[key] = str(path)
    for place in found.values():
        model_type_of(place)
    return found


class Checkpoints:
    """Loads checkpoints when they are needed, and keeps the last few. For one thread at a time.

    Attributes:
        output_formats: of each checkpoint, None where it was not trained by us.
    """

    def __init__(self, models: dict[str, str], **loading):
        """``loading``: arguments of :func:`scenerl.models.loading.load`."""
        self.output_formats = {name: saved_output_format(place) for name, place in models.items()}
        self._models, self._loading = models, loading
        self._engines: OrderedDict[str, HFEngine] = OrderedDict()

    def engine(self, name: str) -> HFEngine:
        """What answers with a checkpoint.

        Raises:
            UserError: it cannot be loaded; says why.
        """
        from scenerl.inference.hf import HFEngine

        if name not in self._engines:
            while len(self._engines) >= KEPT:
                self._engines.popitem(last=False)
            self._engines[name] = HFEngine(load(self._models[name], **self._loading), Sampling())
        self._engines.move_to_end(name)
        return self._engines[name]

    def task_of(self, name: str) -> str:
        """The task that a checkpoint was trained for: ``sgdet`` or ``det``."""
        output_format = self.output_formats[name]
        return "sgdet" if output_format is None or FORMATS[output_format.format].graph else "det"
