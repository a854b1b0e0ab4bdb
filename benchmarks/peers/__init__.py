"""The same work done by other projects' builders, each written as its documentation advises."""
