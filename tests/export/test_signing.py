"""A signature says who vouches for a bundle; one that is wrong or missing where it must be there is never passed over."""

import base64
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from export.bundle import MANIFEST, SIGNATURE, read_bundle, write_manifest, write_signature
from export.signing import PRIVATE_KEY, PUBLIC_KEY, Signature, Trust, make_keys, sign
from schemas.errors import BundleError, FlowsentryError
from tests.bundles import make_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "bundle", "unsw-nb15")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with a pair of keys."""
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


def signed(directory: Path, keys: Path) -> Path:
    bundle = read_bundle(directory)
    return write_signature(bundle, sign(bundle.files[MANIFEST], keys / PRIVATE_KEY))


def refusal(directory: Path, trust: Trust) -> str:
    with pytest.raises(FlowsentryError) as caught:
        read_bundle(directory, trust)
    return str(caught.value)


def signature_of(directory: Path, trust: Trust) -> Signature:
    return read_bundle(directory, trust).manifest.signature


def test_a_bundle_signed_by_a_trusted_key_is_taken_and_says_by_which(bundle: Path, keys: Path, tmp_path: Path) -> None:
    key = make_keys(tmp_path / "mine")
    path = signed(bundle, tmp_path / "mine")
    assert path == bundle / SIGNATURE
    trust = Trust(tmp_path / "mine" / PUBLIC_KEY, required=True)
    assert signature_of(bundle, trust) == Signature(key, trusted=True, checked=True)
    assert str(signature_of(bundle, trust)) == f"by trusted key {key}"
    shutil.copytree(bundle, tmp_path / "elsewhere")
    assert signature_of(tmp_path / "elsewhere", trust).trusted


def test_several_keys_are_trusted_while_one_replaces_another(bundle: Path, keys: Path, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    contents = [(keys / PUBLIC_KEY).read_text()]
    for name in ("next", "other"):
        make_keys(tmp_path / name)
        contents.append(f"# {name}\n" + (tmp_path / name / PUBLIC_KEY).read_text())
    trusted.write_text("\n".join(contents))
    for folder in (keys, tmp_path / "next", tmp_path / "other"):
        signed(bundle, folder)
        assert signature_of(bundle, Trust(trusted, required=True)).trusted


def test_where_none_is_required_a_bundle_without_a_trusted_signature_is_taken_and_says_so(
    bundle: Path, keys: Path, tmp_path: Path
) -> None:
    trust = Trust(keys / PUBLIC_KEY)
    assert str(signature_of(bundle, trust)) == "none"
    key = make_keys(tmp_path / "strange")
    signed(bundle, tmp_path / "strange")
    assert str(signature_of(bundle, trust)) == f"names key {key}, which is not trusted"
    assert str(signature_of(bundle, Trust())) == f"names key {key}, not checked: no trusted keys are given"


def test_where_one_is_required_the_refusal_says_what_to_do(bundle: Path, keys: Path, tmp_path: Path) -> None:
    trust = Trust(keys / PUBLIC_KEY, required=True)
    path = bundle / SIGNATURE
    assert refusal(bundle, trust) == f"{path}: missing, and a signature is required: `python -m export sign` makes one"
    key = make_keys(tmp_path / "strange")
    signed(bundle, tmp_path / "strange")
    mine = signature_key(keys)
    assert refusal(bundle, trust) == (
        f"{path}: names key {key}, which is not among those of {trust.keys} ({mine}): "
        "sign the bundle with one of these, or add that key's public half to the file"
    )
    assert refusal(bundle, Trust(required=True)) == (
        f"{path}: a signature is required but no key is trusted: "
        "give the file of public keys (--trusted-keys, or stream.trusted_keys)"
    )


def signature_key(keys: Path) -> str:
    return sign(b"", keys / PRIVATE_KEY).split(b"\n")[0].split()[-1].decode()


@pytest.mark.parametrize("required", [True, False])
def test_a_bundle_that_was_changed_after_it_was_signed_is_refused(bundle: Path, keys: Path, required: bool) -> None:
    signature = signed(bundle, keys).read_bytes()
    content = read_bundle(bundle).manifest.content
    write_manifest(
        bundle, {key: value for key, value in content.items() if key not in ("format", "files")} | {"name": "x"}
    )
    assert not (bundle / SIGNATURE).exists()  # void
    (bundle / SIGNATURE).write_bytes(signature)
    told = f"{bundle / SIGNATURE}: not what key {signature_key(keys)} signed: bundle.json was changed after it"
    assert refusal(bundle, Trust(keys / PUBLIC_KEY, required)).startswith(told)


def test_every_changed_byte_of_a_signature_is_refused(bundle: Path, keys: Path) -> None:
    path = signed(bundle, keys)
    whole = path.read_bytes()
    trust = Trust(keys / PUBLIC_KEY, required=True)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert refusal(bundle, trust).startswith(f"{path}: "), place


def test_a_signature_under_the_name_of_a_trusted_key_that_did_not_make_it_is_refused(
    bundle: Path, keys: Path, tmp_path: Path
) -> None:
    make_keys(tmp_path / "strange")
    path = signed(bundle, tmp_path / "strange")
    _, raw = path.read_bytes().rstrip(b"\n").split(b"\n")
    path.write_bytes(b"untrusted comment: ed25519 key %s\n%s\n" % (signature_key(keys).encode(), raw))
    assert "not what key" in refusal(bundle, Trust(keys / PUBLIC_KEY))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n", b"untrusted comment: ed25519 key 0000000000000000\n", b"x" * 1000, b"\xff" * 64,
        b"untrusted comment: ed25519 key 0000000000000000\n" + base64.b64encode(b"x" * 63) + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_signature_is_refused_even_where_none_is_needed(bundle: Path, content: bytes) -> None:
    (bundle / SIGNATURE).write_bytes(content)
    assert refusal(bundle, Trust()).startswith(f"{bundle / SIGNATURE}: not a signature: the file was changed")


def test_the_private_key_is_for_its_owner_alone_and_is_never_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path)
    assert stat.S_IMODE((tmp_path / PRIVATE_KEY).stat().st_mode) == 0o600
    before = (tmp_path / PRIVATE_KEY).read_bytes()
    with pytest.raises(FileExistsError):
        make_keys(tmp_path)
    assert (tmp_path / PRIVATE_KEY).read_bytes() == before


def test_a_private_key_with_a_password_signs_with_it_alone(bundle: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "locked", b"correct horse")
    key = tmp_path / "locked" / PRIVATE_KEY
    assert b"ENCRYPTED" in key.read_bytes()
    content = read_bundle(bundle).files[MANIFEST]
    with pytest.raises(FlowsentryError, match="has a password: give it with --password-file"):
        sign(content, key)
    with pytest.raises(FlowsentryError, match="or not its password") as caught:
        sign(content, key, b"battery staple")
    assert "staple" not in str(caught.value)
    write_signature(read_bundle(bundle), sign(content, key, b"correct horse"))
    assert signature_of(bundle, Trust(tmp_path / "locked" / PUBLIC_KEY, required=True)).trusted


def test_a_password_for_a_key_that_has_none_is_told(keys: Path) -> None:
    with pytest.raises(FlowsentryError, match="has no password, but one was given"):
        sign(b"", keys / PRIVATE_KEY, b"needless")


def private_pem(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())


def public_pem(key: rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)


def test_a_key_of_another_kind_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 2048)
    key, trusted = tmp_path / "rsa.key", tmp_path / "rsa.pub"
    key.write_bytes(private_pem(other))
    trusted.write_bytes(public_pem(other.public_key()))
    with pytest.raises(FlowsentryError, match="not an ed25519 key"):
        sign(b"", key)
    assert refusal(bundle, Trust(trusted)) == (
        f"{trusted}: trusted keys: one is not an ed25519 key; `python -m export keygen --out DIR` makes a pair"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no public key in PEM form"),
        (b"ssh-ed25519 AAAA", "no public key in PEM form"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "a damaged public key"),
    ],
)
def test_a_file_of_trusted_keys_that_is_none_is_told_even_when_nothing_is_signed(
    bundle: Path, tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "trusted.pem").write_bytes(content)
    assert refusal(bundle, Trust(tmp_path / "trusted.pem")).startswith(
        f"{tmp_path / 'trusted.pem'}: trusted keys: {told}"
    )


def test_trusted_keys_that_are_missing_or_hold_a_private_key_are_told(bundle: Path, keys: Path) -> None:
    assert refusal(bundle, Trust(keys / "none")) == f"{keys / 'none'}: trusted keys: No such file or directory"
    told = f"{keys / PRIVATE_KEY}: trusted keys: holds a private key: only signing.pub belongs there"
    assert refusal(bundle, Trust(keys / PRIVATE_KEY)) == told


def test_what_is_no_private_key_is_told(keys: Path) -> None:
    with pytest.raises(FlowsentryError, match="no private key in PEM form"):
        sign(b"", keys / PUBLIC_KEY)


def test_openssl_comes_to_the_same_verdict(bundle: Path, keys: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw.sig"
    raw.write_bytes(base64.b64decode(signed(bundle, keys).read_bytes().splitlines()[-1]))
    words: list[str | Path] = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys / PUBLIC_KEY]
    words += ["-rawin", "-sigfile", raw, "-in"]
    assert subprocess.run([*words, bundle / MANIFEST], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*words, bundle / "model.onnx"], capture_output=True, check=False).returncode != 0


def test_an_error_of_a_signature_is_one_of_the_bundle(bundle: Path, keys: Path) -> None:
    with pytest.raises(BundleError):
        read_bundle(bundle, Trust(keys / PUBLIC_KEY, required=True))
