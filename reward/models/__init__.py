"""The reward model: losses, training, ensembles and scoring."""
