# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Where should knowledge be edited so that it stays gone?

# %%
from collections import Counter
from importlib import import_module
from pathlib import Path

import yaml
from IPython.display import HTML, display

from mechunlearn import artifacts, published, registry, report, timing
from mechunlearn import study as layout
from mechunlearn.claims import OBJECTIVE
from mechunlearn.config import validate_study
from mechunlearn.config.edit import puts_in
from mechunlearn.figures import (
    agreement,
    beside_paper,
    data,
    html,
    localization_map,
    mechanisms,
    overview,
    people,
    planted,
    scaling,
    sentences,
    tables,
    verdicts,
    words,
)
from mechunlearn.operations import COSTS

# %% tags=["parameters"]
CONFIG = None  # a study as JSON; None: the default study

# %%
values = yaml.safe_load(CONFIG or Path("config/config.yaml").read_text(encoding="utf-8"))
study = validate_study(values)
folder = layout.RESULTS / study.study
claims = artifacts.read_json(folder / "claims.json")
metrics = data.read_metrics(folder / "metrics.csv")
level = f"{study.report.confidence:.0%}"
cells = layout.pairs(study)
hidden = {model: settings.planted for model, settings in study.models.items() if settings.planted}
shown = [(model, task) for model, task in cells if model not in hidden]
path = folder / "planted.csv"
ranks = artifacts.read_table(path, artifacts.PLANTED_COLUMNS) if path.is_file() else None
of_people = {name for name, task in study.tasks.items() if task.facts == "biographies"}
edits = bool(study.objectives)
new = [name for name in study.objectives if puts_in(name)] if set(study.tasks) - of_people else []
path = folder / "costs.csv"
spent = artifacts.read_table(path, COSTS) if path.is_file() else None


def part(model, task):
    return metrics[(metrics.model == model) & (metrics.task == task)]


def show(*pieces):
    display(HTML("\n".join(piece for piece in pieces if piece)))


def heading(model, task, more=""):
    """Which model and task a part is about, where there are several."""
    return f"<h3>{html.safe(' · '.join(filter(None, [model, task, more])))}</h3>" if len(cells) > 1 or more else ""


def several(objective):
    return objective if len(study.objectives) > 1 else ""


def figures(model, task, names):
    """Pictures of figures that have something to show; what the others say instead goes to the limits."""
    global number
    home, rows, pictures = layout.home(study.study, model, task), part(model, task), []
    fitting = layout.figures(study, task)
    for name in filter(fitting.__contains__, names):
        module = import_module(registry.methods("figure")[name])
        found, seen = module.caption(home, rows, level)
        if seen:
            number += 1
            pictures.append(html.picture(home / f"figures/{name}.svg", titled(module.TITLE), found, seen))
        elif found and model not in hidden:
            absent.append(found)
    return pictures


def titled(title):
    return f"Figure {number}. {title}" + ("" if title.endswith("?") else ".")


number, absent = 0, []

# %%
EDITING = """<p>A language model knows facts: ask it for an athlete's sport and it answers. Suppose a fact must go. One
can train the model to answer something else, but the old fact may survive inside: it comes back when the question is
put another way, or after a little more training. <em>Mechanistic Unlearning</em> (Guo et al., ICML 2025) claims that it
depends on <strong>where</strong> the model is edited: train only the layers that look facts up, and they stay
gone.</p>"""
REPLACING = """<p>A language model has read texts about people. Some of them must be forgotten, of others it must learn
something new. <em>LLM Surgery</em> (Veldanda et al., 2024) claims that one short training does both, and keeps the
rest, at a fraction of what training anew would cost. It trains the whole model; whether it is better to train only the
layers that look facts up is asked here, too.</p>"""
AIM = (
    "This report puts that claim to the test."
    if edits
    else "Nothing is trained here: this report asks how many weights of each part must go for the facts to go."
    if study.masking.localizations
    else "Nothing is edited here: this report asks where the methods point, and how far they can be trusted."
)
show(
    REPLACING if of_people == set(study.tasks) else EDITING,
    f"<p>{AIM}</p>",
    f'<p class="subtitle">Study <strong>{html.safe(study.study)}</strong>: {html.safe(words.listing(study.models))}, '
    f"{html.safe(words.listing(study.tasks))}.</p>",
)

# %%
for model, task in shown[:1] if edits else []:
    home = layout.home(study.study, model, task)
    forgotten = [fact for fact in artifacts.read_facts(home / "facts.parquet") if fact.role == "forget"]
    selections = data.selections(home, part(model, task))
    chosen = selections.get("fact-lookup") or next(iter(selections.values()), None)
    layers = localization_map.layer_count(selections, data.tracings(home, part(model, task)))
    if forgotten and chosen:
        drawing = overview.draw(forgotten[0], chosen, layers, study.attacks, bool(new))
        show(f'<div class="scroll">{drawing}</div>')

