"""Where a backend runs: what a worker offers, the process that is one, and those that idle between runs."""
