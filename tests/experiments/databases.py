"""A PostgreSQL server of the tests' own, in a folder, on a port of this machine; it runs as an unprivileged user."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
USER = "postgres"


def find_binary(name: str) -> str | None:
    """Where Debian or the search path has a program of PostgreSQL."""
    return shutil.which(name, path=os.pathsep.join([*map(str, FOLDERS), os.environ["PATH"]]))


class Postgres:
    """A server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            shutil.chown(folder, USER)
            for parent in folder.parents:
                if parent.stat().st_uid == 0 and parent != Path("/"):
                    parent.chmod(parent.stat().st_mode | 0o011)
        self._run("initdb", "-D", str(folder / "data"), "-U", USER, "--auth=trust", "--no-sync")

    def _run(self, name: str, *words: str) -> None:
        as_user = {"user": USER, "group": USER, "extra_groups": []} if os.getuid() == 0 else {}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder}
        subprocess.run([find_binary(name), *words], check=True, timeout=600, **as_user, **quiet)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w", "-o", options, "start"
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
