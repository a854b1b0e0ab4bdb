"""The settings file, and what goes before it."""

import pytest

from dataset_client import errors, request_dataset
from dataset_client.settings import DEFAULT_SERVER_URL, KEYS, parse_size, resolve_cache_dir, resolve_settings


@pytest.fixture
def write(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(mode)
        return {"DATASET_CLIENT_CONFIG": str(path)}

    return write


def test_an_argument_goes_before_the_environment_before_the_file_before_the_default(write):
    environ = write('server_url = "http://file"\ntoken = "file"\ncache_limit = "2GB"')
    environ |= {"DATASET_SERVER_URL": "http://environment", "DATASET_SERVER_TOKEN": ""}
    settings = resolve_settings(server_url="http://argument", environ=environ)
    assert (settings.server_url, settings.token, settings.cache_limit) == ("http://argument", "file", 2 * 10**9)
    assert resolve_settings(environ=environ).server_url == "http://environment"
    assert resolve_settings(environ=write("")).server_url == DEFAULT_SERVER_URL
    assert resolve_settings(environ=environ | {"DATASET_CACHE_LIMIT": "3"}).cache_limit == 3


def test_the_cache_directory_is_found_the_same_way(write, tmp_path):
    environ = write(f'cache_dir = "{tmp_path}/a"')
    assert resolve_cache_dir(environ=environ) == resolve_settings(environ=environ).cache_dir == tmp_path / "a"
    assert resolve_cache_dir("/b", environ=environ).as_posix() == "/b"


def test_the_file_is_where_users_configure_things(tmp_path, monkeypatch):
    folder = tmp_path / "home-config" / "dataset-client"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('server_url = "http://mine"')
    assert resolve_settings(environ={}).server_url == "http://mine"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('server = "http://x"', r"unknown key 'server'\nDid you mean 'server_url'"),
        ('cachelimit = "1GB"', "Did you mean 'cache_limit'"),
        ("token = 5", "token = 5; it is a text"),
        ("cache_limit = true", "number of bytes"),
        ("cache_limit = 1.5", "number of bytes"),
        ('cache_limit = "much"', "'much' is not a size"),
        ("server_url =", "is no TOML"),
        ('server_url = "data"', "not the root of a server"),
    ],
)
def test_faults_are_named(write, text, match):
    with pytest.raises(errors.InvalidSettingError, match=match):
        resolve_settings(environ=write(text))


def test_a_file_that_is_named_must_be_there(tmp_path):
    with pytest.raises(errors.InvalidSettingError, match="no settings file"):
        resolve_settings(environ={"DATASET_CLIENT_CONFIG": str(tmp_path / "none.toml")})
    with pytest.raises(errors.InvalidSettingError, match="cannot be read"):
        resolve_settings(environ={"DATASET_CLIENT_CONFIG": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "mode", "warns"), [('token = "t"', 0o640, True), ('token = "t"', 0o600, False), ("", 0o644, False)]
)
def test_a_token_that_others_can_read_is_warned_of(write, caplog, text, mode, warns):
    resolve_settings(environ=write(text, mode))
    assert ("chmod 600" in caplog.text) is warns


@pytest.mark.parametrize(
    ("size", "bytes_"),
    [(5, 5), ("5", 5), ("200GB", 200 * 10**9), ("1.5 TiB", 3 * 2**39), ("10k", 10_000), ("1KiB", 1024), (0, 0)],
)
def test_sizes(size, bytes_):
    assert parse_size(size) == bytes_


@pytest.mark.parametrize("size", ["-1", "1XB", "", "GB", True, 1.5e300, "1e3"])
def test_what_is_no_size(size):
    with pytest.raises(errors.InvalidSettingError, match="size"):
        parse_size(size)


def test_every_key_is_described():
    from dataset_client import settings

    for key, variable in KEYS.items():
        assert key in settings.__doc__
        assert variable in settings.__doc__


def test_the_file_serves_a_request(write, topic, server, tmp_path, monkeypatch):
    server.token = "s3cret"
    named = write(f'server_url = "{server.url}"\ntoken = "s3cret"\ncache_dir = "{tmp_path}/here"')
    monkeypatch.setenv("DATASET_CLIENT_CONFIG", named["DATASET_CLIENT_CONFIG"])
    dataset = request_dataset("discs", "v1", {"limit": 7, "batch_size": 2}, progress=False)
    assert tmp_path / "here" in dataset.path.parents
