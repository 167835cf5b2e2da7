import datetime
import logging
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from studiolo.errors import SettingsError
from studiolo.provenance import credentials
from studiolo.provenance.credentials import AUTHORITY_FILE, SIGNER_FILE, Credentials
from studiolo.provenance.manifests import ManifestState, Signer, read_manifest
from studiolo.settings import ProvenanceSettings
from tests.portraits.job_rows import picture, png

DAY = datetime.timedelta(days=1)


class House:
    """An authority of a studio's own that gives out certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, ec.generate_private_key(ec.SECP384R1())
        name = credentials._subject("a real authority")
        self.certificate = (
            credentials._builder(name, name, self.key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(credentials._usage(key_cert_sign=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def give(self, stem: str, key, ends_in: datetime.timedelta = 90 * DAY) -> ProvenanceSettings:
        """Files of a new certificate for `key`."""
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(credentials._subject(stem))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 300 * DAY)
            .not_valid_after(now + ends_in)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(credentials._usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        chain, private = self.folder / f"{stem}.pem", self.folder / f"{stem}-key.pem"
        chain.write_text(credentials._pem(made) + credentials._pem(self.certificate))
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL)
        private.write_bytes(key.private_bytes(*form, serialization.NoEncryption()))
        return ProvenanceSettings(certificates=str(chain), private_key=str(private))


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_for_development_they_are_made_once_and_a_warning_says_what_they_are_worth(tmp_path: Path, caplog):
    settings = ProvenanceSettings(development=str(tmp_path / "new" / "folder"))
    with caplog.at_level(logging.WARNING):
        first, again = Credentials.open(settings), Credentials.open(settings)
    assert first == again
    assert len([record for record in caplog.records if "proves nothing to others" in record.message]) == 2
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [AUTHORITY_FILE, SIGNER_FILE]
    assert (folder / SIGNER_FILE).stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in (folder / AUTHORITY_FILE).read_text()
    assert "PRIVATE" not in repr(first)
    assert "proves nothing" in x509.load_pem_x509_certificate(first.chain_pem.encode()).subject.rfc4514_string()


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "es256"),
        (ec.generate_private_key(ec.SECP384R1()), "es384"),
        (rsa.generate_private_key(65537, 2048), "ps256"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_real_ones_sign_with_any_key_that_c2pa_knows(house: House, key, algorithm: str):
    opened = Credentials.open(house.give("studio", key))
    assert opened.algorithm == algorithm
    assert read_manifest(Signer(opened).sign(png(picture(1))), opened.ours) == ManifestState.OURS


def test_another_customer_of_the_same_authority_is_not_us_and_our_earlier_certificate_is(house: House):
    key = ec.generate_private_key(ec.SECP256R1())
    before, stranger, now = (house.give(name, key) for name in ("before", "stranger", "now"))
    ours = Credentials.open(now.model_copy(update={"earlier_certificates": (before.certificates,)})).ours
    signed = [Signer(Credentials.open(one)).sign(png(picture(1))) for one in (before, stranger, now)]
    assert [read_manifest(content, ours) for content in signed] == ["ours", "other", "ours"]


def test_what_cannot_sign_is_refused_at_once(house: House, tmp_path: Path):
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    good, over = house.give("good", key), house.give("over", key, -DAY)
    wrong = house.give("wrong", other)
    secret = tmp_path / "secret.pem"
    secret.write_text("hunter2")
    bare = tmp_path / "bare.pem"
    bare.write_text(credentials._pem(x509.load_pem_x509_certificate(Path(good.certificates).read_bytes())))
    refused = {
        "of another key": {"private_key": wrong.private_key},
        "name one that holds today": {"certificates": over.certificates},
        "unencrypted private key": {"private_key": str(secret)},
        "up to its authority": {"certificates": str(bare)},
        "wanted certificates in PEM": {"certificates": str(secret)},
        "No such file": {"certificates": str(tmp_path / "missing.pem")},
    }
    for message, change in refused.items():
        with pytest.raises(SettingsError, match=message) as caught:
            Credentials.open(good.model_copy(update=change))
        assert "hunter2" not in str(caught.value)


def test_paths_are_placed(tmp_path: Path):
    placed = ProvenanceSettings(certificates="a.pem", private_key="/k.pem", earlier_certificates=("b.pem",)).placed(
        tmp_path
    )
    assert placed.certificates == str(tmp_path / "a.pem")
    assert placed.private_key == "/k.pem"
    assert placed.earlier_certificates == (str(tmp_path / "b.pem"),)
    assert placed.development == str(tmp_path / "out/provenance")
    assert ProvenanceSettings().placed(tmp_path).certificates is None
