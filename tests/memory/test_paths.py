"""New paths beside what is there, also where several processes make theirs at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from self_pruner.memory.paths import new_folder, numbered


def test_the_name_itself_comes_first_and_then_it_is_numbered_from_two(tmp_path):
    assert [path.name for path in islice(numbered(tmp_path / "run.x"), 3)] == ["run.x", "run.x-2", "run.x-3"]


def test_nobody_gets_the_folder_of_another(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(new_folder, [tmp_path / "runs" / "one"] * 24))
    assert {path.name for path in made} == {"one", *(f"one-{number}" for number in range(2, 25))}
    assert all(path.is_dir() for path in made)


def test_a_file_of_that_name_is_in_the_way_and_one_in_the_place_of_a_parent_is_an_error(tmp_path):
    (tmp_path / "one").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert new_folder(tmp_path / "one").name == "one-2"
    for parent in ("one", "nowhere"):
        with pytest.raises(OSError, match=parent):
            new_folder(tmp_path / parent / "inner")
