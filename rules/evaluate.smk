# evaluate: measure the base model once a task, and every edit, through all elicitations.


rule evaluate_all:
    input:
        layout.targets(
            STUDY,
            "measurements/base.parquet",
            "measurements/{localization}/{objective}.parquet",
        ),
    localrule: True


MEASURES = (
    "mechunlearn.evaluate.measure",
    "mechunlearn.evaluate.generate",
    "mechunlearn.evaluate.streams",
    "mechunlearn.models.text_states",
)


rule evaluate_base:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        text=TEXT,
        code=sources(LOADS, *MEASURES, *ASKS),
        benchmarks=benchmark_sources(),
        biographies=biographies,
    output:
        rows=f"{HOME}/measurements/base.parquet",
        states=f"{HOME}/measurements/base-text.safetensors",
    log:
        "logs/{study}/evaluate/{model}-{task}/base.log",
    benchmark:
        "results/{study}/timing/evaluate/{model}-{task}-base.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, evaluate_work),
        runtime=asked(footprint.runtime, evaluate_work),
        gpu=asked(footprint.gpu, evaluate_work),
    params:
        settings=evaluate_settings,
        biographies=biography_options,
    shell:
        """
        mechunlearn evaluate \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --settings {params.settings:q} \
            {params.biographies:q} \
            --states {output.states:q} \
            --out {output.rows:q} \
            >{log:q} 2>&1
        """


rule evaluate:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        text=TEXT,
        base=rules.evaluate_base.output.rows,
        states=rules.evaluate_base.output.states,
        deltas=rules.edit.output.deltas,
        blocks=edited_blocks,
        code=sources(LOADS, *MEASURES, "mechunlearn.gate", *ASKS),
        benchmarks=benchmark_sources(),
        biographies=biographies,
    output:
        f"{HOME}/measurements/{{localization}}/{{objective}}.parquet",
    log:
        "logs/{study}/evaluate/{model}-{task}/{localization}-{objective}.log",
    benchmark:
        "results/{study}/timing/evaluate/{model}-{task}-{localization}-{objective}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, evaluate_work),
        runtime=asked(footprint.runtime, evaluate_work),
        gpu=asked(footprint.gpu, evaluate_work),
    params:
        settings=evaluate_settings,
        biographies=biography_options,
        seeds=seed_options,
        folder=edit_folder,
    shell:
        """
        mechunlearn evaluate \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --settings {params.settings:q} \
            {params.biographies:q} \
            --base {input.base:q} \
            --states {input.states:q} \
            --edits {params.folder:q} \
            {params.seeds:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """
