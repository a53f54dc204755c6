"""What a run was made from: versions, data, model and the state of the code, without secrets, host names or times."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Literal

SCHEMA = 1
"""Of run folders as a whole; it grows when a reader of the one before would go wrong."""
SEARCH = 2
"""Of what searches decide; it grows when a seed no longer leads to the same labels, so that no run is searched half by the one
and half by the other. 2: the last two batches are made even, what constraints do not bind is drawn apart. A test that resumes
a run of the first schema expects it to be refused; one that resumes a run of this number fails when it should have grown."""
REVIEW_OF = "review_of"
Supervision = Literal["none"] | dict[str, Any]
"""Labels that went into a run: how many ``labels``, from which ``file``; ``review_of`` names the run whose review they are."""


def build_manifest(
    *,
    data_fingerprint: str,
    model_fingerprint: str,
    model: Mapping[str, Any],
    batches: Sequence[Sequence[int]],
    start_labels: Mapping[str, int] | None = None,
    supervision: Supervision = "none",
) -> dict[str, Any]:
    """What a run depends on; ``identity`` must be equal for a resume, and ``schema`` be one that the reader knows.

    Args:
        data_fingerprint: Hash of the unlabelled data set.
        model_fingerprint: Hash of weights and numeric settings.
        model: Further facts about the model, for the reader.
        batches: Positions of each batch; a window of another size may divide the same data otherwise.
        start_labels: Labels that a user gave the search to start with; whether they are gold only the user knows.
        supervision: Where those come from.

    Returns:
        JSON values without secrets, host names or times.
    """
    return {
        "schema": SCHEMA,
        "identity": {
            "search": SEARCH,
            "data": data_fingerprint,
            "model": model_fingerprint,
            "batches": _hash(batches),
            "start_labels": _hash(start_labels) if start_labels else None,
        },
        "gold_used": "start labels were given" if start_labels else False,
        "supervision": supervision,
        "examples": sum(map(len, batches)),
        "model": dict(model),
        "versions": package_versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "git": _git_state(),
    }


_REPORTED = (
    "elicitor",
    "numpy",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "gguf",
    "datasets",
    "trl",
    "peft",
    "vllm",
)


def package_versions() -> dict[str, str]:
    """Versions of the installed packages that can change a result."""
    versions = {}
    for name in _REPORTED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _hash(values: Mapping[str, Any] | Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _git_state() -> dict[str, Any] | None:
    """Commit of the working folder's repository, if it is one: what a researcher needs to find the code again."""

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], capture_output=True, text=True, timeout=5, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(git("status", "--porcelain"))}
