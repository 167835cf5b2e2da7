"""What manifests are signed with: a certificate chain and its key, named in the settings or made for development.

Those made for development are signed by an authority whose key was thrown away when it had signed one certificate.
They prove nothing to others: nobody else trusts that authority, and everybody can make one that looks like it.
"""

import datetime
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from studiolo.errors import SettingsError
from studiolo.provenance.ours import Ours
from studiolo.settings import ProvenanceSettings
from studiolo.storage.private_files import write_once

SIGNER_FILE = "development-signer.pem"
"""In the folder for development: key, certificate and authority."""
AUTHORITY_FILE = "development-authority.pem"
"""The authority's certificate alone: what other programs are told to trust, to check a manifest made here."""
DEVELOPMENT = "Studiolo development, proves nothing"
"""Organisation in the certificates made here."""

_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_YEARS = datetime.timedelta(days=3650)
_DAY = datetime.timedelta(days=1)
_SOON = 30 * _DAY

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Credentials:
    """A certificate that signs, and those whose signatures are ours."""

    chain_pem: str
    """The certificate, then those up to its authority."""
    key_pem: str = field(repr=False)
    """Its private key, PKCS8; never logged."""
    algorithm: str
    """As C2PA calls it: es256, ed25519, ..."""
    name: str
    """Beginning of the certificate's sha256."""
    ours: Ours
    """The certificate and those that signed before it."""
    timestamp_url: str | None = None
    """Timestamp authority that is asked at each signature; None: no network."""

    @classmethod
    def open(cls, settings: ProvenanceSettings) -> "Credentials":
        """Those that the settings name, or the ones for development, made when they are not there.

        Raises `SettingsError` for files that cannot be read, do not belong together, or are out of date.
        """
        if settings.certificates is None or settings.private_key is None:
            path = Path(settings.development) / SIGNER_FILE
            pem = _development(path)
            key, certificates = _key(pem, path), _certificates(pem, path)
        else:
            path = Path(settings.certificates)
            certificates = _certificates(_read(path), path)
            key = _key(_read(Path(settings.private_key)), Path(settings.private_key))
        _check(key, certificates[0], path)
        earlier = [_certificates(_read(Path(name)), Path(name)) for name in settings.earlier_certificates]
        return cls(
            chain_pem="".join(map(_pem, certificates)),
            key_pem=_key_pem(key).decode(),
            algorithm=_algorithm(key, path),
            name=certificates[0].fingerprint(hashes.SHA256()).hex()[:16],
            ours=_ours([certificates, *earlier]),
            timestamp_url=settings.timestamp_url,
        )

    def key(self) -> str:
        """Stands for all that a manifest depends on, its picture apart."""
        return hashlib.sha256(f"{self.chain_pem}\0{self.timestamp_url}".encode()).hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"provenance: {path}: {error.strerror}; wanted a PEM file") from None


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    """The signing certificate, then at least one authority."""
    wanted = "wanted certificates in PEM: the one that signs, then those up to its authority"
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise SettingsError(f"provenance: {path}: {wanted}") from None
    if len(found) < 2 or found[0].issuer != found[1].subject:
        raise SettingsError(f"provenance: {path}: got {len(found)} in no such order, {wanted}")
    return found


def _ours(chains: Sequence[Sequence[x509.Certificate]]) -> Ours:
    authorities = dict.fromkeys(_pem(one) for chain in chains for one in chain[1:])
    return Ours("".join(authorities), tuple(str(chain[0].serial_number) for chain in chains))


def _key(pem: bytes, path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):  # what they say may quote the file
        raise SettingsError(f"provenance: {path}: wanted an unencrypted private key in PEM") from None


def _check(key: PrivateKeyTypes, certificate: x509.Certificate, path: Path) -> None:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise SettingsError(f"provenance: {path}: its first certificate is of another key; name key and chain of one")
    now = datetime.datetime.now(datetime.UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise SettingsError(
            f"provenance: {path}: the certificate holds from {certificate.not_valid_before_utc:%Y-%m-%d} to"
            f" {certificate.not_valid_after_utc:%Y-%m-%d}; name one that holds today"
        )
    if now > certificate.not_valid_after_utc - _SOON:
        _log.warning("provenance: %s: the certificate ends on %s", path, f"{certificate.not_valid_after_utc:%Y-%m-%d}")


def _algorithm(key: PrivateKeyTypes, path: Path) -> str:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    raise SettingsError(f"provenance: {path}: got a key that C2PA has no use for; wanted Ed25519, a NIST curve or RSA")


def _development(path: Path) -> bytes:
    """Key, certificate and authority for development, made by whoever comes first."""
    try:
        if not path.exists():
            write_once(path, _made())
        content = path.read_bytes()
        authority = path.with_name(AUTHORITY_FILE)
        if not authority.exists():
            write_once(authority, _pem(_certificates(content, path)[-1]).encode())
    except OSError as error:
        raise SettingsError(f"provenance: {path}: cannot be made: {error.strerror}; check its folder") from None
    _log.warning(
        "pictures are signed with %s, made here for development: it proves nothing to others; for a certificate that"
        " does, set provenance.certificates and provenance.private_key",
        path,
    )
    return content


def _made() -> bytes:
    """A key, its certificate, and the authority's, whose key is kept nowhere."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    issuer, subject = _subject("authority"), _subject("signer")
    authority = (
        _builder(issuer, issuer, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder(subject, issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)  # as C2PA wants
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _key_pem(key) + _pem(certificate).encode() + _pem(authority).encode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _YEARS)
    )


def _subject(what: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, DEVELOPMENT), x509.NameAttribute(NameOID.COMMON_NAME, what)]
    )


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
