"""Engines that turn prompts into answers, and the command that writes predictions."""
