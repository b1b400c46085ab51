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
#
# A language model knows facts: ask it for an athlete's sport and it answers. Suppose a fact must go. One can train the
# model to answer something else, but the old fact may survive inside: it comes back when the question is put another
# way, or after a little more training. *Mechanistic Unlearning* (Guo et al., ICML 2025) claims that it depends on
# **where** the model is edited: train only the layers that look facts up, and they stay gone. This report puts that
# claim to the test.

# %%
from importlib import import_module
from pathlib import Path

import yaml
from IPython.display import HTML, display

from mechunlearn import artifacts, registry, report, timing
from mechunlearn import study as layout
from mechunlearn.config import validate_study
from mechunlearn.figures import data, html, tables, words

# %% tags=["parameters"]
CONFIG = None  # a study as JSON; None: the default study

# %%
values = yaml.safe_load(CONFIG or Path("config/config.yaml").read_text(encoding="utf-8"))
study = validate_study(values)
folder = layout.RESULTS / study.study
claims = artifacts.read_json(folder / "claims.json")
metrics = data.read_metrics(folder / "metrics.csv")
level = f"{study.report.confidence:.0%}"
cells = [(model, task) for model in study.models for task in study.tasks]


def part(model, task):
    return metrics[(metrics.model == model) & (metrics.task == task)]


def show(*pieces):
    display(HTML("\n".join(piece for piece in pieces if piece)))


def heading(model, task, more=""):
    """Which model and task a part is about, where there are several."""
    return f"<h3>{html.safe(' · '.join(filter(None, [model, task, more])))}</h3>" if len(cells) > 1 or more else ""


def several(objective):
    return objective if len(study.objectives) > 1 else ""


# %%
show(
    f'<p class="subtitle">Study <strong>{html.safe(study.study)}</strong>: {html.safe(words.listing(study.models))}, '
    f"{html.safe(words.listing(study.tasks))}.</p>"
)

# %% [markdown]
# ## The answer

# %%
RULE = """<p>Each claim of the paper is a test with a rule fixed beforehand: it is reproduced where the whole interval
lies on the claim's side. A claim that does not hold is a result about this model, not an error.</p>"""
told = False
for model, task in cells:
    for objective in study.objectives:
        found = [c for c in claims if (c["model"], c["task"], c["objective"]) == (model, task, objective)]
        show(
            heading(model, task, several(objective)),
            f'<p class="lead">{html.safe(tables.summary(found))}</p>',
            f"<p>{html.safe(tables.answer(part(model, task), objective))}</p>",
            "" if told else RULE,
            tables.claims(found),
        )
        told = True

# %% [markdown]
# ## What was done

# %%
for model, task in cells:
    home = layout.home(study.study, model, task)
    facts = artifacts.read_facts(home / "facts.parquet")
    count = {role: sum(fact.role == role for fact in facts) for role in {fact.role for fact in facts}}
    known = len(facts) - count.get("unknown", 0)
    seeds = f"{len(study.seeds)} random seed{'s' if len(study.seeds) > 1 else ''}"
    formats = "; ".join(words.elicitation(name).lower() for name in data.elicitations(part(model, task)))
    attacked = (
        f"Then an attacker trains the edited model on the true answers of half of the forgotten facts, for up to "
        f"{study.relearn.steps[-1]} steps, and asks for the other half."
        if "relearn" in study.attacks
        else ""
    )
    show(
        heading(model, task),
        f"""<ol class="steps">
<li><strong>Facts.</strong> The model was asked {len(facts):,} facts and knows {known:,} of them: its first guess is
right and gets more than {study.screen.threshold:.0%} of the probability. Of these, {count.get("forget", 0)} are to be
forgotten: each gets a new, wrong answer. {count.get("maintain-train", 0)} others help the training to leave
everything else alone; {count.get("maintain-test", 0)} more are never trained on, only measured, to see what was
kept.</li>
<li><strong>Localization.</strong> Each method below names the part of the model that may change. A model is a stack of
layers, each an attention block (moves information between words) and an MLP (looks information up).
Fact lookup reads the layers off a probe; causal tracing takes the parts whose activity brings a blurred answer back;
the other rows are for comparison.</li>
<li><strong>Edit.</strong> Only that part is trained, for {study.edit.steps} steps, towards the new answers
({seeds}).</li>
<li><strong>Test.</strong> The edited model is asked again, in the wording it was trained on and in others: {formats}.
{attacked}</li>
</ol>""",
        tables.localizations(data.selections(home, part(model, task))),
    )
