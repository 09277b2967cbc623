"""The folder of compiled kernels: whole entries or none, and never a reason to fail."""

import errno
import hashlib
import os
import sys
import warnings
from pathlib import Path

import pytest

from kan_impls.fused import cubin_cache

KEY = cubin_cache.key(kernel="scale")
IMAGE = bytes(range(256)) * 40
DESCRIPTION = {"symbol": "_Z5scale", "resources": None}


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv(cubin_cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(cubin_cache, "_has_warned", False)
    return tmp_path / "cache"


def the_entry(folder):
    (entry,) = folder.iterdir()
    return entry


def test_what_was_written_is_read(folder):
    assert cubin_cache.read(KEY) is None
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    assert cubin_cache.read(KEY) == (DESCRIPTION, IMAGE)
    assert the_entry(folder).name.startswith(KEY)  # and no temporary file is left


def flip_last_byte(content):
    return content[:-1] + bytes([content[-1] ^ 1])


def flip_description(content):
    return content.replace(b"_Z5scale", b"_Z5scald")


@pytest.mark.parametrize(
    "damage",
    [
        flip_last_byte,
        flip_description,
        lambda content: content[: len(content) // 2],
        lambda content: content[:10],
        lambda content: b"",
        lambda content: b"something else entirely " * 100,
        lambda content: content + b"\0",
        lambda content: content.replace(b"kernel 1", b"kernel 2"),
    ],
)
def test_a_damaged_entry_is_absent_and_written_anew(folder, damage):
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    content = the_entry(folder).read_bytes()
    assert damage(content) != content
    the_entry(folder).write_bytes(damage(content))
    assert cubin_cache.read(KEY) is None
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    assert cubin_cache.read(KEY) == (DESCRIPTION, IMAGE)


def test_an_entry_under_the_name_of_another_is_absent(folder):
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    other = cubin_cache.key(kernel="other")
    the_entry(folder).rename(folder / the_entry(folder).name.replace(KEY, other))
    assert cubin_cache.read(other) is None


def test_a_file_in_place_of_the_folder_warns_once(folder):
    # Instead of a folder without write permission, which does not bind root.
    folder.write_text("not a folder")
    with pytest.warns(RuntimeWarning, match="set KAN_IMPLS_CACHE to a folder that can be written"):
        cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    assert cubin_cache.read(KEY) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cubin_cache.write(KEY, DESCRIPTION, IMAGE)


@pytest.mark.parametrize("function", ["replace", "fdopen"])
def test_a_full_disk_warns_and_leaves_no_file(folder, monkeypatch, function):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.warns(RuntimeWarning, match="No space left on device.*free space there"):
        cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    assert list(folder.iterdir()) == []


def test_losing_a_race_is_no_reason_to_warn(folder, monkeypatch):
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)

    def refuse(*arguments):
        raise PermissionError("the file is open in another process")

    monkeypatch.setattr(os, "replace", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cubin_cache.write(KEY, DESCRIPTION, IMAGE)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/kan-impls"),
        ("linux", {"XDG_CACHE_HOME": "/var/own"}, "/var/own/kan-impls"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/kan-impls"),
        ("darwin", {}, "home/Library/Caches/kan-impls"),
        ("win32", {"LOCALAPPDATA": "/users/me/local"}, "/users/me/local/kan-impls"),
        ("win32", {}, "home/AppData/Local/kan-impls"),
        ("linux", {"KAN_IMPLS_CACHE": "/mine"}, "/mine"),
        ("linux", {"KAN_IMPLS_CACHE": "~/mine"}, "home/mine"),
        ("linux", {"KAN_IMPLS_CACHE": ""}, "home/.cache/kan-impls"),
    ],
)
def test_the_folder_follows_the_platform(monkeypatch, tmp_path, platform, variables, expected):
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "KAN_IMPLS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cubin_cache.folder() == tmp_path / expected


def test_without_a_home_the_cache_is_absent(folder, monkeypatch):
    monkeypatch.delenv(cubin_cache.VARIABLE)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    assert cubin_cache.read(KEY) is None
    with pytest.warns(RuntimeWarning, match="no home folder.*set KAN_IMPLS_CACHE"):
        cubin_cache.write(KEY, DESCRIPTION, IMAGE)


def test_the_key_tells_ingredients_apart():
    keys = {
        cubin_cache.key(kernel="a", arch="b"),
        cubin_cache.key(kernel="ab", arch=""),
        cubin_cache.key(kernel="b", arch="a"),
        cubin_cache.key(kernel=["a"], arch="b"),
    }
    assert len(keys) == 4
    assert cubin_cache.key(arch="b", kernel="a") in keys


def test_the_description_of_the_folder(folder):
    assert cubin_cache.describe() == (folder, 0, 0, None)
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    _, entries, size, obstacle = cubin_cache.describe()
    assert (entries, obstacle) == (1, None)
    assert size == the_entry(folder).stat().st_size


@pytest.mark.parametrize(
    "header",
    [b"", b"{", b"[]", b"null", b'"text"', b"7", b"{}", b"\xff", b"[" * 100_000, b"9" * 5001],
)
def test_a_bad_header_under_a_right_digest_is_absent(folder, header):
    body = len(header).to_bytes(4, "little") + header + IMAGE
    cubin_cache.write(KEY, DESCRIPTION, IMAGE)
    content = the_entry(folder).read_bytes()
    magic = content[: content.index(b"\n") + 1]
    the_entry(folder).write_bytes(magic + hashlib.sha256(body).digest() + body)
    assert cubin_cache.read(KEY) is None
