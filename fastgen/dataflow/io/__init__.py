"""What puts pictures into files and gets them out again."""

from fastgen.dataflow.io.core_io.image_gen import ImageIO

__all__ = ["ImageIO"]
