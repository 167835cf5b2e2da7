"""Receipts and the key they are signed with."""

import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from studiolo.errors import SettingsError
from studiolo.service.receipts import ReceiptKey, verify_receipt
from tests.processes import ROOT, run, started


@pytest.fixture
def key(tmp_path: Path) -> ReceiptKey:
    return ReceiptKey.open(tmp_path / "keys" / "receipts.pem")


def test_a_receipt_is_good_as_it_is_and_not_otherwise(key: ReceiptKey, tmp_path: Path):
    receipt = key.sign({"identity_id": "id_1", "erased": {"photos": 3}, "erased_at": 1.5})
    assert verify_receipt(receipt, key.public_pem)
    assert receipt["key"] == key.name
    for changed in (
        {"erased": {"photos": 4}},
        {"more": None},
        {"key": "other"},
        {"signature": "AAAA"},
        {"signature": None},
        {"signature": receipt["signature"] + "\n"},
    ):
        assert not verify_receipt(receipt | changed, key.public_pem)
    assert not verify_receipt({name: value for name, value in receipt.items() if name != "erased_at"}, key.public_pem)
    assert not verify_receipt(receipt, ReceiptKey.open(tmp_path / "other.pem").public_pem)


def test_the_key_stays_the_same_and_its_private_half_private(key: ReceiptKey, tmp_path: Path):
    path = tmp_path / "keys" / "receipts.pem"
    again = ReceiptKey.open(path)
    assert (again.name, again.public_pem) == (key.name, key.public_pem)
    assert key.name.startswith("receipts-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["receipts.pem"]
    assert b"PRIVATE" not in key.public_pem


def test_processes_that_make_it_at_once_agree(tmp_path: Path):
    script = (
        "import sys; from pathlib import Path; from studiolo.service.receipts import ReceiptKey;"
        " print(ReceiptKey.open(Path(sys.argv[1])).name)"
    )
    command, said = [sys.executable, "-c", script, str(tmp_path / "key.pem")], []
    with ExitStack() as stack:
        for number in range(3):
            file = stack.enter_context((tmp_path / str(number)).open("w"))
            said.append(stack.enter_context(started(command, cwd=ROOT, stdout=file)))
        assert [process.wait(60) for process in said] == [0, 0, 0]
    assert len({(tmp_path / str(number)).read_text() for number in range(3)}) == 1


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "text.pem").write_text("no key")
    other = ec.generate_private_key(ec.SECP256R1())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "ec.pem").write_bytes(other.private_bytes(*form))
    for name in ("text.pem", "ec.pem", "text.pem/below.pem"):
        with pytest.raises(SettingsError, match="receipt key"):
            ReceiptKey.open(tmp_path / name)


def test_the_public_half_is_printed(key: ReceiptKey, tmp_path: Path):
    done = run([sys.executable, "-m", "jobs", "keys", "receipts", "--file", str(tmp_path / "keys" / "receipts.pem")])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{key.name}\n{key.public_pem.decode()}"
