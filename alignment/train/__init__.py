"""Trainers: supervised fine-tuning, DPO, PPO and its stream of experience."""
