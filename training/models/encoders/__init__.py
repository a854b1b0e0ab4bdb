"""Encoders: image classification networks without their classifiers, as functional Keras graphs.

Each takes a Keras tensor that is scaled already and gives the features that a decoder needs, by name. Weights are
fresh. Layers are named after the reference implementation's (dots become underscores), and padding, epsilon and
momentum are the reference's, so that its weights can be put in layer by layer.
"""
