"""The server's settings: read once; the command line wins over the environment, which wins over a TOML file.

Environment variables are called ``DATASET_SERVER_<SETTING>``; one that no setting has is refused. In TOML, each dataset
has a table::

    [handlers.flowers]
    source = "git+https://example.org/flowers.git@{version}#subdirectory=handlers"
"""

import contextlib
import ipaddress
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ByteSize, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from dataset_client.protocol import DEFAULT_PORT, NAME_PATTERN

from .logs import LogFormat, LogLevel

_PREFIX = "DATASET_SERVER_"
#: The client's: its process may be the parent of a server.
_NOT_OURS = frozenset({"DATASET_SERVER_URL"})

BUILT_IN = ("coco", "duts", "camvid", "composite", "cutouts", "mattes", "logos")

_GIT = re.compile(
    r"git\+(?P<url>[^#@]+(?:@[^#@/{]+/[^#@]+)?|.+)@\{version\}(?:#subdirectory=(?P<subdirectory>[\w./-]+))?"
)
_PACKAGE = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[\w,-]+\])?)==\{version\}")


class HandlerSource(BaseModel):
    """Where the handler of one dataset comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        description="'git+URL@{version}[#subdirectory=DIR]', a requirement 'NAME=={version}', or the path of a "
        "folder with a pyproject.toml, which serves the version it declares."
    )
    handler: str | None = Field(None, description="The handler's entry point; by default it is named like the dataset.")

    @property
    def kind(self) -> Literal["git", "package", "path"]:
        """What sort of source it is."""
        if self.source.startswith("git+"):
            return "git"
        return "package" if "{version}" in self.source else "path"

    @model_validator(mode="after")
    def _is_understood(self) -> Self:
        if self.kind == "git" and not _GIT.fullmatch(self.source):
            raise ValueError(f"'{self.source}' is not of the form git+URL@{{version}}[#subdirectory=DIR]")
        if self.kind == "package" and not _PACKAGE.fullmatch(self.source):
            raise ValueError(f"'{self.source}' is not of the form NAME=={{version}}")
        if self.kind == "path" and not (Path(self.source).expanduser() / "pyproject.toml").is_file():
            raise ValueError(f"there is no pyproject.toml in {self.source}")
        return self

    @property
    def git(self) -> tuple[str, str]:
        """URL and subdirectory of a git source."""
        match = _GIT.fullmatch(self.source)
        assert match is not None
        return match["url"], match["subdirectory"] or ""

    @property
    def package(self) -> str:
        """Name of a package source, with its extras."""
        match = _PACKAGE.fullmatch(self.source)
        assert match is not None
        return match["name"]

    @property
    def path(self) -> Path:
        """Folder of a path source."""
        return Path(self.source).expanduser().resolve()


def own_handlers() -> Path:
    """The `dataset_handlers` folder of the checkout this server runs from."""
    return Path(__file__).resolve().parent.parent / "dataset_handlers"


Seconds = Annotated[float, Field(gt=0)]


def three_quarters_of_memory() -> ByteSize:
    """Bytes: of the machine's memory, or of what this process's control groups have left it (Linux, version 2)."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return ByteSize(min([size, *group_limits()]) * 3 // 4)


