"""People's rankings: the annotation server, and mixing with judges' labels."""
