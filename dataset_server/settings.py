"""The server's settings: read once; the command line wins over the environment, which wins over a TOML file.

Environment variables are called ``DATASET_SERVER_<SETTING>``. In TOML, each dataset has a table::

    [handlers.flowers]
    source = "git+https://example.org/flowers.git@{version}#subdirectory=handlers"
"""

import os
import re
import shutil
import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from dataset_client.protocol import DEFAULT_PORT, NAME_PATTERN

BUILT_IN = ("coco", "duts", "composite", "cutouts", "mattes", "logos")

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


class Settings(BaseSettings):
    """Every setting, with what it means; frozen."""

    model_config = SettingsConfigDict(env_prefix="DATASET_SERVER_", frozen=True, extra="forbid")

    raw_root: Path = Field(description="Folder of the raw data: one folder per raw dataset. Never written to.")
    data_dir: Path = Field(description="Folder for everything the server keeps: database, archives, environments.")
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback a token is required.")
    port: int = Field(DEFAULT_PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    token: SecretStr | None = Field(
        None, min_length=16, description="Bearer token every client must send; none is needed on loopback."
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
        description="Worker processes of one build.",
    )
    concurrent_builds: int = Field(1, ge=1, le=64, description="Builds that run at a time; others wait in a queue.")
    install_timeout: Seconds = Field(900, description="Seconds an installation may take.")
    describe_timeout: Seconds = Field(60, description="Seconds a handler may take to check a config.")
    plan_timeout: Seconds = Field(3600, description="Seconds a handler may take to plan a dataset.")
    build_timeout: Seconds = Field(24 * 3600, description="Seconds a build may take.")
    stall_timeout: Seconds = Field(
        900, description="Seconds between two signs of progress of a build, once there was one."
    )

    @field_validator("raw_root", "data_dir", "environments_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # Handlers run in folders of their own, where a relative path would mean something else.
        return path.expanduser().absolute() if path else path

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

    @model_validator(mode="after")
    def _not_open_to_everyone(self) -> Self:
        if self.host not in {"127.0.0.1", "::1", "localhost"} and self.token is None:
            raise ValueError(
                f"listening on {self.host} needs a token: set DATASET_SERVER_TOKEN (16 characters or more)"
            )
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
