"""What is asked and what is drawn have nothing to do with each other, or the one could be told from the other."""

from itertools import pairwise
from typing import get_args

from deploy.demo import conversation, seeds
from deploy.demo.garments import QUESTIONS, ProductAttributes
from deploy.demo.tailoring import ProductType
from deploy.demo.training.lessons import draw_catalogue_lesson, draw_lesson

VIEW = 112
SOME = 300


def test_an_adapters_examples_ask_in_each_way_about_each_type() -> None:
    lessons = [draw_catalogue_lesson(seed, VIEW) for seed in seeds.ADAPTER[:SOME]]
    met = {
        (question, ProductAttributes.model_validate_json(lesson.answer.removesuffix("<|im_end|>")).product_type)
        for lesson in lessons
        for question in QUESTIONS
        if question in lesson.prompt
    }
    assert len(met) == len(QUESTIONS) * len(get_args(ProductType))


def test_no_two_purposes_share_a_seed() -> None:
    ranges = sorted((seeds.CARD, seeds.EXAMS, seeds.ADAPTER, seeds.LESSONS, seeds.TOKENIZER), key=lambda one: one.start)
    assert all(one.stop <= following.start for one, following in pairwise(ranges))
    assert conversation.SCENE in seeds.CARD


def test_the_ground_is_laid_with_garments_of_each_type() -> None:
    lessons = [draw_lesson(seed, VIEW, groundwork=1) for seed in seeds.LESSONS[:SOME]]
    met = {kind for kind in get_args(ProductType) for lesson in lessons if f"It is a {kind}." in lesson.answer}
    assert met == set(get_args(ProductType))
