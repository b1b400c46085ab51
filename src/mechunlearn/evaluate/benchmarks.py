"""General ability: benchmarks of the library lm-eval (EleutherAI's evaluation harness), one row an item.

load      benchmark names -> the library's tasks, or one sentence about what is missing
measure   measurement rows of a model on these tasks

The library makes the prompts, scores the choices and says which items are right; metrics.py does the rest, so that an
edit is compared with the base model on the same items. It is imported only where it is used: that takes seconds.
"""

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

from mechunlearn.artifacts import BENCHMARK
from mechunlearn.config import EvaluateSettings, unknown_benchmark
from mechunlearn.errors import ConfigError, SourceError
from mechunlearn.models.model import Model

log = logging.getLogger(__name__)
ACCURACIES = ("acc", "acc_norm")  # of the likeliest choice; by character only where a task has nothing else
SEED = 0
ON_GPU = 8  # items at once; one on a CPU, where logits over a large vocabulary would fill the memory


def load(rules: EvaluateSettings) -> dict[str, list[Any]]:
    """The library's tasks of every benchmark, datasets included; a group such as mmlu has many.

    Raises ConfigError for an unknown name and for what is not multiple choice, SourceError where a dataset is missing.
    """
    if not rules.benchmarks:
        return {}
    import transformers

    manager, found = _manager(rules.benchmark_tasks), {}
    for name in rules.benchmarks:
        if name not in manager.task_index:
            raise ConfigError(f"evaluate.benchmarks: {unknown_benchmark(name, manager.all_tasks)}")
        # Some tasks shuffle their choices while they are loaded; the base model and every edit must see the same.
        transformers.set_seed(SEED)
        try:
            found[name] = list(manager.load([_spec(manager.task_index[name])])["tasks"].values())
        except Exception as error:  # whatever a task's own code, `datasets` or the network raises
            raise SourceError(_refusal(name, error)) from error
        for task in found[name]:
            if task.OUTPUT_TYPE != "multiple_choice" or not set(ACCURACIES) & set(task.aggregation()):
                raise ConfigError(
                    f"evaluate.benchmarks: {name!r} is not multiple choice with an accuracy (its task "
                    f"{task.task_name} is {task.OUTPUT_TYPE}); allowed is multiple choice, such as mmlu."
                )
        log.info("%s: %d tasks", name, len(found[name]))
    return found


def measure(
    model: Model, tasks: Mapping[str, Sequence[Any]], limit: int | None, stage: str, seed: int
) -> list[dict[str, Any]]:
    """Measurement rows, one an item: right (p_true 1, rank 1) or wrong (0 and 2), of the first `limit` of each task.

    `tasks` are from `load`. The model is left as it is.
    """
    if not tasks:
        return []
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    harness, rows = _harness(model), []
    nothing = TaskManager(include_defaults=False)  # else it reads all its tasks again
    for name, members in tasks.items():
        found = simple_evaluate(harness, tasks=list(members), limit=limit, bootstrap_iters=0, task_manager=nothing)
        for task, samples in found["samples"].items():
            for sample in samples:
                right = next(sample[each] for each in ACCURACIES if each in sample) == 1
                rows.append(
                    {"seed": seed, "stage": stage, "elicitation": name, "order": 0, "role": BENCHMARK}
                    | {"fact": f"{task}/{sample['doc_id']}", "p_true": float(right), "p_options": 1.0}
                    | {"rank": 1 if right else 2, "choice": "true" if right else "other", "argmax": ""}
                )
    return rows


@cache
def _manager(folder: str) -> Any:
    """The library's index of its own tasks and of those in a folder; reading its 14,000 files takes seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    return TaskManager(include_path=folder or None)


def _spec(entry: Any) -> Any:
    """How to ask the library for a task: by name, or as tinyMMLU without the summary of its own.

    That one needs a package which is not on PyPI, and estimates the whole of MMLU; here single items count.
    """
    config, metrics = entry.cfg or {}, (entry.cfg or {}).get("metric_list") or []
    own = [each for each in metrics if "agg_gpirt" in str(each.get("aggregation", ""))]
    return {**config, "metric_list": [{"metric": "acc"}]} if own else entry.name


def _refusal(name: str, error: Exception) -> str:
    """A sentence about a benchmark that cannot be loaded: why, and where a dataset would have to be."""
    why = (str(error).splitlines() or [""])[0]
    text = f"evaluate.benchmarks: {name!r} cannot be loaded ({type(error).__name__}: {why})"
    if not isinstance(error, OSError):
        return f"{text}."
    return (
        f"{text}; load this dataset once where there is a network, by `datasets.load_dataset`, and keep its cache in "
        "the folder that HF_HOME names (~/.cache/huggingface), or put a task with local files into "
        "evaluate.benchmark_tasks."
    )


def _harness(model: Model) -> Any:
    """The library's view of a loaded model. Its tokenizer is a copy that puts BOS where Model.encode does.

    A chat-style tokenizer adds none, whatever it is told (`add_bos_token`): the copy gets a template that does.
    """
    from lm_eval.models.huggingface import HFLM
    from tokenizers.processors import TemplateProcessing

    tokenizer, begin = deepcopy(model.tokenizer), model.encode("")
    if begin:
        bos = tokenizer.convert_ids_to_tokens(begin)
        template = TemplateProcessing(single=[*bos, "$A"], special_tokens=list(zip(bos, begin, strict=True)))
        tokenizer.backend_tokenizer.post_processor = template
    return HFLM(
        pretrained=model.network,
        tokenizer=tokenizer,
        add_bos_token=bool(begin),
        batch_size=1 if model.device.type == "cpu" else ON_GPU,
        softmax_dtype="float32",  # in 16 bits several choices would be equally likely
    )
