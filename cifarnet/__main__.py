"""`python -m cifarnet` is `cifarnet`. Nothing is imported here before a signal in the first moments is seen to."""

import os
import signal


def main() -> None:
    """The entry point of `cifarnet` and `python -m cifarnet`."""
    signal.signal(signal.SIGINT, end)
    from cifarnet.cli import main

    main()


def end(number: int, _: object) -> None:
    """Ends the process as Ctrl-C should while modules are imported: nothing is begun yet, and a traceback helps nobody."""
    os.write(2, b"stopped by Ctrl-C\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
