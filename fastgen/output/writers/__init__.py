"""One table format a file."""
