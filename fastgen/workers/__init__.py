"""Where a backend runs: the protocol of a worker, the process that implements it, and the idle pool between runs."""
