"""Continued pretraining on another domain, with replay of old data."""
