"""Event files as TensorFlow reads them, pictures, and what MLflow is told."""

import importlib
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from dataset_client.readers.tfrecord import read_records
from training.errors import StoppedError
from training.event_file import EventFile, file_suffix
from training.metrics import VOID
from training.options import FitOptions
from training.outputs import Outputs
from training.pictures import MISSED, class_colors, sheet, tiles
from training.trackers import MLflow, TensorBoard, closing_trackers, make_trackers


@pytest.fixture
def events(tmp_path):
    """Events as TensorFlow's own protobuf classes read them."""
    event_pb2 = pytest.importorskip("tensorflow.core.util.event_pb2", reason="needs TensorFlow's event protobufs")

    def read():
        (path,) = tmp_path.glob("events.out.tfevents.*")
        return [event_pb2.Event.FromString(record.data) for record in read_records(path)]

    return read


def test_event_files_are_what_tensorflow_reads(tmp_path, events):
    file = EventFile(Outputs(tmp_path).event_file(file_suffix()), first_step=0)
    file.scalars(1, {"loss/batch": 0.5, "lr": 1e-3})
    file.scalars(2**40, {"loss/batch": -0.25})
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.jpg")
    file.image(300, "predictions", (tmp_path / "a.jpg").read_bytes(), height=10, width=20)
    first, one, far, picture = events()  # before it is closed: nothing waits in a buffer
    file.close()
    assert first.file_version == "brain.Event:2"
    assert first.wall_time > 1.6e9
    assert (one.step, far.step, picture.step) == (1, 2**40, 300)
    values = {value.tag: value.simple_value for value in one.summary.value}
    assert values == {"loss/batch": 0.5, "lr": struct.unpack("<f", struct.pack("<f", 1e-3))[0]}
    assert far.summary.value[0].simple_value == -0.25
    image = picture.summary.value[0].image
    assert (image.height, image.width, image.colorspace) == (10, 20, 3)
    assert image.encoded_image_string == (tmp_path / "a.jpg").read_bytes()


def test_a_resumed_training_voids_what_went_on_beyond_its_state(tmp_path, events):
    board = TensorBoard(Outputs(tmp_path), first_step=7)
    board.close(None)
    _, start = events()
    assert (start.step, start.session_log.status) == (7, start.session_log.START)


class FakeMlflow:
    """MLflow as a module: notes its calls."""

    def __init__(self, active=None):
        self.calls, self.active = [], active

    def active_run(self):
        return self.active

    def __getattr__(self, name):
        return lambda *arguments, **named: self.calls.append((name, arguments, named))


ENDS = [(None, "FINISHED"), (ValueError("broken"), "FAILED"), (StoppedError("stopped", signal=15), "KILLED")]


@pytest.fixture
def fake_mlflow(monkeypatch):
    def install(active=None):
        fake = FakeMlflow(active)
        fake.__spec__ = importlib.machinery.ModuleSpec("mlflow", None)
        monkeypatch.setitem(sys.modules, "mlflow", fake)
        return fake

    return install


@pytest.mark.parametrize(("active", "own"), [(None, True), ("a run", False)])
@pytest.mark.parametrize(("error", "status"), ENDS)
def test_mlflow_is_told_of_all(fake_mlflow, tmp_path, active, own, error, status):
    fake = fake_mlflow(active)
    board, tracker = make_trackers(FitOptions(mlflow=True), Outputs(tmp_path), {"seed": 1}, first_step=0)
    board.close(None)
    assert isinstance(tracker, MLflow)
    tracker.scalars(3, {"loss/batch": 0.5})
    tracker.picture(3, tmp_path / "a.jpg", (1, 1))
    tracker.close(error)
    assert fake.calls == [
        *([("start_run", (), {})] if own else []),
        ("log_params", ({"seed": "1"},), {}),
        ("log_metrics", ({"loss/batch": 0.5},), {"step": 3}),
        ("log_artifact", (str(tmp_path / "a.jpg"),), {"artifact_path": "predictions"}),
        *([("end_run", (status,), {})] if own else []),
    ]


