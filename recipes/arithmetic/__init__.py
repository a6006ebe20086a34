"""Addition from scratch: a task with a verifiable reward that a tiny model learns in minutes."""
