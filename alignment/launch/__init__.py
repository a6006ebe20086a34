"""Launching of recipes on this machine or in a cluster: job files, submission and start of the processes."""
