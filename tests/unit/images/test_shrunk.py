from gateway.images.digest import Key
from gateway.images.shrunk import ShrunkImages


def key(image: bytes, width: int = 28) -> Key:
    return image, f"v1-jpeg-{width}x28-o1"


def test_what_was_shrunk_is_found_by_image_and_recipe() -> None:
    shrunk = ShrunkImages(10)
    shrunk.put(key(b"a"), b"1234")
    assert shrunk.get(key(b"a")) == b"1234"
    assert shrunk.get(key(b"b")) is None
    assert shrunk.get(key(b"a", width=56)) is None


def test_what_was_not_asked_for_the_longest_makes_room() -> None:
    shrunk = ShrunkImages(10)
    shrunk.put(key(b"a"), b"1234")
    shrunk.put(key(b"b"), b"1234")
    shrunk.get(key(b"a"))
    shrunk.put(key(b"c"), b"123")
    assert [shrunk.get(key(name)) for name in (b"a", b"b", b"c")] == [b"1234", None, b"123"]


def test_what_has_no_room_at_all_is_not_kept() -> None:
    shrunk = ShrunkImages(3)
    shrunk.put(key(b"a"), b"123")
    shrunk.put(key(b"b"), b"1234")
    assert shrunk.get(key(b"a")) == b"123"
    assert shrunk.get(key(b"b")) is None


def test_the_same_twice_counts_once() -> None:
    shrunk = ShrunkImages(4)
    for _ in range(3):
        shrunk.put(key(b"a"), b"12")
    shrunk.put(key(b"b"), b"12")
    assert shrunk.get(key(b"a")) == shrunk.get(key(b"b")) == b"12"
