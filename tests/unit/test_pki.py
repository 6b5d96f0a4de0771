"""Whom a certificate makes believed, and whom not: by real handshakes, in memory."""
from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from wisp import pki
from wisp.enrolment import Token
from wisp.pki import Identity

HOSTS = ("172.30.0.1", "localhost")


def presented(by: Identity, context: ssl.SSLContext, directory: Path) -> ssl.SSLContext:
    """The context, with that certificate to show."""
    file = directory / "shown.pem"
    file.write_bytes(by.key + by.certificate)
    context.load_cert_chain(file)
    return context


def believes(ca: Identity, server: Identity, host: str, directory: Path, client: Identity | None = None) -> bool:
    """Whether a client of the authority talks to this server at this address, and, if it shows something, is talked to."""
    trust = ca.certificate.decode()
    listening = presented(server, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), directory)
    asking = ssl.create_default_context(cadata=trust)
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    if client:
        listening.load_verify_locations(cadata=trust)
        listening.verify_mode = ssl.CERT_REQUIRED
        presented(client, asking, directory)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [asking.wrap_bio(back, there, server_hostname=host), listening.wrap_bio(there, back, server_side=True)]
    for _ in range(4):
        for each in ends:
            try:
                each.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError:
                return False
    return True


@pytest.fixture(scope="module")
def ca() -> Identity:
    return pki.authority()


@pytest.fixture(scope="module")
def server(ca: Identity) -> Identity:
    return pki.issue(ca, "n1", pki.SERVER, HOSTS)


@pytest.mark.parametrize("host", HOSTS)
def test_a_server_is_known_by_each_of_its_addresses(ca: Identity, server: Identity, host: str, tmp_path: Path) -> None:
    assert believes(ca, server, host, tmp_path)


def test_a_server_is_not_believed_at_another_address(ca: Identity, server: Identity, tmp_path: Path) -> None:
    assert not believes(ca, server, "172.30.0.2", tmp_path)


def test_what_another_authority_signed_is_not_believed(server: Identity, tmp_path: Path) -> None:
    assert not believes(pki.authority(), server, HOSTS[0], tmp_path)


def test_a_machine_that_was_let_in_is_a_client_and_cannot_pass_for_the_server(ca: Identity, server: Identity, tmp_path: Path) -> None:
    key, csr = pki.request()
    machine = Identity(key, pki.sign(ca, csr, HOSTS[1]))
    assert believes(ca, server, HOSTS[0], tmp_path, client=machine)
    assert not believes(ca, machine, HOSTS[1], tmp_path)


def test_the_apis_server_cannot_pass_for_a_client_of_the_store(ca: Identity, server: Identity, tmp_path: Path) -> None:
    store = pki.issue(ca, "etcd", pki.BOTH, HOSTS)
    assert not believes(ca, store, HOSTS[0], tmp_path, client=server)
    assert believes(ca, store, HOSTS[0], tmp_path, client=store)


def test_who_was_let_in_cannot_let_others_in(ca: Identity, server: Identity, tmp_path: Path) -> None:
    machine = pki.issue(ca, "n2", pki.CLIENT)
    forged = pki.issue(machine, "n3", pki.SERVER, HOSTS)
    both = Identity(forged.key, forged.certificate + machine.certificate)
    assert not believes(ca, both, HOSTS[0], tmp_path)


def test_of_a_request_nothing_is_believed_but_its_key(ca: Identity) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    grand = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    asked = (x509.CertificateSigningRequestBuilder().subject_name(grand)
             .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
             .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
             .sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    made = x509.load_pem_x509_certificate(pki.sign(ca, asked, "n2"))
    assert made.subject.rfc4514_string() == "CN=n2" and made.public_key() == key.public_key()
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.SubjectAlternativeName)


def test_a_request_that_is_none_or_of_another_kind_of_key_is_refused(ca: Identity) -> None:
    _, good = pki.request()
    request = x509.load_pem_x509_csr(good)
    raw = bytearray(request.public_bytes(Encoding.DER))
    raw[-1] ^= 1        # its signature
    forged = ssl.DER_cert_to_PEM_cert(bytes(raw)).replace("CERTIFICATE", "CERTIFICATE REQUEST").encode()
    weak = rsa.generate_private_key(65537, 1024)
    of_rsa = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, hashes.SHA256())
    for asked in (b"", b"nonsense", forged, of_rsa.public_bytes(Encoding.PEM)):
        with pytest.raises(ValueError):
            pki.sign(ca, asked, "n2")


def test_two_authorities_are_told_apart_by_their_fingerprints(ca: Identity) -> None:
    assert pki.fingerprint(ca.certificate) == pki.fingerprint(ca.certificate) != pki.fingerprint(pki.authority().certificate)


def test_a_token_is_read_as_it_was_written() -> None:
    token = Token("172.30.0.1:7443", "ab" * 32, "secret")
    assert Token.read(str(token)) == token


@pytest.mark.parametrize("text", ["", "x", "é", "bm9uc2Vuc2U", "WzEsMiwzXQ", "WyJhIiwiYiJd"])
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="no join token"):
        Token.read(text)
