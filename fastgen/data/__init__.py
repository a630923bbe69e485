"""Rows in, pictures and files in and out, the journal. Knows nothing of models, lanes or settings."""
