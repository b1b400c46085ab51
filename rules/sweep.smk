# sweep: try learning rates and weights on facts and text that no report sees, and choose for each cell.

SWEEP = f"{HOME}/sweep"
TRIALS = f"{SWEEP}/{{localization}}/{{objective}}"


wildcard_constraints:
    parameter="|".join(STUDY.sweep.grids),
    value="[0-9][0-9.e+-]*",


rule sweep_facts:
    input:
        facts=f"{HOME}/facts.parquet",
        source=dataset,
        choices=choices,
        code=sources("mechunlearn.facts.validation", "mechunlearn.facts.sets"),
    output:
        f"{SWEEP}/facts.parquet",
    log:
        "logs/{study}/sweep/{model}-{task}/facts.log",
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        task=task_settings,
        settings=draw_settings,
    shell:
        """
        mechunlearn sweep-facts \
            --facts {input.facts:q} \
            --source {input.source:q} \
            --task {params.task:q} \
            --settings {params.settings:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """


# Where facts are edited in groups, trials need groups of their own.
use rule localize as sweep_localize with:
    input:
        model="models/{model}/model.json",
        facts=f"{SWEEP}/facts.parquet",
        code=localizer_sources,
    output:
        f"{SWEEP}/scores/{{localizer}}.parquet",
    log:
        "logs/{study}/sweep/{model}-{task}/{localizer}.log",
    benchmark:
        "results/{study}/timing/sweep/{model}-{task}-{localizer}.tsv"


use rule select as sweep_select with:
    input:
        unpack(sweep_selection_inputs),
        model="models/{model}/model.json",
        code=sources("mechunlearn.localize.groups", "mechunlearn.localize.stability"),
    output:
        f"{SWEEP}/selection/{{localization}}.json",
    log:
        "logs/{study}/sweep/{model}-{task}/{localization}.log",


rule sweep_base:
    input:
        model="models/{model}/model.json",
        facts=f"{SWEEP}/facts.parquet",
        text=TEXT,
        code=sources(LOADS, "mechunlearn.evaluate.trial", *ASKS),
    output:
        f"{SWEEP}/base.parquet",
    log:
        "logs/{study}/sweep/{model}-{task}/base.log",
    benchmark:
        "results/{study}/timing/sweep/{model}-{task}-base.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, measure_work),
        runtime=asked(footprint.runtime, measure_work),
        gpu=asked(footprint.gpu, measure_work),
    params:
        settings=trial_settings,
        held_out=STUDY.evaluate.texts,
    shell:
        """
        mechunlearn sweep-base \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --settings {params.settings:q} \
            --held-out {params.held_out} \
            --out {output:q} \
            >{log:q} 2>&1
        """


# One trial; after the first setting with the best values of those before.
rule sweep_trial:
    input:
        unpack(former_choice),
        model="models/{model}/model.json",
        facts=f"{SWEEP}/facts.parquet",
        text=TEXT,
        selection=trial_selection,
        base=rules.sweep_base.output,
        biographies=biographies,
        code=trial_sources,
    output:
        rows=f"{TRIALS}/{{parameter}}/{{value}}.parquet",
        about=f"{TRIALS}/{{parameter}}/{{value}}.json",
    log:
        "logs/{study}/sweep/{model}-{task}/{localization}-{objective}-{parameter}-{value}.log",
    benchmark:
        "results/{study}/timing/sweep/{model}-{task}-{localization}-{objective}-{parameter}-{value}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, trial_work),
        runtime=asked(footprint.runtime, trial_work),
        gpu=asked(footprint.gpu, trial_work),
    params:
        edit=start_settings,
        settings=trial_settings,
        gate=STUDY.evaluate.gate,
        held_out=STUDY.evaluate.texts,
        former=former_options,
        biographies=biography_options,
    shell:
        """
        mechunlearn sweep-trial \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --selection {input.selection:q} \
            --objective {wildcards.objective:q} \
            --edit {params.edit:q} \
            --parameter {wildcards.parameter:q} \
            --value {wildcards.value:q} \
            --base {input.base:q} \
            --gate {params.gate} \
            --settings {params.settings:q} \
            --held-out {params.held_out} \
            {params.former:q} \
            {params.biographies:q} \
            --out {output.rows:q} \
            >{log:q} 2>&1
        """


rule sweep_choose:
    input:
        unpack(former_choice),
        trials=trials_of,
        base=rules.sweep_base.output,
        code=sources("mechunlearn.sweep"),
    output:
        choice=f"{TRIALS}/{{parameter}}.json",
        table=f"{TRIALS}/{{parameter}}.csv",
    log:
        "logs/{study}/sweep/{model}-{task}/{localization}-{objective}-{parameter}.log",
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        start=start_value,
        gate=STUDY.evaluate.gate,
        rule=STUDY.sweep.rule,
        settings=report_settings,
        former=former_options,
    shell:
        """
        mechunlearn sweep-choose {input.trials:q} \
            --parameter {wildcards.parameter:q} \
            --objective {wildcards.objective:q} \
            --start {params.start} \
            --base {input.base:q} \
            --gate {params.gate} \
            --rule {params.rule:q} \
            --settings {params.settings:q} \
            {params.former:q} \
            --out {output.choice:q} \
            --table {output.table:q} \
            >{log:q} 2>&1
        """


rule sweep:
    input:
        choices=layout.sweep_choices(STUDY),
        code=sources("mechunlearn.sweep", "mechunlearn.figures.sweep"),
    output:
        table=f"results/{STUDY.study}/sweep.csv",
        latex=f"results/{STUDY.study}/sweep.tex",
        swept=f"results/{STUDY.study}/swept.yaml",
        svg=report(
            f"results/{STUDY.study}/figures/sweep.svg",
            caption="../report/captions/figure.rst",
            category=SECTIONS["sweep"],
            labels={"figure": "sweep"},
        ),
        png=f"results/{STUDY.study}/figures/sweep.png",
        pdf=f"results/{STUDY.study}/figures/sweep.pdf",
    log:
        f"logs/{STUDY.study}/sweep.log",
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        study=study_settings,
    shell:
        """
        mechunlearn sweep-tables \
            --study-config {params.study:q} \
            --out {output.table:q} \
            --latex {output.latex:q} \
            --chosen {output.swept:q} \
            --figure {output.svg:q} \
            >{log:q} 2>&1
        """
