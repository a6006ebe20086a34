"""From a recipe to processes, here or in a cluster: job files, their submission, and what starts the processes."""
