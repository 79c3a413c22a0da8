"""Settings: one name in four places; the environment is read here, and nowhere else."""

from gateway.config.redis_url import RedisAddress, database_of, without_password
from gateway.config.rules import DEFAULT_RULE, Rule, first_match
from gateway.config.settings import JWT_SETTINGS, Settings
from gateway.config.sources import is_dumb_terminal, load, misspelled, origins, shown, use_file

__all__ = [
    "DEFAULT_RULE",
    "JWT_SETTINGS",
    "RedisAddress",
    "Rule",
    "Settings",
    "database_of",
    "first_match",
    "is_dumb_terminal",
    "load",
    "misspelled",
    "origins",
    "shown",
    "use_file",
    "without_password",
]
