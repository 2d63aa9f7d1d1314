"""What Kubernetes makes of a manifest: whether its schemas allow it, and the words that a container gets.

The schemas of Kubernetes' own objects are the published ones, that of LeaderWorkerSet is after its source.
Expansion after Kubernetes 1.37, third_party/forked/golang/expansion: `$$` is a dollar, `$(NAME)` a variable.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types
import kubernetes_validate  # type: ignore[import-untyped]  # it has no types

VERSION = "1.37"
Refused = jsonschema.ValidationError
_SCHEMA = Path(__file__).parents[1] / "export" / "schemas" / "leaderworkerset.json"


def check(manifest: Mapping[str, Any]) -> None:
    """Raise what is wrong with a manifest."""
    if manifest["kind"] != "LeaderWorkerSet":
        kubernetes_validate.validate(dict(manifest), VERSION, strict=True)
        return
    jsonschema.validate(manifest, json.loads(_SCHEMA.read_text(encoding="utf-8")))
    group = manifest["spec"]["leaderWorkerTemplate"]
    for role in ("leaderTemplate", "workerTemplate"):
        kubernetes_validate.validate(_pod(group[role]), VERSION, strict=True)


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Return what a container gets for a text of its args or environment."""
    return re.sub(r"\$(\$|\(([^)]*)\))", lambda found: _meaning(found, variables), text)


def _meaning(found: "re.Match[str]", variables: Mapping[str, str]) -> str:
    return "$" if found[1] == "$" else variables.get(found[2], found[0])


def _pod(template: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": "pod", **template["metadata"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
