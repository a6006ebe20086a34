"""Preference labels as files and records."""
