"""A script that ends with whoever started it: ``python -m cxr.experiments.child train.py experiment=demo``.

Standard input is a pipe that the starter holds open and never writes to. When it closes, because the starter wants the
script to stop or was itself killed, the script gets Ctrl-C, and is ended if it takes longer than `SECONDS_TO_STOP`.
Knows nothing of what the script does.
"""

import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

SECONDS_TO_STOP = 10.0
STOPPED = 130


def main() -> None:
    """Run the script named by the first argument as if it had been started alone."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job of a background shell inherits it ignored
    threading.Thread(target=follow, args=(take_stdin(),), daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(sys.argv[0]).absolute().parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def take_stdin() -> int:
    """The pipe, moved away from standard input, so that nothing in the script can read it."""
    pipe = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    return pipe


def follow(pipe: int) -> None:
    """Wait for the end of the pipe, then stop this process."""
    os.read(pipe, 1)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(SECONDS_TO_STOP)
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
