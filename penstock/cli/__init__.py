"""The command line; `main` is what the command ``penstock`` runs.

This module imports nothing, so that `main` installs its signal handlers before anything that takes time.
"""

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    From the first line on, Ctrl-C ends the process with code 130 and SIGTERM with 143, without a traceback. Commands
    that have something to clean up install their own handlers meanwhile (`penstock.cli.interrupts`).

    Args:
        arguments: the command line without the program's name; None takes the process's own.
    """
    import os  # imported by the interpreter already

    try:
        import atexit
        import signal
        import sys
        from types import FrameType

        def leave(number: int, _frame: FrameType | None) -> None:
            os._exit(128 + number)

        def ignore() -> None:
            for number in taken:
                signal.signal(number, signal.SIG_IGN)

        # A signal that is ignored stays so: the command was started with nohup, or in the background.
        taken = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) != signal.SIG_IGN]
        for number in taken:
            signal.signal(number, leave)
        atexit.register(ignore)  # runs last; after it the interpreter runs no handlers, and the exit code is decided

        from penstock.cli.commands import run_command

        code = run_command(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before the handlers were there
        os._exit(130)
    sys.exit(code)
