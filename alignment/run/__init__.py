"""Run directories: what a stage was given, what it did, what it leaves."""
