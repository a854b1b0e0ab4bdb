"""How fast datasets are read and decoded: by our readers, native tf.data, and other projects' readers."""
