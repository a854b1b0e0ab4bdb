"""Segmentation models in Keras 3, trained on datasets that were asked for by configuration."""
