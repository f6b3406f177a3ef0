"""`python -m qevo` is the `qevo` command."""

from qevo.cli import main

if __name__ == "__main__":
    main()
