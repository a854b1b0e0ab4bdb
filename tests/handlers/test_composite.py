"""Composites: the mask is where the subject is, everything else is background."""

import cv2
import numpy as np
import pytest

from dataset_handlers.coco import load_coco
from dataset_handlers.composite import CompositeHandler, blend, cover, place
from dataset_handlers.duts import load_duts
from dataset_handlers.errors import BadSampleError, RawDataError
from dataset_handlers.geometry import warp
from dataset_handlers.images import decode_photo
from dataset_handlers.plan import Sample
from dataset_handlers.rng import SampleRandom
from tests.handlers.support import examples_of, make

BASE = {"subjects": "duts", "image_size": [96, 128], "feather": 0, "input_attributes": ["image", "source_id"]}


@pytest.fixture
def handler(raw_root):
    return lambda **config: CompositeHandler({**BASE, **config}, str(raw_root))


def composites(made, count=6):
    samples = [item for item in made.samples() if isinstance(item, Sample)][:count]
    for sample in samples:
        for variation in range(made.options.variations_per_sample):
            yield sample, variation, made.load(sample, variation, SampleRandom(0, sample.key).variation(variation))


@pytest.mark.parametrize("subjects", ["duts", "coco"])
def test_hard_edges_inside_is_subject_outside_is_background(handler, raw_root, subjects):
    made = handler(subjects=subjects, categories=["figure"], variations_per_sample=2)
    for sample, variation, (photo, mask) in composites(made):
        name = sample.data["backgrounds"][variation]
        background = decode_photo((raw_root / "backgrounds" / name).read_bytes(), name)
        canvas = warp(background, cover(background.shape[:2], (96, 128)))
        np.testing.assert_array_equal(photo[mask == 0], canvas[mask == 0])
        # The subject again, by itself: placed as the same random numbers say.
        load = load_coco if subjects == "coco" else load_duts
        source, source_mask = load(made, made.raw_data_path(), sample.data)
        random = SampleRandom(0, sample.key).variation(variation)
        placed = place(source_mask, (96, 128), (0.5, 0.9), random)
        subject = warp(source, placed, border=cv2.BORDER_REPLICATE)
        np.testing.assert_array_equal(photo[mask == 255], subject[mask == 255])
        assert set(np.unique(mask)) == {0, 255}


def test_the_subject_lies_wholly_on_the_canvas_at_the_size_asked_for(handler):
    made = handler(subject_scale=[0.5, 0.5], variations_per_sample=3)
    for _, _, (_, mask) in composites(made):
        _, _, width, height = cv2.boundingRect(mask)
        assert max(width / 128, height / 96) == pytest.approx(0.5, abs=2 / 96)


def test_a_full_scale_fills_the_canvas(handler):
    made = handler(subject_scale=[1, 1])
    for _, _, (_, mask) in composites(made):
        _, _, width, height = cv2.boundingRect(mask)
        assert max(width / 128, height / 96) >= 1 - 2 / 96


def test_backgrounds_vary_by_variation_and_do_not_follow_each_other(handler):
    made = handler(variations_per_sample=12)
    chosen = [tuple(sample.data["backgrounds"]) for sample in made.samples()]
    assert all(len(set(names)) > 3 for names in chosen)
    assert len(set(chosen)) == len(chosen)
    fewer = [tuple(sample.data["backgrounds"]) for sample in handler(variations_per_sample=2).samples()]
    assert [names[:2] for names in chosen] == fewer  # more variations leave the first ones as they were


def test_the_same_again(handler, raw_root, tmp_path):
    config = {
        **BASE,
        "limit": 6,
        "variations_per_sample": 2,
        "feather": 1.5,
        "exposure": [-1, 1],
        "rotation": [-20, 20],
    }
    digests = []
    for name in ("one", "two"):
        _, sealed = make(CompositeHandler, config, raw_root, tmp_path / name)
        digests.append([shard.sha256 for shard in sealed])
    assert digests[0] == digests[1]
    found = examples_of(tmp_path / "one", sealed)
    assert len(found) == 12
    assert len({example["mask"].tobytes() for example in found}) == 12


def test_feathering_stays_inside_the_mask():
    mask = np.zeros((60, 60), np.uint8)
    mask[15:45, 15:45] = 255
    background, subject = np.full((60, 60, 3), 50, np.uint8), np.full((60, 60, 3), 250, np.uint8)
    for feather in (0.5, 1.0, 3.0):
        mixed = blend(background, subject, mask, feather)
        np.testing.assert_array_equal(mixed[mask == 0], 50)
        np.testing.assert_array_equal(mixed[30, 30], 250)
        if feather >= 1:
            assert mixed[15, 30, 0] < 150  # little of the subject on its very edge: that is its old background
        assert (np.diff(mixed[30, :31, 0].astype(int)) >= 0).all()
    np.testing.assert_array_equal(blend(background, subject, mask, 0)[mask == 255], 250)


@pytest.mark.parametrize("size", [(100, 400), (400, 100), (96, 128), (33, 44), (1, 1)])
def test_a_background_covers_the_canvas_in_its_proportions(size):
    geometry = cover(size, (96, 128))
    corners = geometry.matrix @ np.array([[0, size[1]], [0, size[0]], [1, 1]])
    assert (corners[:2, 0] <= 1e-9).all()
    assert corners[0, 1] >= 128 - 1e-9
    assert corners[1, 1] >= 96 - 1e-9
    assert geometry.matrix[0, 0] == geometry.matrix[1, 1]


def test_an_empty_mask_has_no_subject():
    with pytest.raises(BadSampleError, match="no subject"):
        place(np.zeros((9, 9), np.uint8), (96, 128), (0.5, 0.9), np.random.default_rng(0))


def test_backgrounds_are_needed(raw_root, handler):
    for folder in ("nowhere", "duts"):
        with pytest.raises(RawDataError, match=f"no photo in the raw folder '{folder}'"):
            list(handler(backgrounds_folder=folder).samples())


def test_a_subject_too_thin_for_its_feather_is_no_sample():
    """Else it would be in the mask and hardly in the picture."""
    picture, thin = np.full((64, 64, 3), 200, np.uint8), np.zeros((64, 64), np.uint8)
    thin[:, 30:34] = 255
    blend(picture, picture, thin, 0.5)
    with pytest.raises(BadSampleError, match="too thin"):
        blend(picture, picture, thin, 10)
