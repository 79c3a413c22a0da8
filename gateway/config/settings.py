"""Settings: one name in four places (command line, environment, TOML file, this class).

The environment is read here and nowhere else. What is given on the command line wins over the
environment, the environment over the file, the file over the defaults.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.config.origins import as_browsers_write
from gateway.config.redis_url import RedisAddress
from gateway.config.rules import Rule, Rules, first_match, parsed
from gateway.errors import InvalidSettings
from gateway.protocol.message import NAME_RULE, is_name

ENVIRONMENT_PREFIX = "GATEWAY_"
BYTE_RATE = 1 << 20
UNIX: Literal["unix"] = "unix"
"""Names, among the proxies that are trusted, whoever comes over a socket in the file system: it has no address."""
REDIS_SCHEMES = (
    "memory",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)


def _split(value: object) -> object:
    """Read a list as people write it in one string: JSON, or separated by commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return parsed(value)
    return [part.strip() for part in value.split(",") if part.strip()]


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _own_name() -> str:
    """Name this node after its host, and so that two on one host differ."""
    host = "".join(c if c.isalnum() or c in "-_." else "-" for c in socket.gethostname())
    return f"{host[:60]}-{secrets.token_hex(3)}"


SECRET_LENGTH = 16
JWT_SETTINGS = ("jwt_secret", "jwt_public_key", "jwks_file")
"""Any of these has tokens asked for; with several, a token may be signed by the key of any."""


def _some_key(given: str) -> str:
    """Refuse an empty key: a variable that was left empty by mistake must not let everybody in."""
    if not given:
        raise ValueError("expected some key; leave the setting out to ask nobody for a token")
    return given


Unasked = Annotated[str, AfterValidator(_some_key), Field(validate_default=False)]
"""A key of tokens, empty where no such token is asked for: only as the default."""


def _without_keys(given: dict[str, Any]) -> bool:
    """Let in who shows no token until there is a key that a token could be checked with."""
    return not any(given.get(name) for name in JWT_SETTINGS)


def _beside_messages(given: dict[str, Any]) -> int:
    """Whoever lets clients send as many messages as they like means their bytes, too, unless he says so."""
    return BYTE_RATE if given.get("message_rate") and given.get("message_burst") else 0


