import json
import sys
from collections import namedtuple
from types import SimpleNamespace

import pytest
import torch

from cxr import doctor
from cxr.cli import main
from cxr.data.download.catalogue import DATASETS
from cxr.doctor import Check, checks_to_json, examine, is_healthy, print_checks

Usage = namedtuple("Usage", "total used free")
HIDDEN = ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME", "NETRC")
HIDDEN += ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL")


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """A home folder with nothing in it, and torch replaced by what is looked at."""
    for name in HIDDEN:
        monkeypatch.delenv(name, raising=False)
    for name, folder in {"HOME": "home", "CXR_DATA_DIR": "data", "CXR_CACHE_DIR": "cache"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    install_torch(monkeypatch)
    return tmp_path


def install_torch(monkeypatch, gpus=(), mps=False):
    cuda = SimpleNamespace(
        is_available=lambda: bool(gpus), device_count=lambda: len(gpus), get_device_properties=lambda index: gpus[index]
    )
    backends = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
    stand_in = SimpleNamespace(__version__="2.11.0", cuda=cuda, backends=backends, get_num_threads=lambda: 2)
    monkeypatch.setitem(sys.modules, "torch", stand_in)


def find(name: str, group: str | None = None) -> Check:
    found = [check for check in examine() if check.name == name and group in (None, check.group)]
    assert len(found) == 1, found
    return found[0]


def test_bare_machine_is_healthy_and_every_gap_has_a_remedy():
    checks = examine()
    assert is_healthy(checks)
    gaps = {check.name for check in checks if check.status != "ok"}
    assert gaps >= {"kaggle", "wandb", "torchxrayvision", "phantom", *DATASETS}
    assert all(check.remedy for check in checks if check.status != "ok" and check.name != "GPU")


def test_real_torch_is_examined(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert find("torch", "compute").found.startswith(torch.__version__)


def test_command_prints_a_table_that_fits_when_piped(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    shown = "\n".join(lines)
    assert "everything needed for training works; 0 problems" in shown
    assert "cxr data get --dataset chest_xray" in shown
    assert "JPEG 2000" in shown


def test_command_prints_json(capsys):
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    assert {check["name"]: check["status"] for check in told["checks"]}["siim"] == "missing"


def test_broken_core_gives_exit_code_one(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "cannot be imported" in shown
    assert "training cannot work yet; 1 problem" in shown


def test_health_is_the_core():
    broken_extra = Check("a", "b", "problem", "c")
    assert is_healthy([broken_extra])
    assert not is_healthy([broken_extra, Check("a", "b", "problem", "c", core=True)])
    assert json.loads(checks_to_json([broken_extra]))["healthy"] is True


def test_several_problems_are_counted(capsys):
    print_checks([Check("a", "b", "problem", "[c]")] * 2)
    shown = capsys.readouterr().out
    assert "2 problems" in shown
    assert "[c]" in shown


def test_old_python(monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    check = find("python")
    assert (check.status, check.found, check.core) == ("problem", "3.9.1", True)
    assert "install Python" in check.remedy


def test_package_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-distribution")
    check = find("no-such-distribution")
    assert (check.status, check.core) == ("problem", True)
    assert "pip install -e ." in check.remedy


def test_missing_and_outdated_packages(monkeypatch):
    wanted = [
        "numpy>=999",
        "no-such-package>=1",
        "rich>=1",
        'neither; extra == "kaggle"',
        'kaggle>=999; extra == "wandb"',
    ]
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    checks = {(check.group, check.name): check for check in examine()}
    assert checks["packages", "core (1 of 3)"].found.startswith("rich ")
    assert checks["packages", "numpy"].found.endswith("expected >=999")
    assert checks["packages", "no-such-package"].found == "no-such-package is not installed"
    assert checks["packages", "numpy"].remedy == "pip install -U cxr-lab"
    assert checks["packages", "numpy"].core
    assert checks["optional packages", "kaggle"].remedy == "pip install 'cxr-lab[kaggle]'"
    assert checks["optional packages", "wandb"].status == "missing"


def test_gpu(monkeypatch):
    install_torch(monkeypatch, [SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30)])
    assert find("GPU 0").found == "NVIDIA H200, 141.0 GiB"


def test_apple_gpu(monkeypatch):
    install_torch(monkeypatch, mps=True)
    assert find("GPU").found == "Apple MPS"


def test_gpu_that_torch_cannot_use(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    check = find("GPU")
    assert check.status == "problem"
    assert "pytorch.org" in check.remedy
    assert not check.core


def test_missing_codec(monkeypatch):
    monkeypatch.setattr("cxr.imaging.dicom_codecs.available_decoders", lambda: {"RLE": True, "JPEG-LS": False})
    found = [check for check in examine() if check.name == "codecs"]
    assert [(check.status, check.found) for check in found] == [("ok", "RLE"), ("missing", "cannot decode JPEG-LS")]
    assert "python-gdcm" in found[1].remedy


def test_pydicom_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "cxr.imaging.dicom_codecs", None)
    assert not is_healthy(examine())
    assert find("codecs").status == "problem"


def test_credentials_are_found_and_never_shown(monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "s3cret-token")
    monkeypatch.setenv("WANDB_API_KEY", "s3cret-key")
    assert find("kaggle", "credentials").found == "from KAGGLE_API_TOKEN"
    assert find("wandb", "credentials").found == "from WANDB_API_KEY"
    assert "s3cret" not in checks_to_json(examine())


def test_wandb_key_in_netrc(bare_machine):
    path = bare_machine / "home" / ".netrc"
    path.parent.mkdir()
    path.write_text("machine api.wandb.ai login user password s3cret\n")
    assert find("wandb", "credentials").found == f"from {path}"
    path.write_text("machine elsewhere.org login user password s3cret\n")
    assert find("wandb", "credentials").status == "missing"


def test_broken_kaggle_file_is_a_problem(bare_machine):
    path = bare_machine / "home" / ".kaggle" / "kaggle.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    check = find("kaggle", "credentials")
    assert check.status == "problem"
    assert "is no Kaggle API key" in check.found


def test_weights(bare_machine):
    folder = bare_machine / "home" / ".torchxrayvision" / "models_data"
    folder.mkdir(parents=True)
    (folder / "densenet.pt").write_bytes(b"")
    (folder / "densenet.pt.lock").write_bytes(b"")
    assert find("torchxrayvision").found == f"1 files in {folder}"


def test_data(bare_machine):
    phantoms = bare_machine / "data" / "phantom"
    phantoms.mkdir(parents=True)
    (phantoms / "train_study_level.csv").write_text("")
    for pattern in DATASETS["covidx"].proof:
        path = bare_machine / "data" / "covidx" / pattern.replace("*", "image")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (bare_machine / "data" / "siim-covid19-detection").mkdir()
    (bare_machine / "data" / "siim-covid19-detection" / "train_study_level.csv").write_text("")

    assert find("phantom").status == "ok"
    assert find("covidx").status == "ok"
    half = find("siim")
    assert (half.status, half.remedy) == ("problem", "move it away, then cxr data get --dataset siim")
    assert half.found.endswith("lacks train/*/*/*.dcm")


def test_disk_and_cache(bare_machine, monkeypatch):
    (bare_machine / "cache").mkdir()
    (bare_machine / "cache" / "images").write_bytes(bytes(2**20))
    assert find("cache folder").found.startswith("1.0 MiB in")
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10, 9, 1))
    check = find("data folder")
    assert check.status == "problem"
    assert "CXR_DATA_DIR" in check.remedy
