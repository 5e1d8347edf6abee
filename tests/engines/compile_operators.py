"""Compiles DeepSpeed's communication and Adam for the CPU, before processes of a test would wait for each other's."""

from deepspeed.accelerator import get_accelerator

for name in ("ShareMemCommBuilder", "CPUAdamBuilder"):
    get_accelerator().create_op_builder(name).load()
