"""`python -m fastgen` is the `fastgen` command."""

from fastgen.cli import main

main()
