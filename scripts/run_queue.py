"""Run train.py once for each line of a file; a failing run does not stop the next.

    python scripts/run_queue.py runs.txt

A line holds the overrides of one run (`experiment=demo seed=1`); `#` starts a comment. Ends with a table, and with
exit code 1 if a run failed.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from cxr.entry import tell_errors
from cxr.experiments.queue import FinishedRun, queue_table, read_queue, run_queue

TRAIN = Path(__file__).resolve().parents[1] / "train.py"


@tell_errors
def main() -> int:
    """Run the queue and print how each run ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", type=Path, help="text file with one run per line")
    runs = read_queue(parser.parse_args().queue)
    finished: list[FinishedRun] = []
    try:
        finished.extend(run_queue(runs, [sys.executable, str(TRAIN)]))
    finally:
        Console().print(queue_table(finished, runs))
    return int(any(end.exit_code != 0 for end in finished))


if __name__ == "__main__":
    sys.exit(main())
