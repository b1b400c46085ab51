"""`python -m mechunlearn` is the command line."""

from mechunlearn.cli import main

main()
