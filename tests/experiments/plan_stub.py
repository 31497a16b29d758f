"""A train.py of milliseconds: takes the words that a plan gives, and leaves what the plan looks for.

A file ``behaviour.txt`` in the working folder names runs and what becomes of them: ``seed_1 fail``, ``seed_1 hang``,
``seed_1 kill`` or ``seed_1 silent``. With ``--cfg job`` it only says whether the words make sense; ``nonsense=1`` does
not.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    words = {key: value.strip("'") for key, _, value in (one.partition("=") for one in sys.argv[1:])}
    if "--cfg" in words:
        sys.exit("Could not override 'nonsense'.\nKey 'nonsense' is not in struct" if "nonsense" in words else 0)
    run = Path(words["hydra.run.dir"])
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / "last.ckpt").write_text("state")
    with (run / "words.jsonl").open("a") as calls:
        calls.write(json.dumps(sys.argv[1:]) + "\n")
    with Path("order.txt").open("a") as order:
        order.write(f"{run.name}\n")
    behaviour = Path("behaviour.txt")
    told = dict(line.split() for line in behaviour.read_text().splitlines()) if behaviour.exists() else {}
    match told.get(run.name):
        case "fail":
            sys.exit("error: the loss is nan; lower optimizer.lr")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "silent":
            return
        case "hang":
            (run / "hangs").write_text(str(os.getpid()))
            time.sleep(600)
    (run / "bundle").mkdir(exist_ok=True)
    (run / "bundle" / "bundle.json").write_text("{}")
    auroc = 0.7 + int(words.get("seed", 0)) / 10
    (run / "metrics.json").write_text(json.dumps({"best": {}, "metrics": {"test/auroc": auroc}}))


if __name__ == "__main__":
    main()