show(
    f"""<p><strong>How to read the numbers.</strong> “New answer” and “true answer” are probabilities among the possible
answers, averaged over facts. 0.86 [0.79, 0.92] is a mean with its {level} interval, got by drawing the facts again and
again at random (bootstrap); n is the number of facts. A way of asking counts only if the model, before any edit,
gets at least {study.evaluate.gate:.0%} of the facts it knows right that way; a model that cannot use a format cannot
show anything by failing in it.</p>"""
)

# %% [markdown]
# ## What was found

# %%
number = 0
for model, task in cells:
    home, rows = layout.home(study.study, model, task), part(model, task)
    show(heading(model, task))
    order = ["robustness", "relearning", "trade-off", "probe-curves", "localization-map"]
    names = registry.methods("figure")
    for name in sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)):
        module, number = import_module(names[name]), number + 1
        title = f"Figure {number}. {module.TITLE.rstrip('?')}{'?' if module.TITLE.endswith('?') else '.'}"
        show(html.picture(home / f"figures/{name}.svg", title, *module.caption(home, rows, level)))

# %% [markdown]
# ## All results
#
# New answer, true answer: probabilities among the options. Says new, says true: how often that answer is the likeliest.
# Kept: facts that should not change. n: forgotten facts, then kept facts.

# %%
for model, task in cells:
    for objective in study.objectives:
        show(heading(model, task, several(objective)), tables.results(part(model, task), objective))

# %% [markdown]
# ## Beside the paper
#
# The paper's numbers are means over three models of 7 to 9 billion parameters and sets of 16 and 64 facts, with the
# lowest and highest of these six where they are known. Its multiple choice is answered by letter.

# %%
for model, task in cells:
    for objective in study.objectives:
        found = tables.published(part(model, task), objective, Path("report/published"), study.tasks[task].facts)
        show(heading(model, task, several(objective)), found or "<p>The paper has no numbers for this task.</p>")

# %% [markdown]
# ## Limits

# %%
limits = []
for model, task in cells:
    rows = part(model, task)
    where = f" ({model}, {task})" if len(cells) > 1 else ""
    for name in data.elicitations(rows):
        if name not in data.counting(rows):
            limits.append(
                f"{words.elicitation(name)} says nothing here{where}: before any edit the model gets only "
                f"{data.gate(rows, name):.2f} of the facts it knows right that way; at least "
                f"{study.evaluate.gate:.2f} is needed."
            )
    base = data.base(rows, "p_true", "completion", "forget")
    if base is not None:
        limits.append(
            f"Forgetting is measured on {base.n} facts{where}. Intervals cover the choice of facts, not the choice of "
            f"training runs: there {'is one seed' if len(study.seeds) == 1 else f'are {len(study.seeds)} seeds'}."
        )
missing = [name for name in registry.localizations() if name not in study.localizations]
if missing:
    limits.append(f"Not compared in this study: {words.listing(map(words.quoted, missing))}.")
for model in study.models:
    size = max(
        data.selections(layout.home(study.study, model, task), part(model, task)).values(), key=lambda s: s.total
    )
    limits.append(
        f"{model} has {words.parameters(size.total)} parameters in attention and MLPs; the paper's models have 7 to 9 "
        "billion. What holds for one need not hold for the other."
    )
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
