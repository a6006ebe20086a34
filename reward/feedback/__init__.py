"""AI feedback: sampling, asking, the store of calls, and labels."""
