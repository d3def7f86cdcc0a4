"""Provenance: what a record says of its origin, against what is known of it."""

import hashlib
import sys
import time
from datetime import UTC, datetime

import torch
from torch import nn

import jensen
from jensen.provenance import Provenance, command_line, provenance, weights_digest


def two_weights(value: float = 1.0) -> nn.Module:
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[value, 2.0]])
    model.register_buffer("seen", torch.tensor(True))
    return model


def test_the_digest_is_sha256_of_names_dtypes_shapes_and_bytes():
    expected = b"seen torch.bool ()\n\x01" + b"weight torch.float32 (1, 2)\n" + b"\x00\x00\x80\x3f\x00\x00\x00\x40"
    assert weights_digest(two_weights()) == hashlib.sha256(expected).hexdigest()


def test_any_other_weight_has_another_digest():
    other = two_weights(torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item())
    assert weights_digest(other) != weights_digest(two_weights())


def test_a_record_says_where_it_comes_from(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/jensen/__main__.py", "evaluate", "a run"])
    before = datetime.now(UTC).replace(microsecond=0)
    found = provenance(two_weights(), 7, time.perf_counter() - 2)
    assert (found.step, found.jensen, found.torch) == (7, jensen.__version__, torch.__version__)
    assert (found.device, found.threads, found.processes) == ("cpu", torch.get_num_threads(), 1)
    assert found.command == "jensen evaluate 'a run'"
    assert before <= datetime.fromisoformat(found.date) <= datetime.now(UTC)
    assert 2 <= found.seconds < 60
    assert Provenance.model_validate_json(found.model_dump_json()) == found


def test_the_installed_command_has_no_folder(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/jensen", "info", "run"])
    assert command_line() == "jensen info run"
