"""Writes images to files and reads them."""

from fastgen.dataflow.io.core_io.image_gen import ImageIO

__all__ = ["ImageIO"]
