"""The manifests of `k8s/` as Kubernetes gets them, rendered by kustomize, and what they say of a node."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from .container import ROOT
from .kustomize import render

__all__ = ["Manifest", "container", "environment", "only", "pod", "pods", "rendered", "variables"]

Manifest = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Return what `kubectl apply -k` would send."""
    return tuple(render(ROOT / "k8s/overlays" / overlay))


def only(overlay: str, kind: str, name: str = "gateway") -> Manifest:
    """Return the one object of a kind and name."""
    (found,) = [each for each in rendered(overlay) if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(overlay: str) -> dict[str, Manifest]:
    """Return what is said of the pods of everything that has some, by its name."""
    found = [each for each in rendered(overlay) if each["kind"] in ("Deployment", "StatefulSet", "Job")]
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in found}


def pod(overlay: str, name: str = "gateway") -> Manifest:
    """Return what is said of one kind of pods."""
    return pods(overlay)[name]


def container(overlay: str, name: str = "gateway") -> Manifest:
    """Return the one container of a pod."""
    (found,) = pod(overlay, name)["containers"]
    assert isinstance(found, dict)
    return found


def variables(overlay: str, name: str = "gateway") -> dict[str, Manifest]:
    """Return the environment of a pod's container by name, in its order."""
    return {entry["name"]: entry for entry in container(overlay, name)["env"]}


def environment(overlay: str, secrets: Mapping[str, str], name: str = "gateway", *, ip: str = "") -> dict[str, str]:
    """Return the environment as the kubelet makes it.

    Secrets are looked up, `$(NAME)` is replaced by what stands before, and `ip` is the pod's address.
    """
    made: dict[str, str] = {}
    for variable, entry in variables(overlay, name).items():
        if "value" in entry:
            made[variable] = _expanded(entry["value"], made)
        elif "fieldRef" in entry["valueFrom"]:
            assert entry["valueFrom"]["fieldRef"] == {"fieldPath": "status.podIP"}
            made[variable] = ip
        else:
            made |= _looked_up(variable, entry["valueFrom"]["secretKeyRef"], secrets)
    return made


def _expanded(value: str, made: Mapping[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: made[found.group(1)], value)


def _looked_up(variable: str, wanted: Manifest, secrets: Mapping[str, str]) -> dict[str, str]:
    assert wanted["name"] == "gateway"
    if wanted["key"] in secrets:
        return {variable: secrets[wanted["key"]]}
    assert wanted.get("optional"), f"{variable}: no {wanted['key']} in the secret, the pod would not start"
    return {}
