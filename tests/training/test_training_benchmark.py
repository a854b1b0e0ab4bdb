"""The benchmark of training compares the same models, and says truly what was reached."""

import pytest

from benchmarks.training import report, waiting
from benchmarks.training.sides import _ratio, _require_same
from benchmarks.training.works import WORKS, batch_of
from training.models import check_model, model_names, model_options


def test_every_model_is_measured_at_a_size_and_with_options_that_it_takes():
    assert sorted({work.name for work in WORKS}) == model_names()
    for work in WORKS:
        assert set(work.options) <= set(model_options(work.name))
        check_model(work.name, (work.size, work.size, work.channels), 1, **work.options)


def test_all_sides_get_the_same_batch():
    work = WORKS[0].smaller(16)
    photos, masks = batch_of(work)
    assert (photos.shape, masks.shape) == ((work.batch, 16, 16, 3), (work.batch, 16, 16, 1))
    assert (photos == batch_of(work)[0]).all()
    assert 0 < masks.mean() < 1


@pytest.mark.parametrize(
    "other", [{"loss": 0.72, "weights": 10}, {"loss": 0.7, "weights": 11}], ids=["other masks", "other size"]
)
def test_what_is_not_the_same_model_is_not_compared(other):
    ours = {"loss": 0.7, "weights": 10}
    _require_same("unet", {"keras": ours, "torch": {"loss": 0.7004, "weights": 10}})
    with pytest.raises(SystemExit, match="unet is not the same on all sides"):
        _require_same("unet", {"keras": ours, "torch": other})


def side(**ratios):
    return {"seconds": 1.0, "cpu": 1.0, "peak_mb": 900.0, "imported_mb": 400.0, "first_seconds": 9.0, **ratios}


def line_of(**sides):
    row = {"model": "unet", "weights": 31_037_633, "batch": 4, "size": 256, "sides": sides}
    titles, _, line = report.table([row])
    assert titles.count("|") == line.count("|")
    return [cell.strip() for cell in line.split("|")[1:-1]]


@pytest.mark.parametrize(("ratio", "told"), [(1.1, "1.10"), (1.12, "1.12 **no**")])
@pytest.mark.parametrize("measured", ["ratio", "memory_ratio"])
def test_a_ratio_beyond_the_aim_is_marked(measured, ratio, told):
    ours = side(**{"ratio": 0.5, "memory_ratio": 0.5} | {measured: ratio})
    line = line_of(keras=ours, torch=side())
    assert line[1:3] == ["31.04 M", "4 × 256²"]
    assert (line[5], line[9]) == ((told, "0.50") if measured == "ratio" else ("0.50", told))
    assert line[10:] == ["", ""]


def test_memory_that_is_given_back_has_its_own_columns():
    ours, given = side(ratio=0.5, memory_ratio=1.2), side(ratio=1.3, memory_ratio=0.9)
    line = line_of(**{"keras": ours, "giving back": given, "torch": side()})
    assert line[9:] == ["1.20 **no**", "1.30 **no**", "0.90"]


def test_without_pytorch_there_is_no_ratio():
    line = line_of(**{"keras": side(), "giving back": side()})
    assert [line[column] for column in (4, 5, 8, 9, 10, 11)] == [""] * 6


def test_a_ratio_is_the_median_of_the_rounds():
    assert _ratio([[1.0, 9.0, 1.0], [4.0], [3.0]], [[2.0], [2.0], [1.0, 1.0]]) == 2.0


# Keras 3.15 asks TensorFlow's variables for arrays in a way that numpy 2.4 is to deprecate.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
def test_waiting_is_measured_on_a_dataset(make_dataset, ellipses):
    examples = ellipses(8, size=(16, 16))
    path = make_dataset({"train": examples[:6], "validation": examples[6:]}).path
    assert 0 <= waiting.at_rate(path, 200, batch=2, seconds=0.2) < 1
    assert 0 <= waiting.trained(path, "unet", batch=2) < 1


def test_waiting_for_less_than_the_aim_is_reached():
    lines = report.waiting({"slow": 0.0199, "fast": 0.02}, 0.02)
    assert [line.rsplit("|", 2)[1].strip() for line in lines[2:]] == ["yes", "no"]
