"""What deploy/ holds does what docs/deploy.md says of it, as far as that shows without a container engine."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from itertools import chain
from pathlib import Path

import httpx2
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cxr.cli import make_parser, parse
from cxr.commands.serve import choose_settings
from cxr.serving.connections import SECONDS_TO_READ
from cxr.serving.run import make_config
from cxr.serving.settings import MIB, Limits, Settings

from .loopback import write_certificate
from .running import SECONDS, running, until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GUIDE = (ROOT / "docs" / "deploy.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["serve"]
NGINX = (DEPLOY / "nginx.conf").read_text()
UNIT = [line for line in (DEPLOY / "cxr.service").read_text().splitlines() if "=" in line and line[0] != "#"]
TARGETS = ("cuda", "onnx")
LIMITS = Limits()


def read_stages(text):
    """Stage -> its instructions as pairs, with those of the stages that it is made from before them."""
    stages, name = {}, None
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.M)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            source, _, name = rest.partition(" AS ")
            stages[name] = [*stages.get(source, []), (word, rest)]
        elif word and name is not None:
            stages[name].append((word, rest.strip()))
    return stages


STAGES = read_stages((DEPLOY / "Dockerfile").read_text())


def last(stage, word):
    return [rest for found, rest in STAGES[stage] if found == word][-1]


def program(name):
    """Where a program is, also beside Python; the test is skipped where it is nowhere."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def seconds_of(pattern, text):
    return int(re.search(pattern, text, re.MULTILINE)[1])


# The image


def test_the_image_of_the_server_is_the_usual_one():
    assert list(STAGES)[-1] == "onnx"


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_in_an_image_is_root(target):
    words = [found for found, _ in STAGES[target]]
    assert last(target, "USER") == "10001:10001"
    assert {"RUN", "COPY"}.isdisjoint(words[words.index("USER") :])


def test_images_are_made_of_named_releases_and_of_nothing_from_elsewhere():
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=\d+\.\d+-slim-\w+$", text, re.M)
    assert {found.partition(" AS ")[0] for word, found in chain.from_iterable(STAGES.values()) if word == "FROM"} == {
        "python:${PYTHON}", "base", "build",
    }  # fmt: skip
    assert not re.search(r"^ADD |curl|wget|https?://(?!127\.0\.0\.1)", text, re.M)


def test_no_key_lies_in_an_image():
    words = " ".join(rest for stage in STAGES.values() for word, rest in stage if word in ("ENV", "ARG"))
    assert not re.search(r"(KEY|TOKEN|SECRET|PASSWORD)\w*=", words.upper())


def test_only_what_is_copied_is_sent_to_be_built():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in lines if not line.startswith("#")) == "*"
    copied = [
        rest.split() for word, rest in chain.from_iterable(STAGES.values()) if word == "COPY" and "--from" not in rest
    ]
    sources = {source for *several, _ in copied for source in several}
    assert {line[1:] for line in lines if line.startswith("!")} == sources
    assert all((ROOT / source).exists() for source in sources)


