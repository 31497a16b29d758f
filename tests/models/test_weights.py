import os
import pickle

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cxr.errors import WeightsError
from cxr.models.weights import load_into, read_converted, read_state, subtree
from cxr.models.xrv import PICKLED_CLASSES, _import_torchxrayvision

LINEAR = "torch.nn.modules.linear.Linear"
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


class Hostile:
    """Runs a command when it is unpickled freely."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


class Call:
    """Calls a class when it is unpickled."""

    def __init__(self, called: type, *arguments: object) -> None:
        self.reduced = called, arguments

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return self.reduced


def assert_same(state, expected) -> None:
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_reads_safetensors_and_both_layouts_of_a_state_dict(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "b.pt")
    torch.save({"epoch": 3, "state_dict": STATE}, tmp_path / "c.pth")
    torch.save(STATE, tmp_path / "d.pt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "b.pt", "c.pth", "d.pt"):
        assert_same(read_state(tmp_path / name), STATE)


@pytest.mark.parametrize("form", ["xrv_file", "old_xrv_file"])
def test_reads_a_whole_module_of_the_allowed_classes(form, request, xrv_module):
    state = read_state(request.getfixturevalue(form), PICKLED_CLASSES)
    assert_same(state, xrv_module.state_dict())


@pytest.mark.parametrize("form", ["xrv_file", "old_xrv_file"])
def test_refuses_a_whole_module_of_other_classes(form, request):
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_state(request.getfixturevalue(form), [LINEAR])


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_file_runs_nothing(tmp_path, zipped):
    proof = tmp_path / "proof"
    torch.save(Hostile(f"touch {proof}"), tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_state(tmp_path / "bad.pt", [LINEAR])
    assert not proof.exists()
    pickle.loads(pickle.dumps(Hostile(f"touch {proof}")))
    assert proof.exists()  # the file above was loaded


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("arguments", [(), ("densenet121-res224-all",)], ids=["no argument", "a set's name"])
def test_a_file_cannot_call_the_classes_it_may_name(tmp_path, monkeypatch, zipped, arguments):
    """With a name of weights, torchxrayvision's own class would unpickle another file freely."""
    calls: list[tuple[object, ...]] = []
    densenet = _import_torchxrayvision().models.DenseNet
    torch.save(Call(densenet, *arguments), tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    monkeypatch.setattr(densenet, "__init__", lambda *called: calls.append(called[1:]))
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_state(tmp_path / "bad.pt", PICKLED_CLASSES)
    assert calls == []
    torch.load(tmp_path / "bad.pt", weights_only=False)
    assert calls == [arguments]  # the file above does call it


@settings(max_examples=40, deadline=None)
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".pt", ".safetensors"]))
def test_any_bytes_are_a_clear_error(tmp_path_factory, content, suffix):
    path = tmp_path_factory.mktemp("bytes") / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_state(path, [LINEAR])


@pytest.mark.parametrize("form", ["xrv_file", "old_xrv_file"])
def test_truncated_files_of_the_published_form_are_a_clear_error(form, request, tmp_path):
    content = request.getfixturevalue(form).read_bytes()
    path = tmp_path / "cut.pt"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="cannot be read safely"):
        read_state(path, PICKLED_CLASSES)


def test_an_absent_file_and_strange_content_are_named(tmp_path):
    with pytest.raises(WeightsError, match=r"expected a weights file at .*none\.pt, found none"):
        read_state(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match=r"none\.pt"):
        read_converted(tmp_path / "none.pt")
    torch.save({"epoch": 3, "weight": torch.ones(1)}, tmp_path / "mixed.pt")
    with pytest.raises(WeightsError, match="not tensors: epoch"):
        read_state(tmp_path / "mixed.pt")


def test_a_pickled_file_is_unpickled_once(tmp_path, monkeypatch):
    path = tmp_path / "w.pt"
    torch.save(STATE, path)
    assert_same(read_converted(path), STATE)
    copy = tmp_path / "w.pt.safetensors"
    with safetensors.safe_open(copy, framework="pt") as stream:
        assert len(stream.metadata()["source_sha256"]) == 64

    def refuse(*_, **__):
        raise AssertionError("unpickled again")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", refuse)
        assert_same(read_converted(path), STATE)
    changed = {"weight": torch.zeros(1)}
    torch.save(changed, path)
    assert_same(read_converted(path), changed)
    path.unlink()
    assert_same(read_converted(path), changed)
    assert_same(read_converted(copy), changed)


@pytest.mark.parametrize("damage", ["damaged", "of another origin"])
def test_a_copy_that_does_not_match_is_made_anew(tmp_path, damage):
    path, copy = tmp_path / "w.pt", tmp_path / "w.pt.safetensors"
    torch.save(STATE, path)
    if damage == "damaged":
        copy.write_bytes(b"half a file")
    else:
        safetensors.torch.save_file({"other": torch.ones(1)}, copy)
    assert_same(read_converted(path), STATE)
    assert_same(read_state(copy), STATE)


def test_a_copy_that_cannot_be_written_is_only_a_warning(tmp_path, monkeypatch, caplog):
    path = tmp_path / "w.pt"
    torch.save(STATE, path)

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert_same(read_converted(path), STATE)
    assert "No space left on device" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["w.pt"]


def test_load_into_fits_and_tells_what_does_not():
    net = nn.Linear(3, 2)
    load_into(net, STATE, "the file")
    assert torch.equal(net.weight, STATE["weight"])
    bad = {"weight": torch.ones(4, 3), "extra": torch.ones(1)}
    expected = r"the file .*missing: bias; unexpected: extra; of another shape: weight \(4, 3\) instead of \(2, 3\)"
    with pytest.raises(WeightsError, match=expected):
        load_into(net, bad, "the file")
    many = {f"extra{i}": torch.ones(1) for i in range(7)} | STATE
    with pytest.raises(WeightsError, match="extra4 and 2 more"):
        load_into(net, many, "the file")


def test_counters_of_batch_norm_may_be_absent():
    net = nn.BatchNorm2d(2)
    state = {name: tensor + 1 for name, tensor in net.state_dict().items() if name != "num_batches_tracked"}
    load_into(net, state, "an older file")
    assert torch.equal(net.running_mean, torch.ones(2))


def test_subtree_takes_one_branch_without_its_name():
    assert list(subtree({"features.a": STATE["bias"], "classifier.b": STATE["bias"]}, "features.")) == ["a"]
