"""The arithmetic of policy gradients: pure functions of tensors, each with its source."""
