"""Folders of trainings: what a resume must share, and what it only tells."""

import warnings

import pytest
import yaml

from elicitor.errors import ResumeMismatchError
from elicitor.notices import ElicitorWarning
from elicitor.train.folder import MADE_FROM, finish, training_folder

MADE = {"kind": "sft", "settings": {"epochs": 1}}


@pytest.fixture
def begun(tmp_path):
    """A training that was begun with an older package, and with one that is gone."""
    with training_folder(tmp_path / "t", MADE, resume=False) as path:
        values = yaml.safe_load((path / MADE_FROM).read_text())
        values["versions"] |= {"numpy": "1.0", "gone": "2.0"}
        (path / MADE_FROM).write_text(yaml.safe_dump(values))
    return path


def test_a_resume_with_other_versions_goes_on_and_names_them(begun):
    told = r"the training in .*t was begun with gone 2\.0, now none; numpy 1\.0, now \d.*: its result may differ"
    with pytest.warns(ElicitorWarning, match=told), training_folder(begun, MADE, resume=True):
        pass


def test_nothing_is_told_of_a_training_that_has_finished(begun):
    finish(begun, {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with training_folder(begun, MADE, resume=True):
            pass


def test_a_resume_with_the_same_versions_says_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for resume in (False, True):
            with training_folder(tmp_path / "t", MADE, resume=resume):
                pass


def test_only_as_many_processes_go_on_with_what_several_began(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with training_folder(tmp_path / "t", MADE, resume=False):
        pass
    with training_folder(tmp_path / "t", MADE, resume=True):
        pass
    monkeypatch.delenv("WORLD_SIZE")
    with (
        pytest.raises(ResumeMismatchError, match="begun by 2 processes together, now there are 1"),
        training_folder(tmp_path / "t", MADE, resume=True),
    ):
        pass
    finish(tmp_path / "t", {})
    with training_folder(tmp_path / "t", MADE, resume=True):
        pass


def test_other_settings_are_refused_before_versions_are_told(begun):
    other = {**MADE, "settings": {"epochs": 2}}
    with pytest.raises(ResumeMismatchError, match="settings"), training_folder(begun, other, resume=True):
        pass
