"""Trainers: supervised fine-tuning, DPO, and policy gradients in `policy_gradient`."""
