"""Photos with masks: what the built-in handlers share, from a source picture to examples."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from .augmentation import Augmentation, Draws
from .config import PhotoConfig
from .errors import BadSampleError, HandlerError
from .features import Feature, ImageFeature, TensorFeature, TextFeature, TextListFeature
from .images import has_two_levels
from .labels.clicks import STRATEGIES, distance_map, simulate_clicks
from .labels.shapes import Matte, Polygons, Raster, box_through
from .labels.trimap import trimap
from .photo import Photo
from .plan import Sample
from .rng import SampleRandom
from .sample_handler import SampleHandler
from .scene import Scene
from .selection.near_duplicates import SIDE, perceptual_hash
from .statistics import count_example
from .transforms.geometry import Geometry

Array = npt.NDArray[np.uint8]

#: Opacity within this many levels of none or all is taken for that in a trimap.
_NEARLY = 5


class SegmentationHandler(SampleHandler):
    """A handler of photos with masks; subclasses list samples and `load` them as scenes.

    Examples hold ``image`` (H, W, 3) uint8 RGB and ``mask`` (H, W, 1) uint8 as PNG, 255 on the subject and 0
    elsewhere (or a category's number), and the fields named by ``input_attributes``:

    - ``alpha`` (H, W, 1) uint8, opacity; ``trimap`` (H, W, 1) uint8 of 0, 128 and 255;
    - ``clicks`` as two fields ``positive_clicks`` and ``negative_clicks``, (H, W, 1) uint8: the distance to the
      nearest click in pixels, at most 255;
    - ``boxes`` (N, 4) float32, [ymin, xmin, ymax, xmax] as shares of height and width, one for each instance, and
      ``category`` (N,), their names;
    - ``cluster`` int64; ``source_id``, the sample's key.
    """

    Config: ClassVar[type[PhotoConfig]] = PhotoConfig
    options: PhotoConfig

    @abstractmethod
    def load(self, sample: Sample, variation: int, random: np.random.Generator) -> Scene:
        """The picture and what is known of it, before any augmentation.

        ``variation`` and ``random`` matter only where `load_is_random`. Raises `BadSampleError` for a sample that
        cannot be used.
        """

    #: Whether `load` differs by variation; if not, all variations share one load.
    load_is_random: ClassVar[bool] = False

    def features(self) -> Mapping[str, Feature]:
        """The fields ``input_attributes`` asks for, and the mask."""
        options = self.options
        height, width = options.output_size or (None, None)
        plane = ImageFeature((height, width, 1), "png")
        photo: Feature = ImageFeature((height, width, 3), "jpeg", options.jpeg_quality)
        if options.image_encoding == "png":
            photo = ImageFeature((height, width, 3), "png")
        elif options.image_encoding == "raw":
            photo = TensorFeature((height, width, 3), "uint8")
        kinds: dict[str, dict[str, Feature]] = {
            "image": {"image": photo},
            "alpha": {"alpha": plane},
            "trimap": {"trimap": plane},
            "clicks": {"positive_clicks": plane, "negative_clicks": plane},
            "boxes": {"boxes": TensorFeature((None, 4), "float32")},
            "category": {"category": TextListFeature()},
            "cluster": {"cluster": TensorFeature()},
            "source_id": {"source_id": TextFeature()},
            "mask": {},
        }
        fields: dict[str, Feature] = {"mask": plane}
        for attribute in options.input_attributes:
            fields |= kinds[attribute]
        return fields

    def examples(self, sample: Sample, rng: SampleRandom) -> Iterator[dict[str, Any]]:
        """One augmented example for each variation."""
        scene: Scene | None = None
        for number in range(self.variations_of(sample)):
            random = rng.variation(number)
            if scene is None or self.load_is_random:
                scene = self.load(sample, number, random)
                self.count(scene.findings)
                for item in scene.instances:
                    if item.category:
                        self.count({f"category:{item.category}": 1})
            yield self.make_example(sample, scene, Draws(random))

    def make_example(self, sample: Sample, scene: Scene, draws: Draws) -> dict[str, Any]:
        """Augment a scene: one geometry for the photo and all labels, one change of light."""
        options = self.options
        augmentation = Augmentation(options, draws)
        centre = None
        if augmentation.needs_subject and (box := scene.mask.box()):
            centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        geometry = augmentation.geometry(scene.photo.size, centre)
        # What is beside a photo is the photo mirrored; where room was to be left, it is black.
        beside = scene.surround or ((0, 0, 0) if options.resize_mode == "fit" and options.image_size else None)
        border = cv2.BORDER_REFLECT if beside is None else cv2.BORDER_CONSTANT
        mask = scene.mask.draw(geometry, border)
        example: dict[str, Any] = {"mask": mask}
        if "image" in options.input_attributes:
            example["image"] = augmentation.light(scene.photo.warp(geometry, border=border, fill=beside or (0, 0, 0)))
        _check_labels(scene, mask)
        self._add_labels(example, sample, scene, geometry, border, draws)
        return example

    def _add_labels(
        self, example: dict[str, Any], sample: Sample, scene: Scene, geometry: Geometry, border: int, draws: Draws
    ) -> None:
        wanted, mask = self.options.input_attributes, example["mask"]
        if "source_id" in wanted:
            example["source_id"] = sample.key
        if "cluster" in wanted:
            example["cluster"] = scene.cluster
        if "alpha" in wanted or ("trimap" in wanted and scene.alpha is not None):
            if scene.alpha is None:
                raise BadSampleError("nothing is known of its opacity")
            alpha = scene.alpha.draw(geometry, border)
        elif "trimap" in wanted:
            # The grey levels of a soft mask are opacity, too.
            alpha = mask if isinstance(scene.mask, Matte) else _subject(scene, mask)
        if "alpha" in wanted:
            example["alpha"] = alpha
        if "trimap" in wanted:
            example["trimap"] = trimap(alpha, *self.options.trimap_widths, tolerance=_NEARLY)
        if "clicks" in wanted:
            self._add_clicks(example, scene, geometry, border, draws)
        if "boxes" in wanted or "category" in wanted:
            self._add_boxes(example, scene, geometry)

    def _add_clicks(self, example: dict[str, Any], scene: Scene, geometry: Geometry, border: int, draws: Draws) -> None:
        subject = _subject(scene, example["mask"])
        chosen = self.options.click_strategy
        strategy = STRATEGIES[int(draws.number("clicks") * len(STRATEGIES))] if chosen == "random" else chosen
        others = scene.others.draw(geometry, border) if scene.others and strategy == "objects" else None
        clicks = simulate_clicks(subject, others, strategy, draws.generator("clicks"))
        example["positive_clicks"] = distance_map(clicks.positive, geometry.size)
        example["negative_clicks"] = distance_map(clicks.negative, geometry.size)

    def _add_boxes(self, example: dict[str, Any], scene: Scene, geometry: Geometry) -> None:
        height, width = geometry.size
        boxes, categories = [], []
        for instance in scene.instances:
            if box := box_through(instance.shape, geometry):
                x0, y0, x1, y1 = box
                boxes.append([y0 / height, x0 / width, y1 / height, x1 / width])
                categories.append(instance.category)
        if "boxes" in self.options.input_attributes:
            example["boxes"] = np.array(boxes, np.float32).reshape(-1, 4)
        if "category" in self.options.input_attributes:
            example["category"] = categories

    def fingerprint(self, sample: Sample) -> int | None:
        """The perceptual hash of the photo named by ``sample.data["photo"]``, below the raw folder."""
        path = self.raw_data_path() / sample.data["photo"]
        return perceptual_hash(Photo(self.read_raw(path), path.name).thumbnail(SIDE))

    def counters(self, example: Mapping[str, Any]) -> dict[str, int]:
        """What the statistics sum up."""
        return count_example(example, self.options.subject_level)


def _subject(scene: Scene, mask: Array) -> Array:
    """Where the subject is, 0 and 255, of a drawn mask of any kind."""
    threshold = 127 if isinstance(scene.mask, Matte) else 0
    return np.asarray(cv2.threshold(mask, threshold, 255, cv2.THRESH_BINARY)[1], np.uint8)


def _check_labels(scene: Scene, mask: Array) -> None:
    """Raise `HandlerError` for levels that the kind of mask does not have: the handler's fault, not the raw data's."""
    if isinstance(scene.mask, Raster | Polygons) and not has_two_levels(mask):
        raise HandlerError(f"a mask with levels {np.unique(mask).tolist()[:10]}; they are 0 and 255")