class Settings(BaseSettings):
    """How a node behaves. Sizes are in bytes, times in seconds; 0 switches a limit off. Never changes once made.

    What is not given as an argument is read from the environment (`GATEWAY_NAME`), then from the TOML file named by
    `GATEWAY_CONFIG`, else it is the default; the `description` of each field says what it means. A wrong value raises
    pydantic's `ValidationError` here, and `InvalidSettings` in one line from `setup(app, name=value)`.
    """

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True, allow_inf_nan=False)

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes any free one")
    redis_url: str = Field(
        default="memory://", description="the Redis that joins the nodes; memory:// is one node alone"
    )
    workers: int = Field(
        default=1, ge=1, description="processes that share the port, each a node; several need a Redis"
    )
    prefix: str = Field(
        default="gateway",
        description="first part of every Redis key and topic, for this cluster alone: topics know no databases",
    )
    cluster_secret: str = Field(
        default="",
        repr=False,
        description="what nodes and publishers sign with that command nodes; without it whoever writes to Redis can",
    )
    node_id: str = Field(
        default="",
        validate_default=False,
        description="name of this node, unique in the cluster (default: host name and something random)",
    )
    handler: str = Field(
        default="gateway.server.demo.chat:DemoHandler", description="your handler: module:Class, module:router"
    )
    trusted_proxies: Names = Field(
        default=(),
        description="addresses or networks of proxies whose X-Forwarded-For counts, or unix",
    )
    allowed_origins: Names = Field(default=(), description="origins allowed to connect beside the node's own; * is any")
    jwt_secret: Unasked = Field(default="", repr=False, description="secret of tokens signed with HS256")
    jwt_public_key: Unasked = Field(
        default="", repr=False, description="public key of tokens (RSA, EC, Ed25519): PEM or a file"
    )
    jwks_file: Unasked = Field(
        default="", description="file with a JWK set of keys of tokens; read again when it changes"
    )
    jwt_audience: str = Field(default="", description="audience that tokens must name (aud)")
    jwt_issuer: str = Field(default="", description="issuer that tokens must name (iss)")
    allow_anonymous: bool = Field(
        default_factory=_without_keys,
        description="whether who shows no token may connect (default: until there is a key for tokens)",
    )
    api_key: str = Field(
        default="", repr=False, description="key that programs show to the server API; without one it is off"
    )
    admin_password: str = Field(
        default="",
        repr=False,
        description="password of the admin pages; without one a node on loopback prints a link",
    )
    max_message_bytes: int = Field(default=65536, ge=0, description="largest message a client may send")
    max_connections: int = Field(default=0, ge=0, description="connections this node holds at most")
    max_channels_per_connection: int = Field(default=128, ge=0, description="channels one connection may be in")
    max_connections_per_user: int = Field(
        default=0, ge=0, description="connections a user may have in the whole cluster"
    )
    presence_max: int = Field(
        default=1000, ge=0, description="online users up to which a channel announces each by name"
    )
    presence_grace: float = Field(
        default=0, ge=0, description="how long a user whose connection was lost may take to return"
    )
    message_rate: float = Field(default=100, ge=0, description="messages a second that a client may send")
    message_burst: int = Field(default=200, ge=0, description="messages that a client may send at once")
    byte_rate: int = Field(
        default_factory=_beside_messages,
        ge=0,
        description="bytes a second that a client may send and be answered with (default: 1 MiB, unless message_rate "
        "or message_burst is 0)",
    )
    handshake_timeout: float = Field(default=5, ge=0, description="how long a client may take to send its request")
    compression: bool = Field(
        default=False, description="whether messages are compressed for clients that offer to read that"
    )
    abuse_limit: int = Field(default=100, ge=0, description="refused messages a minute that end a connection")
    outbox_bytes: int = Field(
        default=1 << 20, ge=0, description="what may wait for one slow reader, and the largest answer of a handler"
    )
    publish_queue: int = Field(default=10_000, ge=0, description="messages that may wait for Redis")
    publish_queue_bytes: int = Field(default=64 << 20, ge=0, description="bytes of messages that may wait for Redis")
    publish_timeout: float = Field(default=10, gt=0, description="how long a write or a join waits for Redis")
    history_total_bytes: int = Field(
        default=512 << 20, ge=0, description="bytes that all histories may take which this node writes to"
    )
    heartbeat: float = Field(default=25, ge=0, description="time between pings to a client")
    drain_seconds: float = Field(
        default=20, ge=0, description="how long a stopping node takes to close its connections"
    )
    drain_pause: float = Field(
        default=2, ge=0, description="how long at most a stopping node waits for balancers before it closes connections"
    )
    startup_timeout: float = Field(default=30, gt=0, description="how long a starting node waits for Redis")
    channels: Rules = Field(default=(), description="rules for channels, as JSON; the first whose match fits counts")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="how much is logged")
    log_format: Literal["text", "json"] = Field(default="text", description="lines for people, or an object a line")
    tracing: bool = Field(default=False, description="whether OpenTelemetry traces are made; needs gateway[otel]")

    @cached_property
    def rule(self) -> Callable[[str], Rule]:
        """Find the rule of a channel: the first that matches. Cheap for a channel it was asked for before."""
        return first_match(self.channels)

    def named(self) -> Self:
        """Return these settings with a name for the node, made up where none was given.

        For a process that will not fork any more: two with one name would be taken for one.
        """
        return self if self.node_id else self.model_copy(update={"node_id": _own_name()})

    @cached_property
    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network | Literal["unix"], ...]:
        """Where the proxies are that may say who is behind them."""
        return tuple(UNIX if proxy == UNIX else ip_network(proxy) for proxy in self.trusted_proxies)

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in proxies:
            if proxy != UNIX:
                ip_network(proxy)
        return proxies

    @field_validator("allowed_origins")
    @classmethod
    def _as_browsers_write_them(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(as_browsers_write, origins))

    @field_validator("port", mode="before")
    @classmethod
    def _no_service(cls, port: object) -> object:
        if isinstance(port, str) and port.startswith("tcp://"):
            raise ValueError(
                "expected a number; Kubernetes sets this for a Service, unless enableServiceLinks is false"
            )
        return port

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        scheme, separator, _ = url.partition("://")
        if not separator or scheme not in REDIS_SCHEMES:
            expected = ", ".join(f"{known}://" for known in REDIS_SCHEMES)
            raise ValueError(f"expected a URL that begins with one of {expected}")
        RedisAddress.parse(url)
        return url

    @field_validator("workers")
    @classmethod
    def _have_a_redis(cls, workers: int, already: ValidationInfo) -> int:
        if workers > 1 and already.data.get("redis_url", "").startswith("memory:"):
            raise ValueError("more than one needs a Redis that joins them: set redis_url")
        return workers

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, key: str) -> str:
        if not re.fullmatch(r"[!-~]*", key):
            raise ValueError("expected visible ASCII characters without spaces")
        return key

    @field_validator("cluster_secret")
    @classmethod
    def _cannot_be_guessed(cls, secret: str) -> str:
        if 0 < len(secret) < SECRET_LENGTH:
            raise ValueError(f"expected at least {SECRET_LENGTH} characters, such as `openssl rand -hex 32` prints")
        return secret

    @field_validator("node_id", "prefix")
    @classmethod
    def _legal_name(cls, name: str) -> str:
        if not is_name(name) or "~" in name:
            raise ValueError(f"expected {NAME_RULE}, and no ~")
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, readable(file))


def readable(path: str) -> Path:
    """Return where a configuration file is. Raises `InvalidSettings`."""
    file = Path(path)
    if not file.is_file():
        raise InvalidSettings(f"config: expected a TOML file, found none at {path}")
    return file
