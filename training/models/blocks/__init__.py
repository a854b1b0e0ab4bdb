"""What several models are made of. All of it is Keras' own layers: a checkpoint needs nothing but Keras to be read.

No module here imports Keras before one of its functions is called.
"""
