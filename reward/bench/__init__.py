"""`alignment bench`: accuracy and calibration of a reward model on labelled comparisons."""
