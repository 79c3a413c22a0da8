"""Typed commands: functions whose annotations say what clients may send and what they are answered."""

from gateway.application.router.command import Command, Event
from gateway.application.router.router import Router

__all__ = ["Command", "Event", "Router"]
