"""The manifests of `k8s/` as Kubernetes gets them, rendered by kustomize, and what they say of a node."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from .container import ROOT
from .kustomize import render

__all__ = ["Manifest", "container", "environment", "only", "pod", "rendered", "variables"]

Manifest = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """Return what `kubectl apply -k` would send."""
    return tuple(render(ROOT / "k8s/overlays" / overlay))


def only(overlay: str, kind: str, name: str = "gateway") -> Manifest:
    """Return the one object of a kind and name."""
    (found,) = [each for each in rendered(overlay) if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod(overlay: str, name: str = "gateway") -> Manifest:
    """Return what a Deployment says of its pods."""
    spec: Manifest = only(overlay, "Deployment", name)["spec"]["template"]["spec"]
    return spec


def container(overlay: str, name: str = "gateway") -> Manifest:
    """Return the one container of a pod."""
    (found,) = pod(overlay, name)["containers"]
    assert isinstance(found, dict)
    return found


def variables(overlay: str) -> dict[str, Manifest]:
    """Return the nodes' environment by name, in its order."""
    return {entry["name"]: entry for entry in container(overlay)["env"]}


def environment(overlay: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return the environment as the kubelet makes it: secrets looked up, `$(NAME)` replaced by what stands before."""
    made: dict[str, str] = {}
    for name, entry in variables(overlay).items():
        if "value" in entry:
            made[name] = re.sub(r"\$\((\w+)\)", lambda found: made[found.group(1)], entry["value"])
            continue
        wanted = entry["valueFrom"]["secretKeyRef"]
        assert wanted["name"] == "gateway"
        if wanted["key"] in secrets:
            made[name] = secrets[wanted["key"]]
        else:
            assert wanted.get("optional"), f"{name}: no {wanted['key']} in the secret, the pod would not start"
    return made
