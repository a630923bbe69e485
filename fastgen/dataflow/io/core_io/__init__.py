"""The folder of `ImageIO`, at the path that pipelines import."""
