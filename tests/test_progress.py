import rich.console

from cxr.progress import bar_console, show_progress


def test_a_bar_keeps_out_of_the_output(capsys):
    assert list(show_progress(["a", "b"], "working")) == ["a", "b"]
    assert capsys.readouterr().out == ""


def test_a_notebook_is_no_terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert bar_console().is_terminal
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    assert not bar_console().is_jupyter
    assert not bar_console().is_terminal
