"""Where settings come from: what nobody would notice to be wrong is refused."""

import pytest
from pydantic import ValidationError

from dataset_server.__main__ import main
from dataset_server.settings import load_settings


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
