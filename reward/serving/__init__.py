"""`alignment serve-reward`: a reward model behind HTTP, spoken to as PPO's scorer of kind http speaks."""
