"""Steps that prepare data: one module `KIND.py` per kind, whose `build(entry, seed)` returns a `Step`."""
