"""Builds and requests over a real database, with a maker that does as it is told, and no server around them."""

from dataset_server.builds import Builds
from dataset_server.cache import Cache
from dataset_server.catalog import Catalog
from dataset_server.environments import Environments
from dataset_server.hub import Hub
from dataset_server.installations import Installations
from dataset_server.metrics import Metrics
from dataset_server.settings import Settings
from dataset_server.store import BuildStore, Database, Store, Wanted
from tests.support import PLUGINS

ID = "tones_1_" + 32 * "a" + ".zip"
WANTED = Wanted(ID, "tones", "1", "{}", client="c")


class Maker:
    """Makes what ``make`` says, instead of a handler."""

    def __init__(self, make) -> None:
        self.make = make
        self.progress: dict = {}


class Scene:
    def __init__(self, tmp_path, **options) -> None:
        (tmp_path / "raw").mkdir()
        given = {"disk_reserve": 0, "retry_seconds": 0.01, "handlers": {"tones": {"source": str(PLUGINS / "tones")}}}
        self.settings = Settings(raw_root=tmp_path / "raw", data_dir=tmp_path / "data", **{**given, **options})
        (self.settings.data_dir / "archives").mkdir(parents=True)
        self.database = Database(self.settings.database)
        self.datasets, self.store = Store(self.database), BuildStore(self.database)
        self.metrics, self.hub = Metrics.create(), Hub()
        self.cache = Cache(self.settings, self.database, self.metrics)

    def builds(self, make) -> Builds:
        """The builds of a server run; ``make`` is what its maker does."""
        environments = Environments(self.settings)
        installations = Installations(environments)
        parts = (self.datasets, self.store, self.hub, environments, installations, self.cache, self.metrics)
        builds = Builds(self.settings, *parts)
        builds._maker = Maker(make)
        builds.work_root.mkdir(exist_ok=True)
        return builds

    def catalog(self, builds: Builds) -> Catalog:
        """The requests of a server run."""
        environments = Environments(self.settings)
        installations = Installations(environments)
        parts = (self.datasets, self.store, self.hub, environments, installations, self.cache, builds, self.metrics)
        return Catalog(self.settings, *parts)

    async def state(self) -> str:
        return (await self.datasets.dataset(ID)).state

    def write_archive(self, revision: int) -> None:
        self.cache.archive_path(ID, revision).write_bytes(b"archive")
