"""Which tokens are believed, and what they say: keys, algorithms, claims, and the settings that name the keys."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from gateway.access.tokens import LEEWAY, Tokens, make_token, profile_of
from gateway.config import load
from gateway.connections.connection import Profile
from gateway.errors import GatewayError, InvalidSettings, Unauthorized

SECRET = "a secret of more than thirty-two bytes"
NOW = 1_700_000_000.0

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
EC_384 = ec.generate_private_key(ec.SECP384R1())
ED = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {"RS256": RSA, "ES256": EC, "ES384": EC_384, "EdDSA": ED}


def pem(key: Any) -> str:
    """Write the public part of a key."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(key: Any) -> str:
    """Write a whole key."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwk(key: Any, **fields: Any) -> dict[str, Any]:
    """Write the public part of a key as a JWK."""
    kinds = ((rsa.RSAPublicKey, RSAAlgorithm), (ec.EllipticCurvePublicKey, ECAlgorithm))
    public = key.public_key()
    kind: Any = next((kind for type, kind in kinds if isinstance(public, type)), OKPAlgorithm)
    return kind.to_jwk(public, as_dict=True) | fields


def raw(header: Mapping[str, Any], claims: Any, signature: bytes = b"") -> str:
    """Put a token together by hand."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def token(claims: Mapping[str, Any] | None = None, key: Any = SECRET, algorithm: str = "HS256", **header: Any) -> str:
    """Sign a token as another program would."""
    return jwt.encode(dict(claims or {"sub": "ada"}), key, algorithm, headers=header)


async def verified(given: str, **settings: Any) -> Profile:
    """Check a token by these settings."""
    return await Tokens(load(**settings)).verify(given)


async def refusal(given: str, **settings: Any) -> str:
    """Check a token that is refused; return why. Nothing of the token is in it."""
    with pytest.raises(Unauthorized) as raised:
        await verified(given, **settings)
    said = str(raised.value)
    assert said.isprintable()
    assert not any(part and part in said for part in given.split("."))
    return said


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests' own environment says of the gateway does not count."""
    for name in [name for name in os.environ if name.upper().startswith("GATEWAY_")]:
        monkeypatch.delenv(name)


