"""``python -m diffaudit``: the command line where the console script is not installed."""

from diffaudit.cli import main

if __name__ == "__main__":
    main()
