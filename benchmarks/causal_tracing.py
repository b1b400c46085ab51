"""The map of single states of causal tracing: ours beside ROME's loop, TransformerLens and nnsight.

    python -m benchmarks.causal_tracing [--quick]

One map is every token x layer of a fact's prompt: the residual stream after a layer is put back to its clean value in
10 runs with noise on the subject, and the answer's mean probability is read. All contestants get the same network
weights, prompts and noise. The peers run one state a forward at full depth, so every state costs them the same; they
are timed on states drawn at random and scaled to the map. Ours is timed on whole maps.
"""

import random
from dataclasses import dataclass
from typing import Any

import nnsight
import pandas as pd
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from benchmarks import common
from mechunlearn.facts import Fact
from mechunlearn.facts.completion import completion
from mechunlearn.localize.causal_tracing import corrupted_runs, states
from mechunlearn.models.model import Model
from mechunlearn.models.patching import resume
from mechunlearn.models.scoring import probabilities

SAMPLES, SIGMAS = 10, 3
OURS, ROME = "ours", "ROME loop"
Sites = list[tuple[int, int]]  # (layer, token)


@dataclass
class Task:
    """One fact's prompt: token ids, positions of its subject, noise (samples, subject tokens, d_model), its answer."""

    ids: list[int]
    subject: list[int]
    noise: torch.Tensor
    answer: int

    def rows(self, count: int) -> torch.Tensor:
        """The prompt, so many times."""
        return torch.tensor([self.ids]).repeat(count, 1)


def task(model: Model, fact: Fact) -> Task:
    """The prompt with noise of three standard deviations of the subject's embeddings."""
    ids, subject = model.locate(completion(fact)[0])
    scale = SIGMAS * model.network.get_input_embeddings()(torch.tensor(ids)[subject]).std()
    noise = torch.randn(SAMPLES, len(subject), model.width, generator=torch.Generator().manual_seed(0))
    return Task(ids, subject, scale * noise, model.option(f" {fact.answer}"))


def ours(model: Model, task: Task) -> torch.Tensor:
    """(layers, tokens); before the subject, where nothing differs, the corrupted run's own probability."""
    clean, corrupted = corrupted_runs(model, task.ids, task.subject, task.noise)
    layers, places = model.layout.layers, len(clean.tokens[0])
    patches = [site.patch for site in states(model, clean, [""] * places, 1) if site.kind == "state"]
    hidden = torch.cat([resume(model, corrupted, patches), corrupted.hidden[None]])
    found = probabilities(model, hidden, [task.answer]).mean(1)
    before = found[-1:].expand(layers, len(task.ids) - places)
    return torch.cat([before, found[:-1].reshape(places, layers).T], 1)


