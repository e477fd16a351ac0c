import pytest

from rfjax import buckets
from rfjax.buckets import Conflict, stores
from rfjax.buckets.place import check_writable
from rfjax.errors import UserError


@pytest.mark.parametrize("text", ["gs://bucket/a/b", "gs:/bucket/a/b", "gs://bucket/a//b/", "GS://bucket/./a/b"])
def test_an_address_is_read_as_people_and_paths_write_it(text):
    assert buckets.is_address(text)
    place = buckets.place(text, "config.workdir")
    assert str(place) == "gs://bucket/a/b"
    assert (str(place / "c"), str(place.parent), place.name) == ("gs://bucket/a/b/c", "gs://bucket/a", "b")


@pytest.mark.parametrize("text", ["/a/b", "work/x", "~/x", "a:b", ""])
def test_paths_of_this_machine_are_no_addresses(text):
    assert not buckets.is_address(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("az://bucket/x", "has the scheme az://, and rfjax reads and writes gs:// and s3://"),
        ("file:///x", "has the scheme file://"),
        ("gs:///x", "is not written gs://BUCKET/FOLDER"),
        ("gs://bucket/../x", "is not written gs://BUCKET/FOLDER"),
        ("s3://a b/x", "is not written s3://BUCKET/FOLDER"),
        (f"s3://bucket/{'x' * 600}", "is too long"),
    ],
)
def test_another_address_is_one_sentence(text, said):
    with pytest.raises(UserError, match=said) as error:
        buckets.place(text, "config.workdir")
    assert str(error.value).startswith("config.workdir = '")
    assert "\n" not in str(error.value)


def test_conditions_hold(memory):
    one = memory / "a/one"
    assert one.look() is one.entry() is None
    first = one.write(b"1", "create")
    with pytest.raises(Conflict):
        one.write(b"2", "create")
    second = one.write(b"2", first)
    with pytest.raises(Conflict):
        one.write(b"3", first)
    assert one.look().data == b"2"
    assert dict(one.look().version) == dict(second)
    assert one.read(0, 1) == b"2"
    one.write(b"4")
    (memory / "a/two/three").write(iter([b"12", b"34"]))
    assert [(entry.name, entry.size) for entry in (memory / "a").entries()] == [("one", 1), ("two/three", 4)]
    (memory / "a").remove(["one", "none"])
    (memory / "a").remove([])
    assert [entry.name for entry in memory.entries()] == ["a/two/three"]


def test_what_can_be_written_is_left_as_it_was(memory, monkeypatch):
    check_writable(memory / "x", "config.workdir")
    assert memory.entries() == []
    monkeypatch.setattr(buckets.Place, "write", lambda *_: {})
    with pytest.raises(UserError, match="this store overwrites objects in spite of If-None-Match"):
        check_writable(memory / "x", "config.workdir")


def test_keys_of_a_profile_are_found(tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = a\n[other]\naws_access_key_id = b\n")
    (tmp_path / "config").write_text("[profile other]\nregion = eu-north-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert stores.profile() == {"access_key_id": "a"}
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert stores.profile() == {"access_key_id": "b", "region": "eu-north-1"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "c")
    assert stores.profile() == {"region": "eu-north-1"}
