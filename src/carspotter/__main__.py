"""`python -m carspotter`."""

from carspotter.cli import main

if __name__ == "__main__":
    main()
