"""The arithmetic of PPO: pure functions of tensors, each with its source."""
