"""Free generation: what counts as said, and that texts are drawn as the model would say them."""

from collections import Counter

import pytest
import torch

from mechunlearn.artifacts import MEASUREMENT_COLUMNS, measurement_table
from mechunlearn.evaluate.generate import generate, mentions, sample
from mechunlearn.facts.completion import completion


@pytest.mark.parametrize(
    ("text", "answer", "found"),
    [
        (" plays basketball.", "basketball", True),
        (" plays Basketball, mostly", "basketball", True),
        (" plays basketballs", "basketball", False),
        (" New York-based", "New York", True),
        (" in newyork", "New York", False),
        (" is C++ code", "C++", True),
        ("", "golf", False),
    ],
)
def test_an_answer_is_said_as_whole_words(text, answer, found):
    assert mentions(text, answer) is found


def test_every_fact_has_its_texts(model, athletes):
    rows = generate(model, athletes, 3, "edited", 5)
    table = measurement_table(rows)
    assert set(rows[0]) == set(MEASUREMENT_COLUMNS)
    assert Counter(table.fact) == {fact.id: 3 for fact in athletes}
    assert not table.duplicated(["fact", "order"]).any()
    answers = {fact.id: fact for fact in athletes}
    for row in rows:
        fact = answers[row["fact"]]
        assert row["p_true"] == mentions(row["argmax"], fact.answer)
        assert (row["rank"] == 1) == bool(row["p_true"])
        assert (row["choice"] == "true") == (bool(row["p_true"]) and not row["p_new"] > 0)
    texts = [row["argmax"] for row in rows]
    assert [row["argmax"] for row in generate(model, athletes, 3, "edited", 5)] == texts
    assert [row["argmax"] for row in generate(model, athletes, 3, "edited", 6)] != texts


def test_each_text_is_given_to_the_fact_it_was_written_about(tiny, athletes, monkeypatch):
    """A model that names the subject's own sport in every second text, and another in a second line."""
    model = tiny("llama")
    said = {tuple(model.encode(completion(fact)[0].text)): fact.answer for fact in athletes}

    def write(model, sequences, samples, tokens, generator):
        texts = [f" {said[tuple(ids)]}" if number % 2 else " golf" for ids in sequences for number in range(samples)]
        return [model.tokenizer(text + "\n baseball basketball football").input_ids for text in texts]

    monkeypatch.setattr("mechunlearn.evaluate.generate.sample", write)
    rows = generate(model, athletes, 4, "base", 0)
    assert {row["fact"] for row in rows} == {fact.id for fact in athletes}
    assert [row["p_true"] for row in rows] == [row["order"] % 2 for row in rows]


@torch.no_grad()
def test_tokens_are_drawn_from_the_models_own_distribution(model, athletes):
    """The same draws as a full forward over each whole text for every token, without a cache or padding."""
    prompts = [model.encode(completion(fact)[0].text)[: 9 + number % 4] for number, fact in enumerate(athletes)]
    written = sample(model, prompts, 2, 5, torch.Generator().manual_seed(3))
    generator, texts = torch.Generator().manual_seed(3), [list(prompt) for prompt in prompts for _ in range(2)]
    for _ in range(5):
        for text, drawn in zip(texts, torch.rand(len(texts), 1, generator=generator).tolist(), strict=True):
            sums = model.network(input_ids=torch.tensor([text])).logits[0, -1].double().softmax(-1).cumsum(-1)
            text.append(int((sums <= drawn[0]).sum()))
    assert written == [text[-5:] for text in texts]
