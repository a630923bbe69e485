"""The folder of `storage`, at the path that pipelines know."""
