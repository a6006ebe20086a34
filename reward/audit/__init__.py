"""Are the labels any good: measured by themselves, against people, and made better where they can be."""
