"""`python -m intake_nwbzarr` is the `nwbzarr` command."""

from intake_nwbzarr.cli import main

if __name__ == "__main__":
    main()
