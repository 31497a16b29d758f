import pytest

from cxr.training.fit import fit
from cxr.training.summary import show_update


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((16, 1, 1), "an update: 16 images (16 to a batch, accumulated over 1, on 1 device)\n"),
        ((8, 4, 2), "an update: 64 images (8 to a batch, accumulated over 4, on 2 devices)\n"),
    ],
)
def test_an_update_is_of_batch_times_accumulated_times_devices(numbers, told, capsys):
    show_update(*numbers)
    assert capsys.readouterr().out == told


def test_a_run_tells_of_how_many_images_an_update_is(compose_run, tmp_path, capsys):
    words = ("data.batch_size=7", "trainer.accumulate_grad_batches=3", "debug=fast")
    fit(compose_run(tmp_path / "run", *words))
    assert "an update: 21 images" in capsys.readouterr().out


def test_without_a_tracker_a_run_trains(compose_run, tmp_path):
    result = fit(compose_run(tmp_path / "run", "logger=none", "trainer.max_epochs=1"))
    assert (result.run_dir / "history.csv").exists()
    assert 0 <= result.best_score <= 1
