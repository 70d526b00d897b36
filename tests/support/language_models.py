"""Language models in folders, built once and loaded by path as a user's would be."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tiny_models import byte_tokenizer, favour, tiny_neox


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-NeoX that ends about one continuation in three by EOD."""
    folder = tmp_path_factory.mktemp("neox")
    model = tiny_neox()
    favour(model, 0, 4.0)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def no_eod_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with a tokenizer that has no end-of-document token."""
    folder = tmp_path_factory.mktemp("no_eod")
    tiny_neox(bos_token_id=None, eos_token_id=None).save_pretrained(folder)
    byte_tokenizer(with_eod=False).save_pretrained(folder)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Any attempt to reach a network fails, and fails the test even where a library swallows the error."""
    attempts: list[object] = []

    def refuse(*target: object, **_: object) -> None:
        attempts.append(target)
        raise OSError("this test has no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not attempts
