"""On a server's PYTHONPATH: vLLM's linear layers on a CPU read their own weights.

By default they read packed copies of oneDNN's, which a new checkpoint does not reach.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec


class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "vllm._custom_ops":
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            module._supports_onednn = False

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
