"""One hundred rewritten stories change how a small model writes."""
