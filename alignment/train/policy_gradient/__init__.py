"""PPO. `trainer.py` holds the algorithm; the modules beside it hold its arithmetic, data, statistics and files."""
