"""Judges that are no chat models, one module for each kind of `alignment.config.schema.judges`; `build` makes one."""