# %% [markdown]
# ## The answer

# %%
RULE = """<p>Each claim of the paper is a test with a rule fixed beforehand: it is reproduced where the whole interval
lies on the claim's side. A claim that does not hold is a result about this model, not an error.</p>"""
NO_CLAIM = "<p>The paper's claims are about edits that put a new answer in; here they do something else.</p>"
once = {True: RULE, False: NO_CLAIM}
for model, task in cells:
    for objective in study.objectives:
        found = [c for c in claims if (c["model"], c["task"], c["objective"]) == (model, task, objective)]
        show(
            heading(model, task, several(objective)),
            f'<p class="lead">{html.safe(verdicts.summary(found))}</p>' if found else "",
            f"<p>{html.safe(verdicts.answer(part(model, task), objective))}</p>",
            once.pop(bool(found), ""),
            verdicts.claims(found) if found else "",
        )
if ranks is not None:
    show(f'<p class="{"" if edits else "lead"}">{html.safe(planted.answer(ranks))}</p>')
if not edits:
    for model, task in shown:
        chosen = agreement.measured(layout.home(study.study, model, task), part(model, task))
        show(heading(model, task), f"<p>{html.safe(agreement.between(chosen))}</p>" if len(chosen) > 1 else "")

# %% [markdown]
# ## What was done

# %%
seeds = f"{len(study.seeds)} random seed{'s' if len(study.seeds) > 1 else ''}"
located = f"""<li><strong>Localization.</strong> Each method below names the part of the model that
{"may change" if edits else "an edit would train"}. A model is a stack of layers, each an attention block (moves
information between words) and an MLP (looks information up). {html.safe(sentences.methods(layout.localizers(study)))}
Other rows are for comparison.</li>"""
for model, task in shown:
    home = layout.home(study.study, model, task)
    facts = artifacts.read_facts(home / "facts.parquet")
    count = Counter(fact.role for fact in facts)
    formats = "; ".join(words.elicitation(name).lower() for name in data.elicitations(part(model, task)))
    known = f"""<li><strong>Facts.</strong> The model was asked {len(facts):,} facts and knows
{len(facts) - count["unknown"]:,} of them: its first guess is right and gets more than {study.screen.threshold:.0%} of
the probability."""
    steps = [f"{known} The methods see only these.</li>", located]
    if edits:
        steps = [
            f"""{known} Of these, {count["forget"] + count["forget-train"]} are to be forgotten: each
gets a new, wrong answer{
                f", for which half of them are trained and {count['forget']} only measured"
                if count["forget-train"]
                else ""
            }.
{count["maintain-train"]} others help the training to leave everything else alone; {count["maintain-test"]} more are
never trained on, only measured, to see what was kept{
                f", and {count['neighbor']} are held out to be asked beside the facts with which they share an answer"
                if count["neighbor"]
                else ""
            }.</li>""",
            located,
            f"""<li><strong>Edit.</strong> Only that part is trained ({sentences.training(study.edit)} unless the
configuration says otherwise, {seeds}): {html.safe(sentences.trained(study.objectives))}.
{html.safe(sentences.in_turn(study, task))}</li>""",
            f"""<li><strong>Test.</strong> The edited model is asked again, in the wording it was trained on and in
others: {formats}. {html.safe(sentences.attacked(study.attacks))}</li>""",
        ]
    if edits and task in of_people:
        told = study.biographies
        steps = [
            f"""<li><strong>People.</strong> The model was trained on biographies of invented people, in
{told.wordings} wordings each: {told.problematic} are to be forgotten, {told.obsolete} to be replaced by an update,
{told.retain} help to keep, {told.kept} are only measured. Each has ten attributes
and as many questions, of which half are for testing.</li>""",
            located,
            f"""<li><strong>Edit.</strong> Only that part is trained, for {study.edit.steps} steps ({seeds}).</li>""",
            f"""<li><strong>Test.</strong> The edited model is asked in wordings that no text has, and as the texts put
it: {formats}. {html.safe(sentences.attacked(study.attacks))}</li>""",
        ]
    selected = tables.localizations(data.selections(home, part(model, task)))
    chosen = "as chosen by a sweep" if study.swept else "as the configuration gives them"
    rates = tables.rates(study, model, task)
    rates = html.details(f"Learning rates and weights, {chosen}", rates) if rates else ""
    show(heading(model, task), '<ol class="steps">', *steps, "</ol>", selected, rates)
