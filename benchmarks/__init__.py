"""Measurements of speed and memory; nothing imports them."""
