"""What the OpenAPI description promises, asked for by schemathesis: requests of it, and ones that break it.

Needs the program `schemathesis`; it is no extra, since it would be loaded with every test as a plugin of pytest.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cxr.serving.app import make_app
from cxr.serving.keys import rotate_keys

from .stub import Serving

SCHEMATHESIS = shutil.which("schemathesis")
WORDS = ["--max-examples", "40", "--seed", "0", "--generation-database", "none", "--no-color"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(SCHEMATHESIS is None, reason="needs schemathesis: pipx install schemathesis"),
]


@pytest.mark.parametrize("with_keys", [True, False], ids=["keys", "no-keys"])
def test_the_server_keeps_what_its_description_promises(make_settings, tmp_path, with_keys):
    file = tmp_path / "keys.json"
    header = ["-H", f"X-API-Key: {rotate_keys(file)}"] if with_keys else []
    config = Path(__file__).with_name("schemathesis.toml")
    with Serving(make_app(make_settings(key_file=file if with_keys else None))) as url:
        command = [SCHEMATHESIS, "--config-file", config, "run", f"{url}/openapi.json", *header, *WORDS]
        told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert told.returncode == 0, told.stdout
    made, passed = re.search(r"(\d+) generated, (\d+) passed", told.stdout).groups()
    assert int(made) == int(passed) > 300
