"""Reads keys, and checks JSON Web Tokens with them through PyJWT: the signature, then times, audience and issuer.

Plain functions; reading a file is left to the caller.

The algorithm is the key's. A token names one, but is only tried with keys that have that very one: it cannot
choose (no `none`, no public key taken for a secret). Imported where there is a key, since it loads OpenSSL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK, PyJWS, PyJWT
from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from gateway.errors import Unauthorized

RSA_BITS = 2048
"""The least that RFC 7518 section 3.3 allows."""
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}


@dataclass(frozen=True, slots=True)
class Key:
    """What signatures are checked with, and the one algorithm it is for."""

    algorithm: str
    value: Any
    id: str | None = None
    """The `kid` of a token that this key has signed; None where only one key is in use."""


class _Secret(HMACAlgorithm):
    """Takes secrets as they are: of a short one the node speaks once, when it starts, and not for each token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        return key.encode() if isinstance(key, str) else key

    def check_key_length(self, key: bytes) -> str | None:
        return None


def _signatures() -> PyJWS:
    found = PyJWS()
    for name, hash in (("HS256", _Secret.SHA256), ("HS384", _Secret.SHA384), ("HS512", _Secret.SHA512)):
        found.unregister_algorithm(name)
        found.register_algorithm(name, _Secret(hash))
    found.unregister_algorithm("none")
    return found


_SIGNATURES = _signatures()
_CLAIMS = PyJWT()
_REASONS: dict[type[PyJWTError], str] = {
    ExpiredSignatureError: "the token has expired",
    ImmatureSignatureError: "the token is not valid yet",
    InvalidAudienceError: "the token is for another audience",
    InvalidIssuerError: "the token is from another issuer",
}


# ---- keys


def read_secret(text: str) -> Key:
    """Make the key for HS256. Raises `ValueError`, without the secret in its text."""
    if "-----BEGIN " in text:
        raise ValueError("expected a secret, got a key in PEM: that is for jwt_public_key")
    return Key("HS256", text.encode())


def read_pem(text: str) -> Key:
    """Read a public key, of which the kind decides the algorithm. Raises `ValueError`."""
    if "PRIVATE KEY-----" in text:
        raise ValueError("expected a public key, got a private one")
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("expected a public key in PEM (-----BEGIN PUBLIC KEY-----)") from None
    if isinstance(key, RSAPublicKey):
        return _strong(Key("RS256", key))
    if isinstance(key, EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return Key(_CURVES[key.curve.name], key)
    if isinstance(key, Ed25519PublicKey):
        return Key("EdDSA", key)
    raise ValueError("expected an RSA key, an EC key on P-256, P-384 or P-521, or an Ed25519 key")


def read_set(text: bytes) -> list[Key]:
    """Read a JWK set; keys of unknown kinds, or for encryption, are left out. Raises `ValueError`."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"expected a JWK set in JSON: {error}") from None
    listed = fields.get("keys") if isinstance(fields, dict) else None
    if not isinstance(listed, list):
        raise ValueError('expected a JWK set, {"keys": [...]}')
    keys = [key for jwk in listed if isinstance(jwk, dict) and (key := _key_of(jwk)) is not None]
    if not keys:
        raise ValueError("expected a key that checks signatures, found none")
    return keys


def _key_of(jwk: dict[str, Any]) -> Key | None:
    if jwk.get("use", "sig") != "sig":
        return None
    try:
        read = PyJWK(jwk)
    except (PyJWTError, ValueError, TypeError, KeyError, AttributeError):  # it looks into what it does not check
        return None
    id = jwk.get("kid")
    if hasattr(read.key, "private_bytes"):
        raise ValueError(f"expected public keys, got the private one of kid {id!a}")
    return _strong(Key(read.algorithm_name, read.key, id if isinstance(id, str) else None))


def _strong(key: Key) -> Key:
    if isinstance(key.value, RSAPublicKey) and key.value.key_size < RSA_BITS:
        raise ValueError(f"expected an RSA key of {RSA_BITS} bits or more, got {key.value.key_size}")
    return key


# ---- tokens


def claims_of(
    token: str, keys: Iterable[Key], *, audience: str = "", issuer: str = "", leeway: float = 0
) -> dict[str, Any]:
    """Return what a token claims, if one of these keys has signed it, and it is valid now, and meant for us.

    `leeway` is in seconds. An empty `audience` or `issuer` asks for none. Raises `Unauthorized`, with nothing of the
    token in its text.
    """
    try:
        claims = _claims(_signed(token, keys))
        _check(token, audience, issuer, leeway)
    except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise Unauthorized("expected a JSON Web Token, got something else") from None
    return claims


def _signed(token: str, keys: Iterable[Key]) -> bytes:
    """Return the payload that one of the keys has signed."""
    header = _SIGNATURES.get_unverified_header(token)
    for key in _fitting(keys, header):
        try:
            payload: bytes = _SIGNATURES.decode(token, key.value, algorithms=[key.algorithm])
        except InvalidSignatureError:
            continue
        return payload
    raise Unauthorized("the token is signed by nobody known here")


def _check(token: str, audience: str, issuer: str, leeway: float) -> None:
    """Check times and parties (RFC 7519 section 4.1) of a token whose signature has been checked."""
    try:
        _CLAIMS.decode(
            token,
            options={
                "verify_signature": False,  # has been, and that switches all other checks off
                "verify_exp": True,
                "verify_nbf": True,
                "verify_iat": True,
                "verify_aud": bool(audience),
                "verify_iss": bool(issuer),
                "require": ["sub"],
            },
            audience=audience or None,
            issuer=issuer or None,
            leeway=leeway,
        )
    except MissingRequiredClaimError as error:
        raise Unauthorized(f"expected the claim {error.claim}") from None
    except tuple(_REASONS) as error:
        raise Unauthorized(_REASONS[type(error)]) from None


def _fitting(keys: Iterable[Key], header: Mapping[str, Any]) -> list[Key]:
    """Return the keys that may have signed: a token's `kid` narrows them down, where both have one."""
    algorithm, id = header.get("alg"), header.get("kid")
    return [key for key in keys if key.algorithm == algorithm and (id is None or key.id in (None, id))]


def _claims(payload: bytes) -> dict[str, Any]:
    claims = orjson.loads(payload)
    if not isinstance(claims, dict):
        raise ValueError
    return claims


def sign(claims: Mapping[str, object], secret: str) -> str:
    """Make a token that a node with this secret accepts. Raises `ValueError` for what is no secret."""
    return _SIGNATURES.encode(orjson.dumps(claims), read_secret(secret).value, "HS256")
