"""From a file of rows to requests. Does not know the journal or any backend."""
