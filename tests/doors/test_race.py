"""race() and sweep(): fresh processes, an interval, a verdict."""

import onnx_workbench as ow


def test_race_compares_with_an_interval_and_survives_a_file(model, onnx, images, tmp_path):
    race = ow.race({"PyTorch": model, "ONNX Runtime": onnx}, images, seconds=3)
    ratio = race.ratio("ONNX Runtime")
    assert ratio.low <= ratio.value <= ratio.high
    race.save(tmp_path / "race.json")
    assert type(race).load(tmp_path / "race.json").ratio("ONNX Runtime") == ratio
    assert race.plot().get_xlabel()


def test_quick_race_stays_in_this_process(model, onnx, images):
    race = ow.race({"PyTorch": model, "ONNX Runtime": onnx}, images, quick=True, seconds=0.2)
    assert race.ratio("ONNX Runtime")
    assert not race.conditions.workers


def test_sweep_races_at_each_size(model, onnx, images):
    pair = {"PyTorch": model, "ONNX Runtime": onnx}
    sweep = ow.sweep(pair, lambda batch: images[:batch], batch=(1, 2), quick=True, seconds=0.2)
    assert list(sweep.races) == [1, 2]
