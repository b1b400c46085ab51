"""Secrets of the environment and accounts in addresses stand in nothing that a command writes."""

import sys

from mechunlearn import secrets


def test_secrets_are_left_out_and_all_else_stays(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("MY_API_KEY", "hf_abcdefgh-longer")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HOME_OF_NOTHING", "not a secret")
    text = "hf_abcdefgh hf_abcdefgh-longer false not a secret http://me:pass@host/x mail me@host s3://bucket/a@b\n"
    cleaned = "[hidden] [hidden] false not a secret http://[hidden]@host/x mail me@host s3://bucket/a@b\n"
    assert secrets.clean(text) == cleaned
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    secrets.hide()
    assert print(text, end="") is None
    sys.stderr.writelines([text])
    assert sys.stdout.isatty() is False
    assert capsys.readouterr() == (cleaned, cleaned)
