"""One HTML page that tells what ran and what came of it."""
