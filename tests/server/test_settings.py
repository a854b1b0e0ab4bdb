"""Where settings come from: what nobody would notice to be wrong is refused."""

import pytest
from pydantic import ValidationError

from dataset_server.__main__ import main
from dataset_server.settings import group_limits, load_settings


def test_a_variable_that_no_setting_has_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATASET_SERVER_QOUTA", "1GB")
    with pytest.raises(ValidationError, match="DATASET_SERVER_QOUTA, but no setting"):
        load_settings(raw_root=tmp_path, data_dir=tmp_path)
    arguments = ["--raw-root", str(tmp_path), "--data-dir", str(tmp_path / "data")]
    assert main(["serve", *arguments]) == 2
    assert "DATASET_SERVER_QOUTA" in capsys.readouterr().err
    assert main(["check", *arguments]) == 1
    assert "DATASET_SERVER_QOUTA" in capsys.readouterr().out
    assert not (tmp_path / "data").exists()


def test_settings_and_what_is_the_client_s_are_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("DATASET_SERVER_URL", "https://data.example.org")
    monkeypatch.setenv("dataset_server_quota", "2GB")
    monkeypatch.setenv("DATASET_SERVER_TRUSTED_PROXIES", '["127.0.0.1"]')
    settings = load_settings(raw_root=tmp_path, data_dir=tmp_path)
    assert (settings.quota, settings.trusted_proxies) == (2_000_000_000, ("127.0.0.1",))


def test_paths_are_those_of_the_folder_the_server_starts_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    settings = load_settings(raw_root="raw", data_dir="data", handler_reads=["lib", "~/models"])
    assert (settings.raw_root, settings.data_dir) == (tmp_path / "raw", tmp_path / "data")
    assert settings.handler_reads == (tmp_path / "lib", tmp_path / "home" / "models")


def test_memory_is_what_every_control_group_above_allows(tmp_path):
    of, group = tmp_path / "cgroup", tmp_path / "root" / "system.slice" / "ours.service"
    group.mkdir(parents=True)
    of.write_text("4:memory:/other\n0::/system.slice/ours.service\n")
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text("1000\n")
    (tmp_path / "memory.max").write_text("1\n")  # not below the root
    assert list(group_limits(of, tmp_path / "root")) == [1000]
    assert list(group_limits(tmp_path / "none", tmp_path / "root")) == []
