"""What goes out over HTTP and the notification socket: the shapes that the OpenAPI document is made of.

Views answer with plain dictionaries, which is fast; tests hold these to the models. Times are seconds since the epoch.
URLs are relative to the root of the API.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, StringConstraints

from .models import DatasetId, Name, State, Version

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Time = Annotated[float, Field(ge=0)]


class Shape(BaseModel):
    """Base of all shapes: nothing is said that is not described."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Health(Shape):
    """The server is there."""

    status: Literal["ok"]


class Archive(Shape):
    """Where a published archive is, its size in bytes, its sha256, and that of the manifest in it.

    The manifest has the sha256 of everything else in the archive: who trusts it can check each file by itself.
    """

    url: str
    bytes: Count
    sha256: Sha256
    manifest_sha256: Sha256


class Progress(Shape):
    """How far a build is, in samples; ``rate`` in samples per second, ``eta`` in seconds."""

    done: Count
    total: Count
    rate: float
    eta: float | None


class ConfigFault(Shape):
    """One fault of a config; ``path`` is a JSON pointer into it."""

    path: str
    reason: str


class Failure(Shape):
    """Why an attempt failed; ``log`` holds the last lines of the handler or of its installer.

    Of a dataset that was cancelled (code ``cancelled``), ``by`` is the client that did it; empty for the server itself.
    """

    code: str
    message: str
    log: str | None = None
    faults: list[ConfigFault] | None = None
    by: str | None = None


class Problem(Shape):
    """A problem document (RFC 9457); ``code`` is stable, ``detail`` says what to do."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: str
    log: str | None = None
    faults: list[ConfigFault] | None = None


class Links(Shape):
    """Where to go from here."""

    notifications: str
    self: str | None = None
    manifest: str | None = None


class DatasetAnswer(Shape):
    """Where a request stands; ``dataset_id`` is null until the handler has read the config."""

    topic_id: DatasetId
    dataset_id: DatasetId | None
    state: State
    attempt: Count
    progress: Progress | None
    archive: Archive | None
    links: Links


class Shard(Shape):
    """A sealed shard of ``examples`` examples in ``bytes`` bytes."""

    file: str
    split: str
    examples: Count
    bytes: Count
    sha256: Sha256
    url: str


class Usage(Shape):
    """How often it was asked for when it was ready, and when it was last asked for or fetched."""

    uses: Count
    last_used_at: Time | None


class DatasetSummary(Shape):
    """A dataset; ``config`` is the effective one, ``revision`` counts its published archives.

    ``provenance`` is a sha256 over all that decides its bytes; what is ``pinned`` is never evicted.
    """

    dataset_id: DatasetId
    dataset_name: Name
    resolved_version: Version
    config: dict[str, Any]
    state: State
    attempt: Count
    error: Failure | None
    archive: Archive | None
    revision: Count
    provenance: Sha256 | None
    pinned: bool
    usage: Usage
    created_at: Time
    finished_at: Time | None


class CancelAnswer(RootModel[DatasetSummary | DatasetAnswer]):
    """The dataset that was cancelled, or the request that had none yet."""


class RetryAnswer(DatasetSummary):
    """A dataset that is made once more, and the topics that wait for it: others open when somebody asks for them."""

    topics: list[DatasetId]


class DatasetDetail(DatasetSummary):
    """A dataset with its sealed shards and how far its build is.

    One that is queued has a ``position`` (1 is next), with so many builds ``ahead``.
    """

    position: Annotated[int, Field(ge=1)] | None = None
    ahead: Count | None = None
    progress: Progress | None
    shards: list[Shard]


class DatasetPage(Shape):
    """A page of datasets; ``total`` is how many match."""

    total: Count
    datasets: list[DatasetSummary]


class AuditEntry(Shape):
    """One deed: who (empty where no token was needed) did what to which topic, dataset or token, and when."""

    number: int
    at: float
    client: str
    action: str
    subject: str
    detail: dict[str, Any]


class AuditPage(Shape):
    """Entries of the audit, oldest first."""

    entries: list[AuditEntry]


class PartialManifest(Shape):
    """What is sealed of a dataset that is being made; ``features`` is its ``features.json``, once that is written."""

    format: Literal[1]
    complete: Literal[False]
    dataset_id: DatasetId
    dataset_name: Name
    config: dict[str, Any]
    state: State
    features: dict[str, Any] | None
    shards: list[dict[str, Any]]


class Manifest(BaseModel):
    """What is in an archive and where it came from; the handler adds statistics, quarantine and more."""

    model_config = ConfigDict(extra="allow", frozen=True)

    format: int
    dataset_id: DatasetId
    dataset_name: Name
    config: dict[str, Any]
    shards: list[dict[str, Any]]
    provenance: dict[str, Any]


class ManifestAnswer(RootModel[Manifest | PartialManifest]):
    """The manifest, or while the dataset is being made, the part that is sealed."""


class Pin(Shape):
    """Whether a dataset's archive is kept."""

    dataset_id: DatasetId
    pinned: bool


