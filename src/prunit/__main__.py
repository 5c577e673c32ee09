"""`python -m prunit` is the command line."""

from prunit.cli import main

main()