if hidden:
    layers = words.listing(sorted({str(layer) for _, layer in hidden.values()}, key=int))
    show(
        f"""<p><strong>Planted facts.</strong> No one knows in which layer a model keeps a fact it has read; so we put
some there. {study.planting.facts} fictitious athletes and their sports were trained into the MLP of one layer of a copy
of {html.safe(words.listing(sorted({base for base, _ in hidden.values()})))}, and nothing else was changed; a copy
each for the layers {layers}. Then every method was asked for the layer.
{"" if shown or ranks is None else html.safe(sentences.methods(list(ranks.localizer)))}</p>"""
    )
answers = "“New answer” and “true answer” are probabilities" if new else "“True answer” is a probability"
if edits:
    show(
        f"""<p><strong>How to read the numbers.</strong> {answers} among the possible answers, averaged over facts.
0.86 [0.79, 0.92] is a mean with its {level} interval, got by drawing the facts again and again at random (bootstrap); n
is the number of facts. A way of asking counts only if the model, before any edit, gets at least
{study.evaluate.gate:.0%} of the facts it knows right that way; a model that cannot use a format cannot show anything by
failing in it.{
            f" Only {words.listing(new)} put new answers in: after other objectives the new answer is a wrong one that "
            "nobody trained. The paper's claims are about new answers and are tested for inject alone."
            if new and set(study.objectives) - {"inject"}
            else ""
        }</p>"""
    )

# %%
TRUST = {
    "estimates": "Do estimates agree with what they estimate?",
    "agreement": "Would a method choose the same again?",
}
ORDER = [
    "sequential",
    "weight-masking",
    "worst-case",
    "robustness",
    "relearning",
    "latent-knowledge",
    "trade-off",
    "probe-curves",
    "path-patching",
    "localization-map",
    "tracing-map",
]
others = sorted(set(registry.methods("figure")) - {*ORDER, *TRUST})
if shown:
    show("<h2>What was found</h2>")
if sizes := layout.sizes(study):
    number += 1
    show(html.picture(folder / "figures/scaling.svg", titled(scaling.TITLE), *scaling.caption(metrics, sizes, level)))
for model, task in shown:
    show(heading(model, task), *figures(model, task, [*ORDER, *others]))

# %%
asked, pictures = [], []
if ranks is not None:
    number += 1
    asked.append("Do they find what was planted?")
    pictures += [
        html.picture(folder / "figures/planted.svg", titled(planted.TITLE), *planted.caption(ranks)),
        tables.planted(ranks),
    ]
for model, task in shown:
    own = {question: figures(model, task, [name]) for name, question in TRUST.items()}
    if any(own.values()):
        asked += [question for question, drawn in own.items() if drawn]
        pictures += [heading(model, task), *(picture for drawn in own.values() for picture in drawn)]
if pictures:
    show(
        "<h2>Can the methods be trusted?</h2>",
        "<p>Methods that point to different layers cannot all be right, so they are tested themselves. "
        f"{' '.join(dict.fromkeys(asked))}</p>",
        *pictures,
    )

# %%
SURGERY = """
<p><em>LLM Surgery</em> (Veldanda et al. 2024) forgets some people, replaces what is told of others and keeps the
rest: ascent on the texts to forget and on the obsolete ones, descent on their updates, and a divergence that holds
the model where it was on other texts. The people are invented, so the baseline, which was trained on the updates
and on the people to keep, never read what is unlearned. Accuracy: how often the right one of three options has the
lowest perplexity, in questions worded as no text was; chance is 1/3. Retain: people whose texts the divergence holds
on to. Keep: people whose texts no edit used.</p>"""
for model, task in cells:
    if task not in of_people:
        continue
    own = metrics[metrics.task == task]
    others = [name for name, about in layout.references(study) if about == task]
    show(
        "<h2>Surgery</h2>",
        SURGERY,
        heading(model, task),
        "<p>Test questions:</p>",
        people.accuracies(own, model, others, "quiz-test"),
        html.details("Validation questions", people.accuracies(own, model, others, "quiz-validation")),
        "<p>How unlikely their texts are, in nats a token:</p>",
        people.texts(own, model, others),
        people.costs(spent) if spent is not None else "",
    )

# %%
if edits:
    show(
        "<h2>All results</h2>",
        """<p>New answer, true answer: probabilities among the options. Says new, says true: how often that answer is
the likeliest. Kept: facts that should not change. n: forgotten facts, then kept facts.</p>""",
    )
for model, task in cells if edits else []:
    compared = tables.objectives(part(model, task), timing.edits(study, model, task))
    show(heading(model, task, "all objectives") if compared else "", compared)
