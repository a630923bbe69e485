"""The folder of `prompt_template`, at the path that pipelines import."""
