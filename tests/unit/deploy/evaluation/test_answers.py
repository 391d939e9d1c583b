"""The file of answers, through crashes."""

import pathlib

import pytest

from deploy.evaluation.answers import Answer, AnswerFile, AnswersError, Refusal

FIRST = Answer(id="1", digest="a", text="yes", latency_s=0.5, attempts=1, cache="miss", size=(640, 480))
SECOND = Answer(id="2", digest="b", error=Refusal(status=400, code="bad", message="no"))


def known(path: pathlib.Path) -> list[Answer]:
    with AnswerFile(path) as answers:
        return list(answers.known.values())


def test_what_was_added_is_known_to_the_next(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    with AnswerFile(path) as answers:
        assert answers.known == {}
        answers.add(FIRST)
        answers.add(SECOND)
    assert known(path) == [FIRST, SECOND]


def test_an_answer_is_in_the_file_at_once(tmp_path: pathlib.Path) -> None:
    with AnswerFile(tmp_path / "answers.jsonl") as answers:
        answers.add(FIRST)
        assert (tmp_path / "answers.jsonl").read_text().endswith("}\n")


def test_a_torn_last_line_is_no_answer_and_harms_none(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path) as answers:
        answers.add(FIRST)
        answers.add(SECOND)
    whole = path.read_bytes()
    for torn in range(whole.index(b"\n") + 2, len(whole) - 1):
        path.write_bytes(whole[:torn])
        with AnswerFile(path) as answers:
            assert list(answers.known.values()) == [FIRST]
            answers.add(SECOND)
        assert known(path) == [FIRST, SECOND], torn


def test_a_last_line_that_lacks_its_end_only_is_an_answer(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(FIRST.model_dump_json())
    with AnswerFile(path) as answers:
        answers.add(SECOND)
    assert known(path) == [FIRST, SECOND]


def test_of_a_row_that_is_there_twice_the_last_counts(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path) as answers:
        answers.add(FIRST)
        answers.add(FIRST.model_copy(update={"text": "no"}))
    assert [answer.text for answer in known(path)] == ["no"]


def test_two_evaluations_do_not_write_to_one_file(tmp_path: pathlib.Path) -> None:
    with AnswerFile(tmp_path / "answers.jsonl"), pytest.raises(AnswersError, match="another evaluation writes there"):
        AnswerFile(tmp_path / "answers.jsonl")


def test_a_folder_that_cannot_be_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AnswersError, match="cannot be opened"):
        AnswerFile(tmp_path / "file" / "answers.jsonl")
