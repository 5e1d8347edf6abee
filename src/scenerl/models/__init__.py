"""Model families and how their checkpoints are loaded.

To add a family, write one module that defines ``FAMILY`` (see :class:`scenerl.models.family.Family`) and one line in
``FAMILIES``. Modules are imported when a checkpoint of the family is loaded, so this package imports without torch.
"""

FAMILIES = {"qwen2_vl": "scenerl.models.qwen2_vl"}
"""``config.model_type`` to the module that defines the family."""