def group_limits(of: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes of memory that each control group allows which a process is in, from its own up to ``root``."""
    try:
        version_2 = re.search(r"^0::/(.*)$", of.read_text(), re.MULTILINE)
    except OSError:
        return
    folder = root / version_2[1] if version_2 else root
    for group in (folder, *folder.parents):
        if group.is_relative_to(root):
            with contextlib.suppress(OSError, ValueError):  # no limit, or none to be seen
                yield int((group / "memory.max").read_text())


class Settings(BaseSettings):
    """Every setting, with what it means; frozen."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    raw_root: Path = Field(description="Folder of the raw data: one folder per raw dataset. Never written to.")
    data_dir: Path = Field(description="Folder for everything the server keeps: database, archives, environments.")
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback a token is required.")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None,
        min_length=16,
        description="One bearer token that may do everything, beside those that `dataset-server token` makes.",
    )
    handlers: dict[str, HandlerSource] = Field(
        default_factory=dict,
        description="Handlers by dataset name; the built-in ones are there without a word.",
    )
    database_url: str | None = Field(
        None, description="SQLAlchemy URL of the database; by default SQLite in the data folder."
    )
    environments_dir: Path | None = Field(
        None, description="Folder of the handlers' environments; by default in the data folder."
    )
    python: str = Field(sys.executable, description="Python interpreter the handlers' environments are made from.")
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="Worker processes on this machine, shared evenly by the builds that may run at a time.",
    )
    concurrent_builds: int = Field(1, ge=1, le=64, description="Builds that run at a time; others wait in a queue.")
    builds_per_client: int | None = Field(None, ge=1, description="Builds of one client that run at a time.")
    queue_limit: int | None = Field(
        None,
        ge=0,
        description="Unanswered requests of one client at a time, unless its token says otherwise.",
    )
    retry_limit: int = Field(
        3, ge=0, le=100, description="Times a build is tried again by itself after a failure that may pass."
    )
    retry_seconds: Seconds = Field(
        5, description="Seconds before a build is tried again; doubled each time, up to 300."
    )
    lease_seconds: Seconds = Field(
        30, description="Seconds after which a build counts as left by a server that does not renew its lease."
    )
    drain_seconds: float = Field(
        0, ge=0, description="Seconds that running builds get to end when the server is asked to stop."
    )
    cancel_unwatched_seconds: Seconds | None = Field(
        None, description="Seconds without anybody listening or asking after which a build is cancelled."
    )
    install_timeout: Seconds = Field(
        900, description="Seconds each step of an installation may take: one call of uv or git."
    )
    reference_seconds: float = Field(
        60,
        ge=0,
        description="Seconds for which the meaning of a tag, a branch, `latest` or a source folder is remembered, "
        "and that there is no such version.",
    )
    environments_unused_days: float = Field(
        30, ge=1, description="Days after which an environment that nobody used is removed."
    )
    describe_timeout: Seconds = Field(60, description="Seconds a handler may take to check a config.")
    plan_timeout: Seconds = Field(3600, description="Seconds a handler may take to plan a dataset.")
    build_timeout: Seconds = Field(24 * 3600, description="Seconds a build may take.")
    stall_timeout: Seconds = Field(
        900, description="Seconds between two signs of progress of a build, once there was one."
    )

    handler_memory: ByteSize = Field(
        default_factory=three_quarters_of_memory,
        ge=64 << 20,
        description="Memory one command of a handler may use, all its processes together: bytes, or '8GiB'.",
    )
    handler_cpu_time: Seconds | None = Field(
        None, description="Seconds of CPU time one command of a handler may use, all its processes together."
    )
    handler_processes: int = Field(
        64, ge=0, description="Processes a handler may have at a time, beside its coordinator and workers."
    )
    handler_file_size: ByteSize = Field(
        ByteSize(16 << 30), ge=1 << 20, description="Size a file that a handler writes may reach: bytes, or '16GiB'."
    )
    handler_network: bool = Field(False, description="Whether handlers may open network connections.")
    handler_reads: tuple[Path, ...] = Field(
        (), description="Folders handlers may read beside the raw data, such as libraries in unusual places."
    )

    quota: ByteSize | None = Field(
        None,
        gt=0,
        description="Bytes archives and builds under way may take: bytes, or '200GB'; by default what the disk has.",
    )
    disk_reserve: ByteSize | None = Field(
        None,
        ge=0,
        description="Bytes of its disk the server leaves free: bytes, or '10GB'; by default a fiftieth, at most 2 GB.",
    )
    reader_lease_seconds: float = Field(
        3600, ge=1, description="Seconds an archive is safe from eviction after it was last asked for or read."
    )
    stale_check_seconds: float = Field(
        300, ge=0, description="Seconds for which a dataset counts as made of the raw data as it is, after a check."
    )
    scrub_days: float = Field(
        30, ge=0, description="Days within which each archive is read again to see that it is sound; 0 for never."
    )
    scrub_bytes_per_second: ByteSize = Field(
        ByteSize(50_000_000), ge=1, description="Speed of that reading: bytes, or '50MB'."
    )

    log_format: LogFormat = Field("text", description="Log lines for people ('text') or machines ('json').")
    log_level: LogLevel = Field(
        "info", description="The least that is logged: 'debug', 'info', 'warning' or 'error'; requests are 'info'."
    )

    tls_certificate: Path | None = Field(
        None, description="PEM file of the TLS certificate and its chain; with `tls_key` the server speaks HTTPS."
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key, not encrypted.")
    public_origins: tuple[str, ...] = Field(
        (), description="Origins browsers know the server by, such as 'https://data.example.org', behind a proxy."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses or networks of proxies whose `X-Forwarded-For` is believed."
    )
    requests_per_minute: int = Field(
        6000, ge=1, description="Requests one token may send in a minute; downloads and sockets count as one each."
    )
    request_timeout: Seconds = Field(
        75, description="Seconds a client may take to send a request, and a connection may be idle."
    )
    connections_per_address: int = Field(
        4096, ge=1, description="Connections one address may hold; trusted proxies may hold any number."
    )
    sockets_per_client: int = Field(
        4096, ge=1, description="Notification sockets one client may hold, with all its tokens together."
    )
    audit_days: float = Field(365, gt=0, description="Days for which it is kept who asked for what.")

    @property
    def workers_of_a_build(self) -> int:
        """Worker processes of one build: ``workers`` is what the machine has, shared by the builds that may run at
        once.
        """
        return max(1, self.workers // self.concurrent_builds)

    @model_validator(mode="before")
    @classmethod
    def _variables_are_settings(cls, given: Any) -> Any:
        known = {*_NOT_OURS, *(f"{_PREFIX}{name}".upper() for name in cls.model_fields)}
        ours = (name for name in os.environ if name.upper().startswith(_PREFIX))
        if unknown := sorted(name for name in ours if name.upper() not in known):
            raise ValueError(f"the environment has {', '.join(unknown)}, but no setting is called so")
        return given

    @field_validator("raw_root", "data_dir", "environments_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # Handlers run in folders of their own, where a relative path would mean something else.
        return path.expanduser().absolute() if path else path

    @field_validator("handler_reads")
    @classmethod
    def _all_absolute(cls, paths: tuple[Path, ...]) -> tuple[Path, ...]:
        return tuple(path.expanduser().absolute() for path in paths)

    @field_validator("database_url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        try:
            return url and str(make_url(url).render_as_string(hide_password=False))
        except ArgumentError as error:
            raise ValueError(f"not a database URL: {error}") from error

    @field_validator("handlers")
    @classmethod
    def _names_are_names(cls, handlers: dict[str, HandlerSource]) -> dict[str, HandlerSource]:
        for name in handlers:
            if not NAME_PATTERN.fullmatch(name):
                raise ValueError(f"'{name}' is no dataset name; it must match {NAME_PATTERN.pattern}")
        return handlers

    @field_validator("public_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not re.fullmatch(r"https?://[^/\s@]+", origin):
                raise ValueError(f"'{origin}' is no origin; it reads https://HOST or https://HOST:PORT, and no more")
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network, strict=False)
        return networks

    @model_validator(mode="after")
    def _fits_this_machine(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both, or none")
        if not self.raw_root.is_dir():
            raise ValueError(f"raw_root {self.raw_root} is not a folder")
        if shutil.which(self.python) is None:
            raise ValueError(f"python {self.python} is not a program")
        return self

    @cached_property
    def sources(self) -> Mapping[str, HandlerSource]:
        """Handlers by dataset name, the built-in ones among them where this is a checkout."""
        own = own_handlers()
        built_in = {}
        if (own / "pyproject.toml").is_file():
            built_in = {name: HandlerSource(source=str(own), handler=None) for name in BUILT_IN}
        return {**built_in, **self.handlers}

    @property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'server.db'}"

    @property
    def environments(self) -> Path:
        """The environments' folder in force."""
        return self.environments_dir or self.data_dir / "environments"


def load_settings(config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings; ``overrides`` win over the environment, which wins over the TOML file ``config``.

    Raises `pydantic.ValidationError` naming each setting that is wrong, and `OSError` for a file that cannot be read.
    """
    if config and not config.is_file():
        raise FileNotFoundError(f"there is no file {config}")

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            file = (TomlConfigSettingsSource(settings_cls, config),) if config else ()
            return init_settings, env_settings, *file

    return Loaded(**{name: value for name, value in overrides.items() if value is not None})
