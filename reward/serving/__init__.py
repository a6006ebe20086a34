"""`alignment serve-reward`: a reward model behind HTTP, with the protocol of PPO's `http` scorer."""
