"""Model families and how their checkpoints are loaded.

To add a family, write one module that defines ``FAMILY`` (see :class:`scenerl.models.family.Family`) and one line in
``FAMILIES``. Modules are imported when a checkpoint of the family is loaded, so this package imports without torch.
"""

FAMILIES = {
    "qwen2_vl": "scenerl.models.qwen2_vl",
    "qwen2_5_vl": "scenerl.models.qwen2_5_vl",
    "qwen3_vl": "scenerl.models.qwen3_vl",
    "qwen3_5": "scenerl.models.qwen3_5",
    "internvl": "scenerl.models.internvl",
    "smolvlm": "scenerl.models.smolvlm",
    "glm46v": "scenerl.models.glm46v",
}
"""``config.model_type`` to the module that defines the family."""
