"""People's rankings: a page where they are given, and how they are mixed with judges' labels."""
