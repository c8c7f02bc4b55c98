"""`python -m kestrelpi` is the same as `kestrelpi`."""

from kestrelpi.cli import main

if __name__ == "__main__":
    main()
