"""Takes the place of the real package, and attacks the server."""
