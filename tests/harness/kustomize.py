"""Renders kustomizations: as much of kustomize as `k8s/` uses, since Debian's kubectl is too old for it.

What it does not know fails, so that nothing is left out silently.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

__all__ = ["render"]

Object = dict[str, Any]

_KNOWN = {
    *("apiVersion", "kind", "resources", "components", "namespace", "labels", "images", "patches"),
    "configMapGenerator",
}
# Lists whose elements are told apart by name; all others are replaced as a whole.
_NAMED = {"containers", "env"}


def render(folder: Path) -> list[Object]:
    """Return the objects of a kustomization, in no particular order."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert told.keys() <= _KNOWN, f"{folder}: this renderer does not know {told.keys() - _KNOWN}"
    objects = [found for path in _paths(told) for found in _read(folder / path)]
    objects += [_config_map(folder, wanted) for wanted in told.get("configMapGenerator", [])]
    for patch in told.get("patches", []):
        objects = _patched(objects, _patch(folder, patch))
    for each in objects:
        _adorn(each, told)
    return objects


def _paths(told: Object) -> Iterator[str]:
    yield from told.get("resources", [])
    yield from told.get("components", [])


def _read(path: Path) -> list[Object]:
    if path.is_dir():
        return render(path)
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def _config_map(folder: Path, wanted: Object) -> Object:
    options = wanted["options"]
    assert options["disableNameSuffixHash"], "this renderer makes no hashes"
    files = {name or Path(path).name: path for name, _, path in (each.rpartition("=") for each in wanted["files"])}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": wanted["name"], "labels": dict(options.get("labels", {}))},
        "data": {name: (folder / path).read_text() for name, path in files.items()},
    }


def _patch(folder: Path, patch: Object) -> Object:
    assert patch.keys() <= {"path", "patch"}, f"this renderer does not know {patch.keys()}"
    text = patch["patch"] if "patch" in patch else (folder / patch["path"]).read_text()
    (found,) = [each for each in yaml.safe_load_all(text) if each]
    return dict(found)


def _patched(objects: list[Object], patch: Object) -> list[Object]:
    (target,) = [each for each in objects if _identity(each) == _identity(patch)]
    if patch.get("$patch") == "delete":
        return [each for each in objects if each is not target]
    return [_merged(each, patch) if each is target else each for each in objects]


def _identity(each: Object) -> tuple[str, str, str]:
    return each["apiVersion"], each["kind"], each["metadata"]["name"]


def _merged(old: Object, patch: Object) -> Object:
    """Merge as Kubernetes' strategic merge patch does: null removes, a list is replaced unless told by name."""
    new = copy.deepcopy(old)
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, dict):
            new[key] = _merged(new.get(key) or {}, value)
        elif isinstance(value, list) and key in _NAMED:
            new[key] = _merged_by_name(new.get(key, []), value)
        else:
            new[key] = copy.deepcopy(value)
    return new


def _merged_by_name(old: list[Object], patches: list[Object]) -> list[Object]:
    """Merge elements of the same name; those of the patch come first, as in kustomize: a variable may use them."""
    by_name = {each["name"]: each for each in old}
    named = {patch["name"] for patch in patches}
    first = [_merged(by_name.get(patch["name"], {}), patch) for patch in patches if patch.get("$patch") != "delete"]
    return [*first, *(each for each in old if each["name"] not in named)]


def _adorn(each: Object, told: Object) -> None:
    """Give an object the kustomization's namespace, labels and image names."""
    metadata = each["metadata"]
    if "namespace" in told:
        metadata["namespace"] = told["namespace"]
    for labels in told.get("labels", []):
        assert labels.keys() == {"pairs"}, "this renderer labels objects only"
        metadata["labels"] = {**metadata.get("labels", {}), **labels["pairs"]}
    if each["kind"] == "Deployment":
        for container in each["spec"]["template"]["spec"]["containers"]:
            container["image"] = _image(container["image"], told.get("images", []))


def _image(image: str, changes: list[Object]) -> str:
    name, _, tag = image.partition(":")
    for change in changes:
        if change["name"] == name:
            name, tag = change.get("newName", name), str(change.get("newTag", tag))
    return f"{name}:{tag}" if tag else name