def test_hadolint_finds_nothing():
    done = subprocess.run([program("hadolint"), DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_find_something():
    done = subprocess.run(
        [program("hadolint"), "-"], input="FROM python\nADD https://a.org/b /b\n", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "DL3006" in done.stdout


def test_what_starts_in_a_container_is_a_command_of_this_project(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    assert json.loads(last("onnx", "ENTRYPOINT")) == ["python", "-m", "cxr.cli"]
    words = [str(tmp_path) if word == "/bundles/current" else word for word in json.loads(last("onnx", "CMD"))]
    settings = choose_settings(parse(make_parser(), words), Path("/keys"))
    assert (settings.host, settings.port, settings.key_file) == ("0.0.0.0", 8000, Path("/keys/serve_keys.json"))


# What the server imports


def group():
    return [Requirement(line) for line in PROJECT["dependency-groups"]["onnx-server"]]


def test_bounds_of_the_small_image_stand_in_one_place():
    extras = PROJECT["project"]["optional-dependencies"]
    declared = [*PROJECT["project"]["dependencies"], *extras["serve"], *extras["export"]]
    bounded = {canonicalize_name(Requirement(line).name) for line in declared}
    assert {canonicalize_name(one.name) for one in group()} <= bounded
    assert not any(one.specifier for one in group())


def closure(requirements):
    """The installed distributions of requirements and of all that these need, by name."""
    found, waiting = {}, [(one.name, extra) for one in requirements for extra in ("", *one.extras)]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        try:
            found[canonicalize_name(name)] = one = distribution(name)
        except PackageNotFoundError:  # for another Python or system
            continue
        for line in one.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                more = {(needed.name, wanted) for wanted in ("", *needed.extras)} - seen
                seen |= more
                waiting += more
    return found


@pytest.fixture(scope="module")
def small_python(tmp_path_factory):
    """A Python that has what the small image has, and nothing else."""
    folder = tmp_path_factory.mktemp("small")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=SECONDS)
    (site,) = folder.glob("lib/python*/site-packages")
    for one in closure(group()).values():
        for top in {file.parts[0] for file in one.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(one.locate_file(top))
    (site / "cxr.pth").write_text(f"{ROOT / 'src'}\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    from cxr.inference.description import DESCRIPTION
    from cxr.inference.onnx_bundle import read_with_graphs, write_exported

    folder = tmp_path_factory.mktemp("exported") / "bundle"
    write_exported(read_with_graphs(bundle), folder, {})
    assert json.loads((folder / DESCRIPTION).read_text())["sha256"].keys() >= {"model.onnx"}
    return folder


@pytest.fixture(scope="module")
def small(small_python, exported, tmp_path_factory):
    """A server with what the small image has."""
    with running(
        tmp_path_factory.mktemp("logs"), "--bundle", exported, "--decoders", 1, python=small_python
    ) as started:
        yield started


@pytest.mark.slow
def test_the_small_image_predicts(small, small_python, png):
    code = "import importlib.util as u; print([n for n in ('torch', 'pandas', 'onnxruntime') if u.find_spec(n)])"
    done = subprocess.run([small_python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['onnxruntime']"
    (result,) = small.predict(png).json()["results"]
    assert result["status"] == "ok"
    assert small.client.post("/v1/image", files=[("files", ("a", png))]).status_code == 200
    assert small.client.get("/", follow_redirects=True).status_code == 200


@pytest.mark.slow
def test_the_small_image_says_that_it_draws_no_heat_maps(small, png):
    answer = small.client.post("/v1/explain", files=[("files", ("a", png))])
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "no_map")
    assert "expected torch on the server" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_the_health_check_tells_whether_the_server_answers(small):
    _, _, words = last("onnx", "HEALTHCHECK").partition("CMD ")
    python, option, code = json.loads(words)
    assert python == "python"
    port = small.address.rpartition(":")[2]
    for at, status in ((port, 0), (str(free_port()), 1)):
        done = subprocess.run([sys.executable, option, code.replace("8000", at)], capture_output=True, check=False)
        assert done.returncode == status


# Compose, systemd


def test_the_container_has_no_more_rights_than_it_needs():
    assert (SERVICE["read_only"], SERVICE["cap_drop"], SERVICE["user"]) == (True, ["ALL"], "10001:10001")
    assert SERVICE["security_opt"] == ["no-new-privileges:true"]
    assert SERVICE["mem_limit"] == SERVICE["memswap_limit"]
    assert SERVICE["ulimits"] == {"core": 0}
    assert all(volume["read_only"] for volume in SERVICE["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in SERVICE["ports"])
    assert {"noexec", "nosuid", "nodev"} <= set(SERVICE["tmpfs"][0].partition(":")[2].split(","))
    assert SERVICE["build"]["target"] in TARGETS


def test_the_address_that_is_believed_is_that_of_the_network():
    network = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["networks"]["default"]["ipam"]["config"]
    assert [one["gateway"] for one in network] == [SERVICE["environment"]["FORWARDED_ALLOW_IPS"]]


def test_whoever_stops_the_server_waits_until_it_has_answered():
    longest = 2 * (LIMITS.seconds + 5)  # a worker that a reload has replaced, then the others
    assert seconds_of(r"(\d+)s", SERVICE["stop_grace_period"]) > longest
    assert seconds_of(r"TimeoutStopSec=(\d+)", "\n".join(UNIT)) > longest


def bytes_in(text):
    number, unit = re.fullmatch(r"([\d.]+) ?([MG]B?)", text.upper()).groups()
    return float(number) * {"MB": 10**6, "GB": 10**9, "M": MIB, "G": 1024 * MIB}[unit]


def measured(process):
    """Bytes of memory after work, by the guide's table."""
    return bytes_in(re.search(rf"^\| {process}.* \| ([\d.]+ [MG]B) \|$", GUIDE, re.MULTILINE)[1])


@pytest.mark.parametrize(
    ("given", "command"),
    [
        (next(line.partition("=")[2] for line in UNIT if line.startswith("MemoryMax=")),
         next(line for line in UNIT if line.startswith("ExecStart=")).split()),
        (SERVICE["mem_limit"], json.loads(last("onnx", "CMD"))),
    ],
    ids=["systemd", "compose"],
)  # fmt: skip
def test_memory_is_enough_while_every_decoder_takes_what_it_may(given, command):
    decoders = int(command[command.index("--decoders") + 1])
    worker = measured("a worker") + measured("what decoders start from") + LIMITS.max_waiting_bytes
    decoder = measured("a decoder") + LIMITS.max_body_bytes + LIMITS.decoder_bytes
    needed = measured("the one that supervises") + worker + decoders * decoder
    assert "--workers" not in command
    assert needed < bytes_in(given) < 1.3 * needed


def test_a_process_that_takes_too_much_memory_ends_alone():
    assert "OOMPolicy=continue" in UNIT


def unit_here(folder):
    """The unit with a program that is on this machine."""
    here = folder / "cxr.service"
    here.write_text(re.sub(r"(?m)^ExecStart=\S+", f"ExecStart={sys.executable}", (DEPLOY / "cxr.service").read_text()))
    return here


def test_systemd_takes_the_unit(tmp_path):
    done = subprocess.run(
        [program("systemd-analyze"), "verify", unit_here(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_the_unit_hardened(tmp_path):
    words = ["security", "--no-pager", "--offline=true", "--threshold=15"]
    done = subprocess.run(
        [program("systemd-analyze"), *words, unit_here(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_starts_a_command_of_this_project(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    (command,) = (line.partition("=")[2].split() for line in UNIT if line.startswith("ExecStart="))
    assert command[0].endswith("/cxr")
    words = [str(tmp_path) if word == "/srv/cxr/bundles/current" else word for word in command[1:]]
    settings = choose_settings(parse(make_parser(), words), Path("/var/lib/cxr"))
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)


STAND_IN = """#!/bin/bash
echo "${0##*/} $*" >> "$STEPS"
case "${0##*/} $*" in
    "python3 -m venv "*) mkdir -p "${@: -1}/bin" && cp "$0" "${@: -1}/bin/pip" && cp "$0" "${@: -1}/bin/cxr" ;;
    "install --directory "*) mkdir "${@: -1}" ;;
    "runuser --user cxr -- "*) "${@:4}" ;;
    "cxr serve --new-key --keys "*) touch "${@: -1}" ;;
    "systemctl enable --now cxr") cd "$ROOT" && find . -type l -o -name '*.json' -o -name '*.service' >> "$STEPS" ;;
esac
"""
"""In place of programs that change the machine: each tells its words, and does what later steps build on."""


def test_what_the_unit_needs_is_there_before_it_starts(tmp_path):
    (steps,) = re.findall(r"## With systemd\n\n```bash\n(.*?)```", GUIDE, re.DOTALL)
    root, exported, told = tmp_path / "root", tmp_path / "export", tmp_path / "steps.txt"
    for folder in (root / "etc" / "systemd" / "system", root / "var" / "lib", root / "srv", exported):
        folder.mkdir(parents=True)
    (exported / "bundle.json").touch()
    for name in ("useradd", "python3", "install", "runuser", "systemctl"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    here = re.sub(r" (/(?:opt|srv|var|etc)/)", rf" {root}\1", steps)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "STEPS": str(told), "ROOT": str(root)}
    done = subprocess.run(
        ["bash", "-e"], input=here.replace("logs/runs/demo/<time>/export", str(exported)), cwd=ROOT, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert set(told.read_text().partition("systemctl enable --now cxr\n")[2].splitlines()) == {
        "./srv/cxr/bundles/current", "./srv/cxr/bundles/first/bundle.json", "./var/lib/cxr/serve_keys.json",
        "./etc/systemd/system/cxr.service",
    }  # fmt: skip
    assert f"\nrunuser --user cxr -- {root}/opt/cxr/.venv/bin/cxr serve --new-key" in told.read_text()


# The proxy


def test_the_proxy_is_neither_stricter_nor_more_patient_than_the_server():
    largest = seconds_of(r"client_max_body_size (\d+)m;", NGINX) * MIB
    assert LIMITS.max_body_bytes < largest <= LIMITS.max_body_bytes + 4 * MIB
    assert LIMITS.seconds < seconds_of(r"proxy_read_timeout (\d+)s;", NGINX) < LIMITS.seconds + SECONDS_TO_READ
    assert seconds_of(r"client_header_timeout (\d+)s;", NGINX) == LIMITS.header_seconds


def test_the_proxy_leaves_a_connection_before_the_server_ends_it():
    (upstream,) = re.findall(r"^upstream cxr \{\n(.*?)^\}", NGINX, re.DOTALL | re.MULTILINE)
    config = make_config(Settings(bundle=Path("b"), key_file=None))
    assert seconds_of(r"^ *keepalive_timeout (\d+)s;$", upstream) < config.timeout_keep_alive


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def proxy_here(folder, server="127.0.0.1:1"):
    """nginx's settings with the example in them, for ports, a certificate and files that are here."""
    write_certificate(folder / "cxr.pem", "localhost")
    port, replaced = free_port(), NGINX
    for old, new in (
        ("127.0.0.1:8000;\n    keepalive", f"{server};\n    keepalive"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("/etc/ssl/certs/cxr.example.org.pem", f"{folder}/cxr.pem"),
        ("/etc/ssl/private/cxr.example.org.key", f"{folder}/cxr.pem"),
        ("/var/log/nginx/", f"{folder}/"),
    ):
        assert old in replaced
        replaced = replaced.replace(old, new)
    folders = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
        f"http {{ client_body_temp_path {folder}/body; {folders}\n{replaced} }}\n"
    )
    return [program("nginx"), "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"], port


def test_nginx_takes_its_example(tmp_path):
    command, _ = proxy_here(tmp_path)
    done = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr


@contextmanager
def proxied(folder, server):
    """A client of the server behind nginx; knows no key."""
    command, port = proxy_here(folder, server.address.removeprefix("http://"))
    process = subprocess.Popen([str(word) for word in command])
    try:
        trusted = ssl.create_default_context(cafile=folder / "cxr.pem")
        with httpx2.Client(base_url=f"https://localhost:{port}", verify=trusted, timeout=SECONDS) as client:
            until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            yield client
    finally:
        process.terminate()
        process.wait(SECONDS)


@pytest.mark.slow
def test_behind_the_proxy(small, png, tmp_path):
    with proxied(tmp_path, small) as client:
        files = [("files", ("PATIENT^NAME.dcm", png))]
        answer = client.post("/v1/predict?who=PATIENT", files=files, headers=small.headers)
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        written = [json.loads(line) for line in until((tmp_path / "cxr.log").read_text).splitlines()]
        assert [line["request_id"] for line in written] == [answer.headers["x-request-id"]]
        assert client.post("/v1/predict", files=files).status_code == 401
        assert client.post("/v1/predict", content=bytes(66 * MIB), headers=small.headers).status_code == 413
        assert client.get("/metrics", headers=small.headers).status_code == 404
        assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.parent != tmp_path]
        assert "PATIENT" not in "".join(file.read_text() for file in tmp_path.glob("*.log"))


@pytest.mark.slow
def test_a_browser_signs_in_behind_the_proxy_by_https(small, tmp_path):
    with proxied(tmp_path, small) as client:
        form = {"key": small.headers["X-API-Key"]}
        own = {"Origin": str(client.base_url).rstrip("/")}
        answer = client.post("/sign-in", data=form, headers=own)
        assert answer.status_code == 303
        assert re.match(r"__Host-cxr_session=.*; Secure", answer.headers["set-cookie"])
        assert client.post("/sign-in", data=form, headers={"Origin": "https://other.org"}).status_code == 403


@pytest.mark.slow
def test_whoever_tries_keys_cannot_hide_behind_a_header(small, tmp_path):
    with proxied(tmp_path, small) as client:
        statuses = [
            client.get("/v1/model", headers={"X-API-Key": "wrong", "X-Forwarded-For": f"203.0.113.{turn}"}).status_code
            for turn in range(40)
        ]
    assert statuses[0] == 401
    assert 429 in statuses


# The guide


def test_files_that_the_guide_names_exist():
    links = {target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", GUIDE) if "://" not in target}
    named = set(re.findall(r"`((?:src|tests|deploy)/[\w/.-]+\w)`", GUIDE))
    assert links >= {"serving.md", "bundle.md"}
    assert len(named) > 10
    assert all((ROOT / "docs" / name).exists() for name in links)
    assert all((ROOT / name).exists() for name in named)


def test_measures_that_the_guide_names_exist():
    from cxr.serving.measures import Measures

    measured = Measures().to_text().decode()
    (rules,) = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
    assert all(rule["expr"] and rule["for"] for rule in yaml.safe_load(rules)["groups"][0]["rules"])
    named = set(re.findall(r"\b(cxr_\w+?)(?:_total|_bucket)?\b", rules))
    assert len(named) >= 4
    assert all(f"# TYPE {name}" in measured for name in named)


def test_the_guide_makes_and_rotates_keys(tmp_path, capsys, monkeypatch):
    from cxr.cli import main
    from cxr.serving.keys import Key, read_keys

    monkeypatch.delenv("CXR_API_KEYS", raising=False)
    start = "runuser --user cxr -- /opt/cxr/.venv/bin/cxr "
    (words,) = set(re.findall(rf"^{start}(serve --new-key --keys) /var/lib/cxr/serve_keys\.json$", GUIDE, re.MULTILINE))
    file = tmp_path / "serve_keys.json"
    made = []
    for _ in range(3):
        assert main([*words.split(), str(file)]) == 0
        made.append(Key.of(capsys.readouterr().out.split()[-1]))
    assert read_keys(file).keys == (made[2], made[1])


# Another bundle


def point_to(link, folder):
    """What the guide does with ln and mv."""
    part = link.with_name("next")
    part.symlink_to(folder)
    part.replace(link)


def version_of(server):
    """As a new connection is told."""
    with httpx2.Client(base_url=server.address, headers=server.headers, timeout=SECONDS) as client:
        return client.get("/v1/model").raise_for_status().json()["version"]


@pytest.mark.slow
def test_a_new_bundle_is_loaded_without_a_pause_and_a_damaged_one_is_not(exported, tmp_path):
    from cxr.inference.onnx_bundle import read_with_graphs, write_exported

    second = tmp_path / "second"
    write_exported(read_with_graphs(exported), second, {"number": 2})
    current = tmp_path / "current"
    point_to(current, exported)
    with running(tmp_path, "--bundle", current, "--decoders", 1) as server:
        before = version_of(server)
        point_to(current, second)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: version_of(server) != before)
        until(lambda: len(server.workers()) == 1)
        after = version_of(server)
        damaged = tmp_path / "damaged"
        shutil.copytree(second, damaged)
        (damaged / "model.onnx").write_bytes(b"")
        point_to(current, damaged)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: any("expected" in line and "SHA-256" in line for line in server.lines))
        assert version_of(server) == after