def test_a_run_that_mlflow_does_not_take_has_failed(fake_mlflow):
    fake = fake_mlflow()

    def refuse(_):
        raise OSError("the server is gone")

    fake.log_params = refuse
    with pytest.raises(OSError, match="the server is gone"):
        MLflow({"seed": 1})
    assert fake.calls == [("start_run", (), {}), ("end_run", ("FAILED",), {})]


class Closing:
    """A tracker that notes by what it is closed, and then does as it is told."""

    def __init__(self, failure=None):
        self.closed, self.failure = [], failure

    def close(self, error):
        self.closed.append(error)
        if self.failure:
            raise self.failure
        return True


def test_all_are_closed_and_the_trainings_own_error_comes_out():
    trackers = [Closing(), Closing(OSError("no disk")), Closing()]
    error = StoppedError("stopped", signal=15)
    with pytest.raises(StoppedError) as caught, closing_trackers(trackers):
        raise error
    assert caught.value is error
    assert error.__notes__ == ["a tracker could not be closed, either: OSError('no disk')"]
    assert [tracker.closed for tracker in trackers] == [[error]] * 3


def test_a_tracker_that_cannot_be_closed_is_told_of_when_all_are():
    trackers = [Closing(OSError("no disk")), Closing()]
    with pytest.raises(OSError, match="no disk"), closing_trackers(trackers):
        pass
    assert [tracker.closed for tracker in trackers] == [[None]] * 2


@pytest.mark.parametrize(("error", "status"), ENDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow uses what its own packages are to give up
def test_a_real_mlflow_takes_what_it_is_told(monkeypatch, tmp_path, error, status):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    tracker = MLflow({"seed": 1, "augmentation": {"flip": 0.5}})
    tracker.scalars(3, {"loss/batch": 0.5, "iou/validation": 0.75})
    run = mlflow.active_run().info.run_id
    tracker.close(error)
    told = mlflow.get_run(run)
    assert told.data.metrics == {"loss/batch": 0.5, "iou/validation": 0.75}
    assert told.data.params == {"seed": "1", "augmentation": "{'flip': 0.5}"}
    assert told.info.status == status


def test_a_sheet_has_a_row_of_four_tiles_for_each_photo():
    photos = np.full((2, 320, 160, 3), 90, np.uint8)
    truths = np.full((2, 320, 160), 255, np.uint8)
    drawn = sheet(photos, truths, np.zeros((2, 320, 160, 1), np.float32))
    assert drawn.size == (4 * 84 + 4, 2 * 164 + 4)
    pixels = np.asarray(drawn)
    assert pixels[80, 44].tolist() == [90, 90, 90]
    assert pixels[80, 84 + 44].tolist() == [255, 255, 255]
    assert pixels[80, 168 + 44].tolist() == [0, 0, 0]
    assert pixels[80, 252 + 44, 0] > pixels[80, 252 + 44, 1]  # missed


def test_classes_have_colours_of_their_own_and_wrong_pixels_stand_out():
    colors = class_colors(21)
    assert len({tuple(color) for color in colors[:21]}) == 21
    apart = np.abs(colors[:21, None].astype(int) - colors[None, :21]).sum(-1) + 999 * np.eye(21)
    assert apart.min() > 20
    truth = np.array([[0, 1, VOID]], np.uint8)
    probability = np.eye(2, dtype=np.float32)[[0, 0, 1]][None]
    _, true, predicted, wrong = tiles(np.zeros((1, 3, 3), np.uint8), truth, probability)
    assert true[0].tolist() == [colors[0].tolist(), colors[1].tolist(), [0, 0, 0]]
    assert predicted[0].tolist() == [colors[0].tolist(), colors[0].tolist(), colors[1].tolist()]
    assert wrong[0, 1].tolist() == list(MISSED)
    assert wrong[0, 2].tolist() != list(MISSED)
