"""`python -m eventing` is the command `eventing`."""

from eventing.cli import main

if __name__ == "__main__":
    main()
