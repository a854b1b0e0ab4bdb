"""Not ours."""
