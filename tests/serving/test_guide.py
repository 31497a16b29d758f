"""What docs/serving.md says to copy works: the snippets are run as they stand."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxr.serving.schemas import Prediction, SystemB

from .running import running

GUIDE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
LANGUAGES = {"bash": ["bash", "-e"], "python": [sys.executable], "javascript": ["node", "--input-type=module"]}


def snippet(language: str) -> str:
    """The snippet that sends an image."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL) if "chest.png" in text]
    assert len(found) == 1
    return found[0]


def test_the_answers_that_are_shown_are_as_described():
    _, prediction, older = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL))
    Prediction.model_validate(prediction)
    SystemB.model_validate(older)


@pytest.fixture(scope="module")
def served(bundle, png, tmp_path_factory):
    """The environment of a snippet, and the folder that it runs in."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "chest.png").write_bytes(png)
    with running(folder, "--bundle", bundle, "--decoders", 1) as server:
        yield {**os.environ, "CXR_SERVER": server.address, "CXR_KEY": server.headers["X-API-Key"]}, folder


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_snippet_gets_an_answer(language, served):
    command = LANGUAGES[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment, folder = served
    done = subprocess.run(
        command,
        input=snippet(language),
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"normal|pneumonia", done.stdout)
    assert "probs" in done.stdout or re.search(r"0\.\d+", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_snippet_tells_that_its_key_is_wrong(language, served):
    command = LANGUAGES[language]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment, folder = served
    done = subprocess.run(
        command, input=snippet(language), env={**environment, "CXR_KEY": "wrong"}, cwd=folder, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0
    assert re.search("401|unauthorized", done.stdout + done.stderr)
