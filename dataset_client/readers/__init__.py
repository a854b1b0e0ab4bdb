"""Reading examples without the handler that made them: the file formats, and examples as numpy or
TensorFlow.
"""