class TestKeys:
    async def test_a_secret_is_for_hs256(self) -> None:
        """And tells who it is."""
        claims = {"sub": "42", "name": "Ada", "channels": ["lobby", "team-*"], "exp": 4_000_000_000}
        expected = Profile("42", "Ada", ("lobby", "team-*"), 4_000_000_000)
        assert await verified(token(claims), jwt_secret=SECRET) == expected

    @pytest.mark.parametrize("algorithm", PRIVATE)
    async def test_a_public_key_decides_the_algorithm(self, algorithm: str) -> None:
        """By its kind."""
        key = PRIVATE[algorithm]
        given = token(key=key, algorithm=algorithm)
        assert (await verified(given, jwt_public_key=pem(key))).id == "ada"

    async def test_a_public_key_may_be_a_file_or_one_line(self, tmp_path: Path) -> None:
        """As a mounted secret, or in an environment variable that takes no line ends."""
        file = tmp_path / "key.pem"
        file.write_text(pem(EC))
        for given in (str(file), pem(EC).replace("\n", "\\n")):
            assert (await verified(token(key=EC, algorithm="ES256"), jwt_public_key=given)).id == "ada"

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    async def test_another_algorithm_of_the_same_secret_is_refused(self, algorithm: str) -> None:
        """The key's own counts, not what the token names."""
        given = token(key=SECRET * 2, algorithm=algorithm)
        assert "signed" in await refusal(given, jwt_secret=SECRET * 2)

    @pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, 1, ["HS256"], {}])
    async def test_no_signature_is_no_signature(self, algorithm: Any) -> None:
        """With a secret, a public key and a set alike."""
        for signature in (b"", b"x"):
            given = raw({"alg": algorithm, "typ": "JWT"}, {"sub": "ada"}, signature)
            await refusal(given, jwt_secret=SECRET)
            await refusal(given, jwt_public_key=pem(RSA))
        await refusal(raw({}, {"sub": "ada"}), jwt_secret=SECRET)

    @pytest.mark.parametrize("key", [RSA, EC, ED], ids=["RSA", "EC", "Ed25519"])
    async def test_a_public_key_is_not_a_secret(self, key: Any, tmp_path: Path) -> None:
        """Who knows the public key cannot sign with it as if it were one."""
        import hashlib
        import hmac

        text = pem(key)
        for secret in (text.encode(), text.strip().encode(), text.replace("\n", "\\n").encode()):
            unsigned = raw({"alg": "HS256"}, {"sub": "ada"}).rpartition(".")[0]
            mac = hmac.new(secret, unsigned.encode(), hashlib.sha256).digest()
            given = f"{unsigned}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
            await refusal(given, jwt_public_key=text)
            (tmp_path / "set").write_text(json.dumps({"keys": [jwk(key, kid="1")]}))
            await refusal(given, jwks_file=str(tmp_path / "set"))

    async def test_somebody_else_s_signature_is_refused(self) -> None:
        """Of the same kind, or changed on the way."""
        assert "signed" in await refusal(token(key="x" * 40), jwt_secret=SECRET)
        assert "signed" in await refusal(token(key=OTHER_RSA, algorithm="RS256"), jwt_public_key=pem(RSA))
        header, payload, signature = token({"sub": "ada"}).split(".")
        changed = base64.urlsafe_b64encode(b'{"sub":"bob"}').rstrip(b"=").decode()
        assert "signed" in await refusal(f"{header}.{changed}.{signature}", jwt_secret=SECRET)
        await refusal(f"{header}.{payload}.{signature[:-2]}", jwt_secret=SECRET)
        await refusal(f"{header}.{payload}.", jwt_secret=SECRET)

    @pytest.mark.parametrize(
        "given",
        [
            *(
                "rubbish",
                ".",
                "..",
                "...",
                "a.b",
                "a.b.c",
                "é.é.é",
                "\udcff.\udcff.\udcff",
                "e30.e30.e30",
                "x" * 60_000,
            ),
            *(
                raw({"alg": "HS256", "crit": ["exp"]}, {"sub": "ada"}),
                raw({"alg": "HS256", "b64": False}, {"sub": "ada"}),
            ),
            *(raw({"alg": "HS256", "kid": 5}, {}), raw({"alg": "HS256"}, [])),
            "W10." * 2 + "W10",
            base64.urlsafe_b64encode(b"[" * 30_000).decode() + ".e30.e30",
        ],
        ids=lambda given: ascii(given)[:20],
    )
    async def test_what_is_no_token_is_refused(self, given: str) -> None:
        """Whatever it is."""
        with pytest.raises(Unauthorized):
            await verified(given, jwt_secret=SECRET)

    async def test_signed_rubbish_is_refused(self) -> None:
        """Claims that are no JSON object."""
        jws = jwt.PyJWS()
        for payload in (b"[]", b'"ada"', b"rubbish", b"\xff", b"", b'{"sub":"ada","exp":NaN}', b"[" * 30_000):
            await refusal(jws.encode(payload, SECRET, "HS256"), jwt_secret=SECRET)

    async def test_several_settings_are_all_accepted(self, tmp_path: Path) -> None:
        """So that one can be replaced by another while old tokens are still about."""
        (tmp_path / "set").write_text(json.dumps({"keys": [jwk(ED, kid="e")]}))
        settings = {"jwt_secret": SECRET, "jwt_public_key": pem(RSA), "jwks_file": str(tmp_path / "set")}
        for given in (token(), token(key=RSA, algorithm="RS256"), token(key=ED, algorithm="EdDSA", kid="e")):
            assert (await verified(given, **settings)).id == "ada"
        await refusal(token(key=EC, algorithm="ES256"), **settings)

    async def test_without_a_key_no_token_is_taken(self) -> None:
        """And nobody is asked for one."""
        assert not Tokens(load()).expected
        await refusal(token())

    async def test_a_short_secret_works_and_is_complained_of(self, caplog: pytest.LogCaptureFixture) -> None:
        """Once, and without saying it."""
        with pytest.warns(jwt.warnings.InsecureKeyLengthWarning):
            given = token(key="short")
        tokens = Tokens(load(jwt_secret="short"))
        assert (await tokens.verify(given)).id == (await tokens.verify(given)).id == "ada"
        assert [record.getMessage() for record in caplog.records] == [
            "jwt_secret: 5 bytes can be guessed, 32 or more cannot"
        ]


