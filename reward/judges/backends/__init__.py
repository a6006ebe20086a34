"""Judges other than chat models, one module for each kind of `alignment.config.schema.judges`, with `build`."""