@torch.no_grad()
def by_rome(network: Any, task: Task, sites: Sites) -> list[float]:
    """One forward of 11 rows a state; row 0 stays clean and hands its state to the others."""

    def corrupt(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        output[1:, task.subject] += task.noise
        return output

    found = []
    for layer, token in sites:

        def restore(module: Any, inputs: Any, output: torch.Tensor, token: int = token) -> torch.Tensor:
            output[1:, token] = output[0, token]
            return output

        hooks = [network.get_input_embeddings().register_forward_hook(corrupt)]
        hooks.append(network.model.layers[layer].register_forward_hook(restore))
        rows = task.rows(SAMPLES + 1)
        logits = network(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
        found.append(logits[1:, -1].softmax(1).mean(0)[task.answer].item())
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def by_transformer_lens(bridge: Any, task: Task, sites: Sites) -> list[float]:
    """Its own activation patching of `resid_post`, in the noisy runs as one batch."""

    def corrupt(embedded: torch.Tensor, hook: Any) -> torch.Tensor:
        embedded[:, task.subject] += task.noise
        return embedded

    def probability(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1].softmax(-1)[:, task.answer].mean()

    _, clean = bridge.run_with_cache(task.rows(1), names_filter=lambda name: name.endswith(("hook_out", "resid_post")))
    with bridge.hooks(fwd_hooks=[("hook_embed", corrupt)]):
        return patching.generic_activation_patch(
            bridge,
            task.rows(SAMPLES),
            clean,
            probability,
            patching.layer_pos_patch_setter,
            "resid_post",
            index_df=pd.DataFrame(sites, columns=["layer", "pos"]),
        ).tolist()


@torch.no_grad()
def by_nnsight(peer: Any, task: Task, sites: Sites, **options: Any) -> list[float]:
    """A clean trace, then a trace a state: its docs' sweep, the noisy runs as one batch."""
    with peer.trace({"input_ids": task.rows(1)}):
        clean = nnsight.save([])
        for layer in peer.model.layers:
            clean.append(layer.output)
    found = []
    for layer, token in sites:
        with peer.trace({"input_ids": task.rows(SAMPLES)}, **options):
            peer.model.embed_tokens.output[:, task.subject] += task.noise
            peer.model.layers[layer].output[:, token] = clean[layer][:, token]
            probability = peer.lm_head.output[:, -1].softmax(-1)[:, task.answer].mean().save()
        found.append(probability.item())
    return found


def main() -> None:
    """Measure and print."""
    quick = common.quick(__doc__)
    count, drawn = (2, 1) if quick else (8, 14)
    model = common.model()
    tasks = [task(model, fact) for fact in common.known(model, count)]
    folder, tokenizer = model.manifest.folder, model.tokenizer
    bridge = TransformerBridge.boot_transformers(folder, hf_model=common.peer(model), tokenizer=tokenizer, device="cpu")
    sight = nnsight.TransformersModel(common.peer(model), tokenizer=tokenizer, task="text-generation")
    contestants = {
        ROME: lambda task, sites: by_rome(model.network, task, sites),
        "TransformerLens": lambda task, sites: by_transformer_lens(bridge, task, sites),
        "nnsight": lambda task, sites: by_nnsight(sight, task, sites),
        "nnsight, logits_to_keep=1": lambda task, sites: by_nnsight(sight, task, sites, logits_to_keep=1),
    }
    rng, differences = random.Random(0), dict.fromkeys(contestants, 0.0)
    total, after = dict.fromkeys([OURS, *contestants], 0.0), dict.fromkeys(contestants, 0.0)
    for number, each in enumerate(tasks):
        every = [(layer, token) for layer in range(model.layout.layers) for token in range(len(each.ids))]
        sites = rng.sample(every, drawn)
        time, found = common.seconds(lambda each=each: ours(model, each))
        total[OURS] += time
        expected = [found[site].item() for site in sites]
        for name, contestant in contestants.items():
            if number == 0:
                contestant(each, sites[:1])
            time, values = common.seconds(lambda each=each, run=contestant, sites=sites: run(each, sites))
            total[name] += time / drawn * len(every)
            after[name] += time / drawn * (len(every) - model.layout.layers * each.subject[0])
            worst = max(abs(a - b) for a, b in zip(values, expected, strict=True))
            differences[name] = max(differences[name], worst)
    rows = [[OURS, total[OURS] / count, 1.0, 1.0, ""]]
    for name in contestants:
        rows.append(
            [name, total[name] / count, total[name] / total[OURS], after[name] / total[OURS], differences[name]]
        )
    ratios = {name: total[name] / total[OURS] for name in contestants}
    common.report(
        "causal_tracing",
        ["", "s a map", "ratio", "from the subject on", "largest difference"],
        rows,
        [
            f"{count} facts, {SAMPLES} noise samples, float32; peers timed on {drawn} random state(s) a fact and",
            "scaled to all tokens x layers; `from the subject on`: the ratio if they, too, left out what is before",
        ],
        ratio=ratios[ROME],
        max_abs_difference=max(differences.values()),
        n=count,
        ratios=ratios,
        seconds_a_map=total[OURS] / count,
        states_timed=count * drawn,
    )


if __name__ == "__main__":
    main()
