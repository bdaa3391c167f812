"""The `nwbzarr` command, also as `python -m intake_nwbzarr`."""

import sys


def main() -> None:
    """Run the command; Ctrl-C is one line with exit status 130, also while modules are imported."""
    try:
        from intake_nwbzarr.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("Aborted.\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
