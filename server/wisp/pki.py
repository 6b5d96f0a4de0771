"""The door of cryptography: a certificate authority of our own, and what it signs.

Every key is EC P-256 and is made on the machine that will use it; what travels is a request, and of a
request nothing is believed but that its sender has the key: who it is, and what for, is said by the one who
signs. All certificates are good for ten years, like the authority: there is no renewal, so no day before
that on which a cloud stops by itself, and a machine is shut out by founding the authority anew.
"""
from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from cryptography.x509.oid import NameOID

VALID = timedelta(days=3650)
SKEW = timedelta(days=1)
"""How much a machine's clock may be behind when it joins."""
CLIENT, SERVER = (Use.CLIENT_AUTH,), (Use.SERVER_AUTH,)
BOTH = (*CLIENT, *SERVER)
"""For a member of etcd, who is a client of its peers, and of itself."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Both as PEM."""

    key: bytes
    certificate: bytes


def authority() -> Identity:
    """Each has a name of its own, so that two are not mistaken for one another."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named(f"wisp {secrets.token_hex(8)}")
    signs = x509.KeyUsage(key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
                          key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
                          decipher_only=False)
    made = _begun(name, name, key.public_key(), key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True).add_extension(signs, critical=True)
    return Identity(_key_pem(key), _pem(made.sign(key, hashes.SHA256())))


def issue(ca: Identity, name: str, use: tuple[x509.ObjectIdentifier, ...], hosts: Iterable[str] = ()) -> Identity:
    """`hosts`: addresses and names of a server, by which its clients know it."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Identity(_key_pem(key), _signed(ca, key.public_key(), name, use, hosts))


def request() -> tuple[bytes, bytes]:
    """A fresh key, and a request that goes with it, for somebody else to sign."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return _key_pem(key), _pem(made)


def sign(ca: Identity, asked: bytes, name: str) -> bytes:
    """A client's certificate. Raises ValueError if the request is not one, or not of our kind of key."""
    try:
        read = x509.load_pem_x509_csr(asked)
        key = read.public_key()
        valid = read.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ValueError("this is no request for a certificate") from error
    if not (valid and isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise ValueError("a request is signed with its own key, of EC P-256")
    return _signed(ca, key, name, CLIENT, ())


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of a PEM certificate, hexadecimal. Raises ValueError if it is none."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def _signed(ca: Identity, key: ec.EllipticCurvePublicKey, name: str, use: tuple[x509.ObjectIdentifier, ...],
            hosts: Iterable[str]) -> bytes:
    issuer = x509.load_pem_x509_certificate(ca.certificate)
    signer = serialization.load_pem_private_key(ca.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    made = _begun(_named(name), issuer.subject, key, signer.public_key()).add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True).add_extension(
        x509.ExtendedKeyUsage(use), critical=False)
    if known := [_host(each) for each in hosts]:
        made = made.add_extension(x509.SubjectAlternativeName(known), critical=False)
    return _pem(made.sign(signer, hashes.SHA256()))


def _begun(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey,
           signer: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (x509.CertificateBuilder(issuer, name, key, x509.random_serial_number(), now - SKEW, now + VALID)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(made: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return made.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())
