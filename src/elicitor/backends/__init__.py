"""Backends: models that score prompts. `base` says what one is; nothing here knows tasks or labels."""
