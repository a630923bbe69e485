"""`python -m fastgen` is the `fastgen` command."""

from fastgen.cli.main import main

main()
