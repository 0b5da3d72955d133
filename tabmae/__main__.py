"""`python -m tabmae` is the command line."""

from tabmae.cli import main

if __name__ == "__main__":
    main(prog_name="tabmae")
