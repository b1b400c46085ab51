"""Decoder-only language models: where they come from, what they are made of, how they are run."""
