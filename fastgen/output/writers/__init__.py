"""One file per table format."""
