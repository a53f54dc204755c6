"""The groups of inputs that `bench/fuzz.py` tries."""

from fuzzing.files import FILE_GROUPS
from fuzzing.folders import FOLDER_GROUPS
from fuzzing.group import Group
from fuzzing.models import MODEL_GROUPS
from fuzzing.network import NETWORK_GROUPS
from fuzzing.studies import STUDY_GROUPS
from fuzzing.weights import WEIGHT_GROUPS

GROUPS: dict[str, Group] = {
    **FILE_GROUPS,
    **FOLDER_GROUPS,
    **MODEL_GROUPS,
    **NETWORK_GROUPS,
    **STUDY_GROUPS,
    # Last: it brings in torch, whose memory the others' is not to be measured beside.
    **WEIGHT_GROUPS,
}

__all__ = ["GROUPS", "Group"]
