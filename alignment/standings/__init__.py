"""Win rates and leaderboards from files of judgements."""
