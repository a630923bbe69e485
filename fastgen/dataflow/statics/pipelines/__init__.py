"""The pipelines as DataFlow-MM documents them."""
