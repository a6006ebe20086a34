"""AI feedback: sampled answers, judge calls and labels."""
