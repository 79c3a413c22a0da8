"""Where settings come from, how each is shown, and what is said of a wrong one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource, TomlConfigSettingsSource

from gateway.config.redis_url import HIDDEN, without_password
from gateway.config.rules import Rule
from gateway.config.settings import ENVIRONMENT_PREFIX, Settings, readable
from gateway.errors import InvalidSettings


def load(kind: type[Settings] = Settings, /, **given: Any) -> Settings:
    """Read the settings; raise `InvalidSettings` with one line that names what was wrong."""
    try:
        return kind(**given)
    except ValidationError as error:
        wrong = (each for each in error.errors() if each["type"] != "default_factory_not_called")
        raise InvalidSettings("; ".join(map(_line, wrong))) from None
    except ValueError as error:
        file = os.environ.get(ENVIRONMENT_PREFIX + "CONFIG", "")
        raise InvalidSettings(f"the configuration file {file} does not parse: {error}") from None


def origins(given: Mapping[str, object]) -> dict[str, str]:
    """Tell where settings come from, but for those that have their defaults; `given` are the command line's."""
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("command line", given),
        ("environment", EnvSettingsSource(Settings)()),
    ]
    if (file := os.environ.get(ENVIRONMENT_PREFIX + "CONFIG")) is not None:
        sources.append((file, TomlConfigSettingsSource(Settings, readable(file))()))
    return {name: source for source, names in reversed(sources) for name in names}


def shown(name: str, value: object) -> object:
    """Return a setting's value as JSON, and as it may be shown to anybody: without passwords and keys."""
    if not Settings.model_fields[name].repr:
        return "***" if value else ""
    if isinstance(value, tuple):
        return [each.model_dump(exclude_defaults=True) if isinstance(each, Rule) else each for each in value]
    return _masked(name, value)


def use_file(path: str) -> None:
    """Make `load` read this TOML file, as `GATEWAY_CONFIG` does."""
    os.environ[ENVIRONMENT_PREFIX + "CONFIG"] = path


def is_dumb_terminal() -> bool:
    """Tell whether the terminal is one that can only write on."""
    return os.environ.get("TERM", "dumb") == "dumb"


def misspelled() -> list[str]:
    """Say which variables of the environment nobody reads, though they are called almost like a setting."""
    names = (name.removeprefix(ENVIRONMENT_PREFIX) for name in os.environ if name.startswith(ENVIRONMENT_PREFIX))
    unknown = (name for name in names if name.lower() not in (*Settings.model_fields, "config"))
    # Of a Service called gateway Kubernetes sets variables that begin like ours, and are less like a setting.
    nearest = {name: _nearest(name, Settings.model_fields, likeness=0.8) for name in unknown}
    return [
        f"{ENVIRONMENT_PREFIX}{name}: no such setting; did you mean {ENVIRONMENT_PREFIX}{near.upper()}?"
        for name, near in nearest.items()
        if near
    ]


def _nearest(name: str, names: Iterable[str], *, likeness: float = 0.6) -> str:
    """Return what somebody may have meant, "" where nothing is like it."""
    return next(iter(get_close_matches(name.lower().replace("-", "_"), names, 1, likeness)), "")


def _line(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "settings"
    if error["type"] == "extra_forbidden":
        near = _nearest(str(error["loc"][-1]), (Settings if len(error["loc"]) == 1 else Rule).model_fields)
        return f"{name}: no such setting" + (f"; did you mean {near}?" if near else "")
    said = f"{name}: {error['msg'].removeprefix('Value error, ')}"
    field = Settings.model_fields.get(name)
    is_secret = field is not None and not field.repr
    return said if is_secret else f"{said}, got {_shown(name, error['input'])}"


def _shown(name: str, value: object) -> str:
    text = ascii(_masked(name, value))
    return text if len(text) <= 100 else text[:97] + "..."


def _masked(name: str, value: object) -> object:
    """Return a value as it may be shown: a URL of Redis may stand, by mistake, in any setting."""
    if isinstance(value, str):
        may_be = name == "redis_url" or "@" in value or value.lower().startswith(("redis", "unix:"))
        return without_password(value) if may_be else value
    if isinstance(value, list | tuple):
        return [_masked(name, each) for each in value]
    if isinstance(value, dict):
        return {key: _masked(name, each) for key, each in value.items()}
    return HIDDEN if name == "redis_url" else value
