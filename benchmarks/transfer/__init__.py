"""How fast and how safely archives reach the client: loopback, an emulated link, and injected faults."""
