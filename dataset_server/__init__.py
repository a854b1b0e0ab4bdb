"""The daemon next to the raw data: makes each dataset once, and tells who waits for it."""
