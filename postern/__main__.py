"""`python -m postern`, which is how the supervisor starts its children."""

from postern.cli import main

main()
