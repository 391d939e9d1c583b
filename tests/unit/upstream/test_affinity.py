from contextlib import ExitStack

import pytest

from gateway.upstream.affinity import HotImages


def ids(hot: HotImages, requests: int, session: str = "image") -> list[str]:
    """The ids that as many requests get which are all in flight at once."""
    with ExitStack() as stack:
        return [stack.enter_context(hot.session_id("tiny", session)) for _ in range(requests)]


def test_the_questions_about_an_image_have_one_id_while_half_a_replica_s_are_in_flight() -> None:
    assert ids(HotImages({"tiny": 16}), 8) == ["image"] * 8


def test_eight_more_ids_come_with_every_further_half() -> None:
    given = ids(HotImages({"tiny": 16}), 24)
    assert given[8:16] == [f"image#{number}" for number in range(1, 9)]
    assert given[16:] == [f"image#{number}" for number in range(9, 17)]


@pytest.mark.parametrize("concurrency", [2, 8, 16, 64])
def test_at_four_times_a_replica_s_concurrency_an_image_has_56_further_ids_at_most(concurrency: int) -> None:
    given = ids(HotImages({"tiny": concurrency}), 4 * concurrency)
    numbers = {int(one.partition("#")[2] or 0) for one in given}
    assert max(numbers) <= 56
    assert len(numbers) == 1 + min(7 * concurrency // 2, 56)


def test_even_a_replica_that_works_on_one_request_has_a_share() -> None:
    assert ids(HotImages({"tiny": 1}), 3) == ["image", "image#1", "image#9"]


def test_an_image_that_has_cooled_down_goes_home() -> None:
    hot = HotImages({"tiny": 2})
    assert ids(hot, 2) == ["image", "image#1"]
    assert ids(hot, 1) == ["image"]


def test_images_and_models_are_counted_apart() -> None:
    hot = HotImages({"tiny": 2, "mute": 2})
    with hot.session_id("tiny", "one") as one, hot.session_id("tiny", "other") as other, hot.session_id("mute", "one") as mute:
        assert (one, other, mute) == ("one", "other", "one")
        assert hot.counted == 3


def test_nothing_is_kept_of_an_image_that_nobody_asks_about() -> None:
    hot = HotImages({"tiny": 2})
    with pytest.raises(ZeroDivisionError), hot.session_id("tiny", "image"):
        raise ZeroDivisionError
    assert hot.counted == 0
