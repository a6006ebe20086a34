"""`alignment bench`: how well a reward model orders answers whose order is known."""