class Handler(Shape):
    """What can be asked for; ``version`` is the one there is, where there is only one."""

    dataset_name: Name
    kind: Literal["git", "package", "path"]
    version: str | None = None


class HandlerList(Shape):
    """All handlers."""

    handlers: list[Handler]


class HandlerDescription(BaseModel):
    """A handler's options, schema, defaults and documentation, as it gives them."""

    model_config = ConfigDict(extra="allow", frozen=True)

    dataset_name: Name
    resolved_version: Version


class Subscribed(Shape):
    """The answer to a subscription: the topic's last event and attempt; 0 if nobody has asked for it yet."""

    kind: Literal["subscribed"]
    topic_id: DatasetId
    number: Count
    attempt: Count


class _Event(Shape):
    """A message on a topic; numbers rise by topic."""

    topic_id: DatasetId
    number: Annotated[int, Field(ge=1)]
    attempt: Annotated[int, Field(ge=1)]


class StateData(Shape):
    """A new state, and the dataset once it is known.

    Where it is queued: its ``position`` (1 is next) and the builds ``ahead``; or, after a failure, the ``reason`` (a
    code) with its ``message``, which ``try`` comes next (2, 3 …), and when. A ``reason`` is also ``stale`` or ``lost``
    where an archive that was there is made again.
    """

    state: State
    dataset_id: DatasetId | None = None
    position: Annotated[int, Field(ge=1)] | None = None
    ahead: Count | None = None
    reason: str | None = None
    message: str | None = None
    try_: int | None = Field(None, ge=2, alias="try")
    retry_at: Time | None = None


class StateEvent(_Event):
    """The attempt is in another state."""

    kind: Literal["state"]
    data: StateData


class ProgressEvent(_Event):
    """How far the build is; outdated ones are left out of a replay."""

    kind: Literal["progress"]
    data: Progress


class ShardEvent(_Event):
    """A shard is sealed."""

    kind: Literal["shard"]
    data: Shard


class ReadyData(Shape):
    """Which dataset is ready, and where its archive is."""

    dataset_id: DatasetId
    archive: Archive


class ReadyEvent(_Event):
    """The attempt has ended: the dataset can be fetched."""

    kind: Literal["ready"]
    data: ReadyData


class FailedEvent(_Event):
    """The attempt has ended without a dataset."""

    kind: Literal["failed"]
    data: Failure


class CancelledData(Shape):
    """Why nobody works on it any more, and ``by`` which client that was decided; empty for the server itself."""

    message: str
    code: str | None = None
    by: str | None = None


class CancelledEvent(_Event):
    """The attempt has ended because somebody stopped it."""

    kind: Literal["cancelled"]
    data: CancelledData


class SocketMessage(
    RootModel[Subscribed | StateEvent | ProgressEvent | ShardEvent | ReadyEvent | FailedEvent | CancelledEvent]
):
    """One text frame of the notification socket."""


class Messages(Shape):
    """``subscribed`` for each topic that was asked about, then their events, at most 500 of each."""

    messages: list[SocketMessage]
