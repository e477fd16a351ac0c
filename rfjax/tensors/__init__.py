"""Checkpoint files as named tensors, read on demand: safetensors, shards, torch's zip files. Knows no network."""
