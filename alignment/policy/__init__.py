"""Base models, the adapters on them, and the roles they play."""
