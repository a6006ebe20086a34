"""Is the trained model better: win rates, distances, lengths, and how sure we can be."""
