"""Turns raw segmentation data into TFRecord datasets, reproducibly."""