for model, task in cells:
    for objective in study.objectives:
        rows = part(model, task)
        show(heading(model, task, several(objective)), tables.results(rows, objective))
        show(tables.side_effects(rows, objective), tables.benchmarks(rows, objective))
        show(tables.robustness(rows, objective), tables.probes(rows, objective))

# %%
if study.masking.localizations:
    show(
        "<h2>Where the masked weights lie</h2>",
        f"""<p>With as many weights masked as every localization could: how many of them lie in the MLPs that fact
lookup takes and in the {study.localize.paths.extraction} components with the largest direct effect on the answer
(path patching; of a head its queries and outputs), of all that the localization may mask. An MLP can be both.</p>""",
    )
    for model, task in shown:
        home = layout.home(study.study, model, task)
        found = mechanisms.table(home, part(model, task), study.localize.paths.extraction)
        show(heading(model, task, f"{mechanisms.largest(home, part(model, task)):,} weights masked"), found)

# %%
if edits:
    show(
        "<h2>Beside the paper</h2>",
        """<p>The paper's numbers are means over three models of 7 to 9 billion parameters and sets of 16 and 64 facts,
with the lowest and highest of these six where they are known. Its multiple choice is answered by letter.</p>""",
    )
for model, task in cells:
    for objective in study.objectives:
        kind = published.kind(study.tasks[task]) if objective == OBJECTIVE else ""
        found = beside_paper.table(part(model, task), objective, Path("report/published"), kind)
        show(
            heading(model, task, several(objective)),
            found or "<p>The paper's numbers for such a task and objective, if it has any, are not at hand here.</p>",
        )

# %% [markdown]
# ## Limits

# %%
limits = []
for model, task in cells:
    rows = part(model, task)
    where = f" ({model}, {task})" if len(cells) > 1 else ""
    for name in data.elicitations(rows) if edits else []:
        if name not in data.counting(rows):
            limits.append(
                f"{words.elicitation(name)} says nothing here{where}: before any edit the model gets only "
                f"{data.gate(rows, name):.2f} of the facts it knows right that way; at least "
                f"{study.evaluate.gate:.2f} is needed."
            )
    base = data.base(rows, "p_true", "completion", "forget")
    if edits and base is not None:
        limits.append(
            f"Forgetting is measured on {base.n} facts{where}. Intervals cover the choice of facts, not the choice of "
            f"training runs: there {'is one seed' if len(study.seeds) == 1 else f'are {len(study.seeds)} seeds'}."
        )
for model, task in [*shown, *[pair for pair in cells if pair[0] in hidden][:1]]:  # planted models saw as many
    every = registry.ordered(registry.localizers(study.localize.plugins))
    localizers = every if model in hidden else layout.localizers(study)
    seen = sentences.facts_seen(layout.home(study.study, model, task), localizers)
    limits.append(f"How many facts each method saw ({model}, {task}): {seen}.")
missing = [name for name in registry.localizations(study.localize.plugins) if name not in study.localizations]
if missing and shown:
    limits.append(f"Not compared in this study: {words.listing(map(words.quoted, missing))}.")
if hidden:
    limits.append(
        "Planted facts are learned in a few steps of training and lie in one MLP by force; facts that a model has read "
        "may be kept in another way, so a method that finds the one may miss the other."
    )
for name, (model, task) in {hidden.get(pair[0], pair)[0]: pair for pair in cells}.items():
    size = max(
        data.selections(layout.home(study.study, model, task), part(model, task)).values(), key=lambda s: s.total
    )
    limits.append(
        f"{name} has {words.parameters(size.total)} parameters in attention and MLPs; the paper's models have 7 to 9 "
        "billion. What holds for one need not hold for the other."
    )
limits += dict.fromkeys(absent)
if edits:
    limits.append("The attacks are the ones listed; a stronger one may bring back what these did not.")
show("<ul>", *(f"<li>{html.safe(text)}</li>" for text in limits), "</ul>")

# %% [markdown]
# ## Where the numbers come from

# %%
about = []
for model in study.models:
    record = artifacts.read_json(Path("models") / model / "model.json")
    about.append([html.safe(f"Model {model}"), f"{html.safe(record['source'])}<br><code>{record['sha256']}</code>"])
about += [[html.safe(name), html.safe(value)] for name, value in report.provenance().items()]
spent = [
    [html.safe(row.phase), str(row.jobs), f"{row.seconds:.0f} s", f"{row.memory / 1024:.1f} GB"]
    for row in timing.phases(study).itertuples()
]
config = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
show(
    html.table(["", ""], [("", about)], kind="plain"),
    html.table(["Phase", "Jobs", "Computing time", "Peak memory of a job"], [("", spent)], kind="plain"),
    html.details("The whole configuration", f"<pre>{html.safe(config)}</pre>"),
)
