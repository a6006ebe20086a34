"""Conversations with trained policies in a terminal."""
