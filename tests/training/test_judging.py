import pytest

from cxr.training.callbacks.judged import Judged, judging_callbacks, raise_if_stopped
from cxr.training.fit import fit
from cxr.training.judging import StoppedByJudgeError, current_judge, judged_by


def test_a_judge_is_asked_after_each_validation_and_stops_the_run(make_run):
    asked = []

    def judge(epoch, metrics):
        asked.append((epoch, metrics["val/auroc"]))
        return epoch == 1

    task, data, trainer = make_run("run", epochs=5, callbacks=[Judged(judge)])
    trainer.fit(task, datamodule=data, weights_only=True)
    assert [epoch for epoch, _ in asked] == [0, 1]
    assert all(0 <= value <= 1 for _, value in asked)
    with pytest.raises(StoppedByJudgeError, match="stopped after 2 epochs"):
        raise_if_stopped(trainer)
    trainer.validate(task, datamodule=data, verbose=False)
    assert len(asked) == 2, "only what happens while training is judged"


def test_a_run_that_is_not_stopped_ends_as_ever(make_run):
    task, data, trainer = make_run("run", epochs=2, callbacks=[Judged(lambda epoch, metrics: False)])
    trainer.fit(task, datamodule=data, weights_only=True)
    raise_if_stopped(trainer)
    assert trainer.current_epoch == 2


def test_a_judge_looks_at_what_is_assembled_inside_its_block():
    assert judging_callbacks() == []
    with judged_by(lambda epoch, metrics: True):
        (callback,) = judging_callbacks()
        assert callback.judge is current_judge()
    assert current_judge() is None


@pytest.mark.slow
def test_a_stopped_run_keeps_its_checkpoints_and_is_not_evaluated(compose_run, tmp_path):
    with judged_by(lambda epoch, metrics: True), pytest.raises(StoppedByJudgeError, match="stopped after 1 epochs"):
        fit(compose_run(tmp_path / "run"))
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists()
    assert not (tmp_path / "run" / "metrics.json").exists()
