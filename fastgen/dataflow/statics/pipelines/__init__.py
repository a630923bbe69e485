"""The pipelines, as documented by DataFlow-MM."""
