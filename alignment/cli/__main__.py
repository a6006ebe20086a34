"""`python -m alignment.cli`."""

from alignment.cli import main

main()
