"""A handler package that prints whatever it likes."""

print("Hello, here are my results:\n\x00\xff<<<not json>>>")
