"""From a file of rows to requests. Knows no journal and no backend."""