class TestSet:
    @pytest.fixture
    def write(self, tmp_path: Path) -> Callable[..., str]:
        """Writes a JWK set, as by hand or in one step; returns its path."""

        def write(*keys: Any, text: str | None = None) -> str:
            new = tmp_path / "new"
            new.write_text(json.dumps({"keys": keys}) if text is None else text)
            return str(new.replace(tmp_path / "set.json"))

        return write

    async def test_the_kid_picks_the_key(self, write: Callable[..., str]) -> None:
        """Of several of one kind; a token without one may be of any, one with an unknown one is of none."""
        file = write(jwk(RSA, kid="1"), jwk(OTHER_RSA, kid="2"), jwk(EC, kid="3"), jwk(ED, kid="4"))
        for kid, key, algorithm in (("1", RSA, "RS256"), ("2", OTHER_RSA, "RS256"), ("3", EC, "ES256")):
            assert (await verified(token(key=key, algorithm=algorithm, kid=kid), jwks_file=file)).id == "ada"
            assert (await verified(token(key=key, algorithm=algorithm), jwks_file=file)).id == "ada"
        for kid in ("1", "3", "9", ""):
            await refusal(token(key=OTHER_RSA, algorithm="RS256", kid=kid), jwks_file=file)

    async def test_a_key_may_name_its_algorithm(self, write: Callable[..., str]) -> None:
        """Which is then the only one."""
        file = write(jwk(RSA, kid="1", alg="RS512"))
        assert (await verified(token(key=RSA, algorithm="RS512", kid="1"), jwks_file=file)).id == "ada"
        await refusal(token(key=RSA, algorithm="RS256", kid="1"), jwks_file=file)

    async def test_what_is_not_understood_is_left_out(self, write: Callable[..., str]) -> None:
        """RFC 7517 section 5; keys for encryption, too."""
        others = [
            {"kty": "XYZ"},
            {},
            5,
            None,
            {"kty": "oct"},
            {"kty": "RSA", "n": 5},
            jwk(OTHER_RSA, kid="1", use="enc"),
        ]
        others += [jwk(EC, kid="1") | {"x": "AA"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}]
        file = write(*others, jwk(RSA, kid="1", use="sig"))
        assert (await verified(token(key=RSA, algorithm="RS256", kid="1"), jwks_file=file)).id == "ada"
        await refusal(token(key=OTHER_RSA, algorithm="RS256", kid="1"), jwks_file=file)

    async def test_keys_rotate_without_a_restart(self, write: Callable[..., str]) -> None:
        """The next token is checked by what the file says then."""
        tokens = Tokens(load(jwks_file=write(jwk(RSA, kid="1"))))
        old, new = token(key=RSA, algorithm="RS256", kid="1"), token(key=EC, algorithm="ES256", kid="2")
        assert (await tokens.verify(old)).id == "ada"
        with pytest.raises(Unauthorized):
            await tokens.verify(new)
        write(jwk(RSA, kid="1"), jwk(EC, kid="2"))
        assert (await tokens.verify(old)).id == (await tokens.verify(new)).id == "ada"
        write(jwk(EC, kid="2"))
        assert (await tokens.verify(new)).id == "ada"
        with pytest.raises(Unauthorized):
            await tokens.verify(old)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"keys": []}', '{"keys": {}}', '{"keys": [{}]}'])
    async def test_a_broken_file_leaves_the_old_keys_in_force(
        self, write: Callable[..., str], caplog: pytest.LogCaptureFixture, text: str
    ) -> None:
        """And is complained of once; when it is whole again it counts again."""
        tokens = Tokens(load(jwks_file=write(jwk(RSA, kid="1"))))
        old, new = token(key=RSA, algorithm="RS256", kid="1"), token(key=EC, algorithm="ES256", kid="2")
        write(text=text)
        for _ in range(3):
            assert (await tokens.verify(old)).id == "ada"
        assert ["stay in force" in record.getMessage() for record in caplog.records] == [True]
        write(jwk(EC, kid="2"))
        assert (await tokens.verify(new)).id == "ada"

    async def test_a_file_that_is_gone_leaves_the_old_keys_in_force(
        self, write: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Until it is back."""
        file = write(jwk(RSA, kid="1"))
        tokens = Tokens(load(jwks_file=file))
        Path(file).unlink()
        for _ in range(3):
            assert (await tokens.verify(token(key=RSA, algorithm="RS256", kid="1"))).id == "ada"
        assert len(caplog.records) == 1


WRONG_SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "a key as secret": ({"jwt_secret": pem(RSA)}, "jwt_secret"),
    "a private key as secret": ({"jwt_secret": private_pem(RSA)}, "jwt_secret"),
    "a private key": ({"jwt_public_key": private_pem(EC)}, "jwt_public_key"),
    "no key": ({"jwt_public_key": "-----BEGIN PUBLIC KEY-----\nrubbish\n-----END PUBLIC KEY-----"}, "jwt_public_key"),
    "a short RSA key": (
        {"jwt_public_key": pem(rsa.generate_private_key(public_exponent=65537, key_size=1024))},
        "jwt_public_key",
    ),
    "an unknown curve": ({"jwt_public_key": pem(ec.generate_private_key(ec.SECP224R1()))}, "jwt_public_key"),
    "an unknown kind": ({"jwt_public_key": pem(ed448.Ed448PrivateKey.generate())}, "jwt_public_key"),
    "no such key file": ({"jwt_public_key": "/nowhere/key.pem"}, "jwt_public_key"),
    "a folder as key file": ({"jwt_public_key": "/"}, "jwt_public_key"),
    "a secret as key": ({"jwt_public_key": SECRET}, "jwt_public_key"),
    "a NUL in the path": ({"jwt_public_key": "a\0b"}, "jwt_public_key"),
    "no such set": ({"jwks_file": "/nowhere/set.json"}, "jwks_file"),
    "a folder as set": ({"jwks_file": "/tmp"}, "jwks_file"),
    "a NUL in the path of a set": ({"jwks_file": "a\0b"}, "jwks_file"),
}
WRONG_SETS = {
    "empty": "",
    "no JSON": "{",
    "no object": "[]",
    "no keys": '{"keys": []}',
    "only unknown keys": '{"keys": [{"kty": "XYZ"}]}',
    "a private key": json.dumps({"keys": [ECAlgorithm.to_jwk(EC, as_dict=True) | {"kid": "a\x1b[31m"}]}),
    "a short RSA key": json.dumps(
        {"keys": [jwk(rsa.generate_private_key(public_exponent=65537, key_size=1024), kid="1")]}
    ),
}


class TestSettings:
    def one_line(self, settings: Mapping[str, Any]) -> str:
        """Start with wrong settings; return what is said, which gives no value away."""
        with pytest.raises(InvalidSettings) as raised:
            Tokens(load(**settings))
        line = str(raised.value)
        assert line.isprintable()
        assert len(line) < 200
        assert not any(str(value) in line for name, value in settings.items() if name != "jwks_file")
        return line

    @pytest.mark.parametrize("what", WRONG_SETTINGS)
    def test_a_wrong_key_is_one_line_that_names_the_setting(self, what: str) -> None:
        """And not the key, which may be a secret in the wrong place."""
        settings, name = WRONG_SETTINGS[what]
        assert self.one_line(settings).startswith(f"{name}: expected ")

    @pytest.mark.parametrize("what", WRONG_SETS)
    def test_a_wrong_set_is_one_line(self, what: str, tmp_path: Path) -> None:
        """When the node starts."""
        (tmp_path / "set").write_text(WRONG_SETS[what])
        assert self.one_line({"jwks_file": str(tmp_path / "set")}).startswith("jwks_file: expected ")

    @pytest.mark.parametrize("setting", ["jwt_secret", "jwt_public_key", "jwks_file"])
    def test_an_empty_key_is_a_mistake(self, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable that was left empty would let everybody in."""
        monkeypatch.setenv(f"GATEWAY_{setting.upper()}", "")
        with pytest.raises(InvalidSettings) as raised:
            load()
        assert str(raised.value).startswith(f"{setting}: expected some key")

    def test_a_secret_of_the_wrong_type_is_not_shown(self) -> None:
        """From a configuration file, say."""
        with pytest.raises(InvalidSettings) as raised:
            load(jwt_secret=["hush"], jwt_public_key={"a": "hush"})
        assert "jwt_secret: " in str(raised.value)
        assert "hush" not in str(raised.value)
        assert "allow_anonymous" not in str(raised.value)

    def test_settings_do_not_show_their_secrets(self) -> None:
        """In a traceback or a log."""
        assert "hush" not in repr(load(jwt_secret="hush", jwt_public_key="hush"))

    @pytest.mark.parametrize("setting", ["jwt_secret", "jwt_public_key", "jwks_file"])
    def test_anonymous_clients_are_let_in_until_there_is_a_key(self, setting: str) -> None:
        """Or where that is said."""
        assert load().allow_anonymous
        assert not load(**{setting: "x"}).allow_anonymous
        assert load(**{setting: "x", "allow_anonymous": "true"}).allow_anonymous
        assert not load(allow_anonymous="false").allow_anonymous


def at(seconds: float) -> timedelta:
    """A time that is so many seconds after the test looks at the clock."""
    return timedelta(seconds=seconds)


def dated(claims: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Replace what `at` has noted by times."""
    return {
        name: now + value.total_seconds() if isinstance(value, timedelta) else value for name, value in claims.items()
    }


WRONG_CLAIMS: dict[str, list[Any]] = {
    "sub": [None, "", 42, "a b", "a*", "a\n", "x" * 201, ["ada"], "\x1b[31m"],
    "exp": [at(-LEEWAY), 0, -1, "4000000000", True, None, [], float("inf"), 1e999],
    "nbf": [at(LEEWAY + 60), "0", False, None, {}, float("nan")],
    "iat": [at(LEEWAY + 60), "0", False, None],
    "name": [5, ["Ada"], {}, True],
    "channels": [None, "lobby", {}, 5, [5], ["a b"], [""], [None], ["?"]],
}


class TestClaims:
    @pytest.mark.parametrize(
        ("claims", "profile"),
        [
            ({"sub": "ada"}, Profile("ada")),
            ({"sub": "ada", "name": None}, Profile("ada")),
            ({"sub": "ada", "name": "x" * 300}, Profile("ada", "x" * 100)),
            ({"sub": "ada", "channels": []}, Profile("ada", channels=())),
            ({"sub": "ada", "channels": ["*"]}, Profile("ada", channels=("*",))),
            ({"sub": "ada", "nbf": at(LEEWAY - 1), "iat": at(LEEWAY - 1)}, Profile("ada")),
            (
                {"sub": "ada", "nbf": 0, "iat": 0, "jti": 5, "aud": "whoever", "iss": "them", "role": "x"},
                Profile("ada"),
            ),
            ({"sub": "é" * 100}, Profile("é" * 100)),
        ],
        ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
    )
    async def test_claims_that_are_accepted(self, claims: dict[str, Any], profile: Profile) -> None:
        """With ten seconds for clocks that differ."""
        assert await verified(token(dated(claims, time.time())), jwt_secret=SECRET) == profile

    @pytest.mark.parametrize(("expires", "closed"), [(60, 60), (0.5, 0.5), (0, LEEWAY), (1 - LEEWAY, 1)])
    def test_when_a_connection_is_closed(self, expires: float, closed: float) -> None:
        """What is let in late has the rest of the ten seconds."""
        assert profile_of({"sub": "ada", "exp": NOW + expires}, NOW) == Profile("ada", expires=NOW + closed)

    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"name": "Ada"},
            *({"sub": "ada"} | {name: value} for name, values in WRONG_CLAIMS.items() for value in values),
        ],
        ids=str,
    )
    async def test_claims_that_are_refused(self, claims: dict[str, Any]) -> None:
        """Each with a line that can be shown."""
        given = jwt.PyJWS().encode(json.dumps(dated(claims, time.time())).encode(), SECRET, "HS256")
        assert (await refusal(given, jwt_secret=SECRET)).isprintable()

    async def test_an_audience_and_an_issuer_may_be_asked_for(self) -> None:
        """Where keys are shared with other services."""
        settings = {"jwt_secret": SECRET, "jwt_audience": "chat", "jwt_issuer": "https://id.example"}
        right = {"sub": "ada", "aud": "chat", "iss": "https://id.example"}
        assert (await verified(token(right), **settings)).id == "ada"
        assert (await verified(token(right | {"aud": ["mail", "chat"]}), **settings)).id == "ada"
        for wrong in (
            {"aud": "mail"},
            {"aud": ["mail"]},
            {"aud": None},
            {"iss": "https://evil.example"},
            {"iss": None},
        ):
            await refusal(token({name: value for name, value in (right | wrong).items() if value}), **settings)


class TestMaking:
    async def test_a_token_that_is_made_is_accepted(self) -> None:
        """By a node with the same secret."""
        made = make_token(SECRET, "ada", name="Ada", channels=["team-*"], seconds=60, now=4_000_000_000)
        assert jwt.decode(made, SECRET, ["HS256"], options={"verify_iat": False}) == {
            "sub": "ada",
            "name": "Ada",
            "channels": ["team-*"],
            "iat": 4_000_000_000,
            "exp": 4_000_000_060,
        }
        assert (await verified(make_token(SECRET, "ada", now=NOW), jwt_secret=SECRET)) == Profile("ada")

    def test_a_token_that_nobody_would_accept_is_not_made(self) -> None:
        """What is wrong with it is said."""
        for wrong in (
            {"user": "a b"},
            {"user": ""},
            {"user": "ada", "channels": ["a b"]},
            {"user": "ada", "seconds": -60},
        ):
            with pytest.raises(GatewayError):
                make_token(SECRET, **wrong, now=NOW)
