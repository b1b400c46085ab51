"""The objective of LLM Surgery against the slow, obvious computation, and what trains and measures beside it."""

import math
from operator import attrgetter

import pytest
import torch

from mechunlearn.artifacts import Component, Selection
from mechunlearn.config import BiographySettings, EditSettings, SurgerySettings
from mechunlearn.config.edit import weights
from mechunlearn.edit import surgery
from mechunlearn.edit.continual import continue_on
from mechunlearn.edit.objectives import Batch, Text
from mechunlearn.edit.sequence import edit_in_turn
from mechunlearn.edit.train import Recipe, trainable
from mechunlearn.evaluate import streams
from mechunlearn.facts import Prompt, biographies
from mechunlearn.facts.biographies import Biography
from mechunlearn.facts.text import Passage
from mechunlearn.models.attention import grouped
from mechunlearn.models.scoring import option_nll, score
from mechunlearn.models.training import example

TRUE = attrgetter("answer")
STREAMS = ("problematic", "obsolete", "update", "retain")
RULES = SurgerySettings(unlearn_weight=0.3, obsolete_weight=0.2, update_weight=1.5, retain_weight=0.7, batch=2)


@pytest.fixture
def batch():
    torch.manual_seed(1)
    lengths = [5, 9, 4, 7, 11, 6, 8, 3]  # of different lengths, so that padding would show
    texts = [Text(STREAMS[i // 2], tuple(torch.randint(4, 400, (n,)).tolist())) for i, n in enumerate(lengths)]
    general = [tuple(torch.randint(4, 400, (n,)).tolist()) for n in (6, 10)]
    return Batch([], [], [], general, texts)


def read(batch):
    """What a batch reads with its streams: general text belongs to what is retained."""
    return [*batch.biographies, *(Text("retain", ids) for ids in batch.texts)]


def logits(model, ids):
    return model.network(input_ids=torch.tensor([ids])).logits[0].float()


def cross_entropy(model, ids):
    shares = logits(model, ids).log_softmax(-1)
    return -sum(shares[place, token] for place, token in enumerate(ids[1:])) / (len(ids) - 1)


def moved(model):
    torch.manual_seed(2)
    with torch.no_grad():
        for name in model.layout.shapes:
            parameter = model.network.get_parameter(name)
            parameter.add_(0.1 * torch.randn_like(parameter))


@pytest.mark.parametrize("family", ["gemma3_text", "llama"])
def test_terms_are_those_of_one_text_at_a_time(fresh, batch, family):
    model = fresh(family)
    with torch.no_grad():
        before = {ids: logits(model, ids) for stream, ids, _ in read(batch) if stream == "retain"}
        base = {text: cross_entropy(model, text[1]) for text in read(batch)}
        objectives = {
            name: getattr(surgery, name)(model, batch, EditSettings(surgery=RULES), 0)
            for name in ("surgery", "surgery_npo", "surgery_reverse_kl")
        }
        moved(model)
        now = {text: cross_entropy(model, text[1]) for text in read(batch)}

        def mean(stream, values):
            own = [values[text] for text in read(batch) if text[0] == stream]
            return sum(own) / len(own)

        kl = {"forward": [], "reverse": []}
        for ids, old in before.items():
            p, q = old.softmax(-1)[:-1], logits(model, ids).softmax(-1)[:-1]
            kl["forward"] += (p * (p / q).log()).sum(-1).tolist()
            kl["reverse"] += (q * (q / p).log()).sum(-1).tolist()
        expected = {
            "problematic": -0.3 * mean("problematic", now),
            "obsolete": -0.2 * mean("obsolete", now),
            "update": 1.5 * mean("update", now),
            "retain": 0.7 * sum(kl["forward"]) / len(kl["forward"]),
        }
        terms = objectives["surgery"](batch)
        assert {name: float(term) for name, term in terms.items()} == pytest.approx(
            {name: float(term) for name, term in expected.items()}, rel=1e-4
        )
        assert float(objectives["surgery_reverse_kl"](batch)["retain"]) == pytest.approx(
            0.7 * sum(kl["reverse"]) / len(kl["reverse"]), rel=1e-4
        )
        bounded = {text: 2 * math.log1p(math.exp(base[text] - now[text])) for text in now}
        terms = objectives["surgery_npo"](batch)
        assert float(terms["problematic"]) == pytest.approx(0.3 * mean("problematic", bounded), rel=1e-4)
        assert float(terms["update"]) == pytest.approx(float(expected["update"]), rel=1e-4)


@pytest.mark.parametrize("components", [[Component(2, "mlp")], [Component(0, "mlp"), Component(1, "mlp")]])
def test_of_facts_without_biographies_the_answer_alone_counts(fresh, athletes, components):
    model = fresh("gemma3_text")
    gone, kept = ([fact for fact in athletes if fact.role == role] for role in ("forget", "maintain-train"))
    true, new, retain = (
        [example(model, fact, answer(fact)) for fact in facts]
        for facts, answer in ((gone, TRUE), (gone, lambda fact: fact.new_answer), (kept, TRUE))
    )
    batch = Batch(true, new, retain, [tuple(model.encode("Tiger Woods plays the sport of golf."))])
    (general,) = batch.texts
    with torch.no_grad():
        before = {ids: logits(model, ids).log_softmax(-1) for ids in (general, *(ids for ids, _ in retain))}

    def certainty(examples):
        return torch.stack([logits(model, ids)[-1].log_softmax(-1)[answer] for ids, answer in examples]).mean()

    def slowly():
        places = [(ids, len(ids) - 1) for ids, _ in retain] + [(general, place) for place in range(len(general) - 1)]
        kept = []
        for ids, place in places:
            p, q = before[ids][place], logits(model, ids)[place].log_softmax(-1)
            kept.append((p.exp() * (p - q)).sum())
        return {
            "obsolete": 0.2 * certainty(true),
            "update": -1.5 * certainty(new),
            "retain": 0.7 * sum(kept) / len(kept),
        }

    with trainable(model, Selection("", components, 0, 0, 0)) as parameters:
        moving = list(parameters.values())
        loss = surgery.surgery(model, batch, EditSettings(surgery=RULES), 0)
        with torch.no_grad():
            for parameter in moving:
                parameter += 0.1 * torch.randn_like(parameter)
        found, expected = loss(batch), slowly()
        assert found.keys() == expected.keys()
        for name, term in expected.items():
            torch.testing.assert_close(found[name], term, rtol=1e-4, atol=1e-5)
        pairs = [torch.autograd.grad(sum(terms.values()), moving) for terms in (found, expected)]
        for one, other in zip(*pairs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())


def test_at_the_base_model_the_divergence_is_zero_and_npo_pulls_like_ascent(fresh, batch):
    model = fresh("gemma3_text")
    weight = model.network.get_parameter(model.layout.weight(1, "o"))
    weight.requires_grad_(True)
    gradients = {}
    for name in ("surgery", "surgery_npo"):
        terms = getattr(surgery, name)(model, batch, EditSettings(surgery=RULES), 0)(batch)
        assert float(terms["retain"].detach()) == pytest.approx(0, abs=1e-6)
        gradients[name] = torch.autograd.grad(terms["problematic"], weight)[0]
    torch.testing.assert_close(gradients["surgery"], gradients["surgery_npo"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", ["gemma3_text", "llama"])
@pytest.mark.parametrize("rules", [{}, {"unlearn": "npo", "divergence": "reverse"}], ids=["published", "variants"])
def test_an_edit_of_later_layers_has_the_losses_and_gradients_of_the_plain_loop(fresh, batch, family, rules):
    """Layers below the first trained one run once a text, and the unembedding in parts: neither may show."""
    model, rules = fresh(family), RULES.model_copy(update=rules)
    with torch.no_grad():
        old = {text: logits(model, text[1])[:-1].log_softmax(-1) for text in read(batch)}
        base = {text: cross_entropy(model, text[1]) for text in read(batch)}

    def slowly():
        found = {name: [] for name in STREAMS}
        for text in read(batch):
            now = cross_entropy(model, text[1])
            if text[0] == "retain":
                sides = old[text], logits(model, text[1])[:-1].log_softmax(-1)
                p, q = sides if rules.divergence == "forward" else sides[::-1]
                now = (p.exp() * (p - q)).sum(-1)
            elif text[0] != "update":
                now = (
                    2 / rules.beta * (1 + (rules.beta * (base[text] - now)).exp()).log()
                    if rules.unlearn == "npo"
                    else -now
                )
            found[text[0]].append(now.reshape(-1))
        weights = rules.unlearn_weight, rules.obsolete_weight, rules.update_weight, rules.retain_weight
        return {name: w * torch.cat(found[name]).mean() for name, w in zip(STREAMS, weights, strict=True)}

    with trainable(model, Selection("", [Component(2, "mlp"), Component(3, "mlp")], 0, 0, 0)) as parameters:
        moving = list(parameters.values())
        with grouped(model):
            loss = surgery.surgery(model, batch, EditSettings(surgery=rules), 0)
        for _ in range(2):  # the second time from what was kept, with other weights
            with grouped(model):
                found = loss(batch)
            expected = slowly()
            assert found.keys() == expected.keys()
            for name in STREAMS:
                torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-5)
            pairs = [torch.autograd.grad(sum(terms.values()), moving) for terms in (found, expected)]
            for one, other in zip(*pairs, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * other.abs().max().item())
            with torch.no_grad():
                for parameter in moving:
                    parameter += 0.1 * torch.randn_like(parameter)
    assert len(model.layout.shapes) > len(moving)


def test_only_an_edit_that_reads_biographies_says_what_it_took(fresh, athletes):
    passages = [Passage("0", "sport", "Tiger Woods plays the sport of golf.")]
    people = [Biography("A", stream, 0, f"A plays {stream}.") for stream in STREAMS]
    settings = EditSettings(steps=3, batch=2, texts=1, surgery={"batch": 2})
    every = Selection("", [Component(2, "mlp")], 0, 0, 0)
    _, history, rows = edit_in_turn(fresh("llama"), Recipe(athletes, passages, every, "surgery", settings, 0, people))
    assert not rows
    assert set(history[0]) == {"step", "loss", *STREAMS}
    assert set(history[-1]) - set(history[0]) == {"seconds", "tokens"}
    encode = fresh("llama").encode
    told, general = sum(len(encode(each.text)) for each in people), len(encode(passages[0].text))
    assert history[-1]["tokens"] == 3 * (2 * told + general)
    _, history, _ = edit_in_turn(fresh("llama"), Recipe(athletes, passages, every, "inject", settings, 0))
    assert history[-1].keys() == history[0].keys()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("surgery_no_ascent", {"update", "retain"}),
        ("surgery_no_update", {"problematic", "obsolete", "retain"}),
        ("surgery_no_retain", {"problematic", "obsolete", "update"}),
    ],
)
def test_ablations_leave_a_term_out(fresh, batch, name, left):
    model = fresh("gemma3_text")
    with torch.no_grad():
        assert set(getattr(surgery, name)(model, batch, EditSettings(), 0)(batch)) == left
    streams = {"unlearn": "problematic"}
    read = [each.removesuffix("_weight") for each in weights(name.replace("_", "-"), people=True)]
    assert {streams.get(each, each) for each in read} == left  # as the settings say


@pytest.mark.parametrize("family", ["gemma3_text", "llama"])
def test_options_are_compared_by_the_perplexity_of_all_their_tokens(tiny, family):
    model = tiny(family)
    prompts = [
        Prompt(
            "one", "Tom Brady plays", (0, 9), (" golf", " football and golf", " tennis, they say"), 1, None, whole=True
        ),
        Prompt("two", "Babe Ruth", (0, 9), (" plays", " football", " golf"), 2, None, whole=True),
    ]
    with torch.no_grad():
        for prompt, found in zip(prompts, option_nll(model, prompts), strict=True):
            asked = model.encode(prompt.text)
            for option, nll in zip(prompt.options, found.tolist(), strict=True):
                answer = model.tokenizer(option, add_special_tokens=False).input_ids
                shares = logits(model, [*asked, *answer]).log_softmax(-1)
                slow = [-float(shares[len(asked) - 1 + place, token]) for place, token in enumerate(answer)]
                assert nll == pytest.approx(sum(slow) / len(slow), rel=1e-4)
    first = Prompt("first", "Tom Brady plays", (0, 9), (" golf", " football"), 0, None)
    rows = score(model, [prompts[0], first, prompts[1]])
    assert [row["fact"] for row in rows] == ["one", "first", "two"]
    assert repr(rows[1]) == repr(score(model, [first])[0])
    nll = option_nll(model, prompts)[0]
    assert rows[0]["rank"] == 1 + int((nll < nll[1]).sum())
    assert rows[0]["p_true"] == pytest.approx(math.exp(-nll[1]))
    assert rows[0]["argmax"] == prompts[0].options[int(nll.argmin())]


SMALL = BiographySettings(
    problematic=2, obsolete=2, retain=2, kept=2, wordings=1, epochs=10, batch=4, texts=0, learning_rate=3e-3
)


def test_what_a_model_has_read_becomes_likely_and_what_it_has_not_read_does_not(fresh):
    model = fresh("gemma3_text")
    texts = biographies.biographies(biographies.people(SMALL), SMALL.wordings)
    before = {row["fact"]: row["nll"] for row in streams.measure(model, texts, "base", 0)}
    names, spent = continue_on(model, texts, [], "baseline", SMALL)
    after = {row["fact"]: row["nll"] for row in streams.measure(model, texts, "base", 0)}
    fall = {
        text.stream: before[f"{text.person} / {text.stream}"] - after[f"{text.person} / {text.stream}"]
        for text in texts
    }
    assert min(fall["update"], fall["retain"], fall["kept"]) > 0
    read = sum(len(model.encode(text.text)) for text in texts if text.stream in ("update", "retain", "kept"))
    assert spent["tokens"] == 10 * read
    assert spent["steps"] == 15
    assert len(spent["losses"]) == 15
    assert set(names) == set(model.layout.shapes)


def test_similarity_is_one_before_any_change_and_the_mean_cosine_of_tokens_after(fresh):
    model = fresh("llama")
    texts = streams.chosen(biographies.biographies(biographies.people(SMALL), 2))
    assert len(texts) == 10
    assert {text.wording for text in texts} == {0}
    before = streams.states(model, texts)
    rows = [row for row in streams.measure(model, texts, "edited", 0, before) if row["elicitation"] == "similarity"]
    assert len(rows) == 10 * (model.layout.layers + 1)
    assert all(row["similarity"] == pytest.approx(1, abs=1e-5) for row in rows)
    ids = torch.tensor([model.encode(texts[0].text)])
    old = model.network(input_ids=ids, output_hidden_states=True).hidden_states
    moved(model)
    new = model.network(input_ids=ids, output_hidden_states=True).hidden_states
    rows = streams.measure(model, texts[:1], "edited", 0, before[:1])
    for layer in range(model.layout.layers):  # the last of hidden_states is normed
        slow = [
            float(torch.nn.functional.cosine_similarity(a, b, dim=0))
            for a, b in zip(old[layer][0, 1:], new[layer][0, 1:], strict=True)
        ]
        (found,) = [row["similarity"] for row in rows if row["stage"] == f"layer@{layer}"]
        assert found == pytest.approx(sum(slow) / len(slow), abs=1e-5)
