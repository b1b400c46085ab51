# fetch: models from their sources or planted, datasets from the package, facts screened by each model.


rule fetch_all:
    input:
        layout.targets(STUDY, "facts.parquet"),
        TEXT,
    localrule: True


rule fetch_model:
    input:
        code=sources("mechunlearn.models.sources"),
    output:
        "models/{model}/model.json",
    log:
        "logs/fetch_model/{model}.log",
    benchmark:
        "models/{model}/timing.tsv"
    wildcard_constraints:
        model=one_of(WHOLE),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=fetch_mb,
        runtime=fetch_minutes,
    params:
        settings=model_settings,
    shell:
        """
        mechunlearn fetch-model \
            --settings {params.settings:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """


rule plant:
    input:
        base=base_of,
        text="data/text/passages.jsonl",
        code=sources(LOADS, "mechunlearn.edit.plant", "mechunlearn.facts.planted", "mechunlearn.models.sources", *ASKS),
    output:
        model="models/{model}/model.json",
        delta="models/{model}/delta.safetensors",
        facts="models/{model}/facts.csv",
    log:
        "logs/plant/{model}.log",
    benchmark:
        "models/{model}/timing.tsv"
    wildcard_constraints:
        model=one_of(PLANTED),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, planting_work),
        runtime=asked(footprint.runtime, planting_work),
        gpu=asked(footprint.gpu, planting_work),
    params:
        source=made_source,
        settings=planting_settings,
    shell:
        """
        mechunlearn plant \
            --model {input.base:q} \
            --source {params.source:q} \
            --text {input.text:q} \
            --settings {params.settings:q} \
            --out {output.model:q} \
            >{log:q} 2>&1
        """


rule read_biographies:
    input:
        base=base_of,
        text="data/text/passages.jsonl",
        code=sources(LOADS, "mechunlearn.edit.continual", "mechunlearn.facts.biographies", "mechunlearn.models.sources"),
    output:
        model="models/{model}/model.json",
        delta="models/{model}/delta.safetensors",
        texts="models/{model}/biographies.jsonl",
        questions="models/{model}/questions.jsonl",
        spent="models/{model}/training.json",
    log:
        "logs/read_biographies/{model}.log",
    benchmark:
        "models/{model}/timing.tsv"
    wildcard_constraints:
        model=one_of(TRAINED),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, reading_work),
        runtime=asked(footprint.runtime, reading_work),
        gpu=asked(footprint.gpu, reading_work),
    params:
        source=made_source,
        settings=biography_settings,
        held_out=STUDY.evaluate.texts,
    shell:
        """
        mechunlearn read-biographies \
            --model {input.base:q} \
            --source {params.source:q} \
            --text {input.text:q} \
            --held-out {params.held_out} \
            --settings {params.settings:q} \
            --out {output.model:q} \
            >{log:q} 2>&1
        """


rule fetch_data:
    input:
        source="src/mechunlearn/resources/{dataset}",
        code=sources("mechunlearn.facts.sets", "mechunlearn.facts.text"),
    output:
        "data/{dataset}",
    log:
        "logs/fetch_data/{dataset}.log",
    wildcard_constraints:
        dataset="(?!hub/).+",
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    shell:
        """
        mechunlearn fetch-data {input.source:q} {output:q} >{log:q} 2>&1
        """


rule fetch_rows:
    input:
        code=sources("mechunlearn.facts.rows"),
    output:
        "data/hub/{repository}/{revision}/{split}.parquet",
    log:
        "logs/fetch_rows/{repository}/{revision}/{split}.log",
    wildcard_constraints:
        repository="[^/]+/[^/]+",
        revision="[0-9a-f]{40}",
        split="[^/]+",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        source=rows_source,
    shell:
        """
        mechunlearn fetch-rows {params.source:q} {output:q} >{log:q} 2>&1
        """


rule fetch_text:
    input:
        source=text_source,
        code=sources("mechunlearn.facts.upstream", "mechunlearn.facts.text"),
    output:
        f"results/{STUDY.study}/passages.jsonl",
    log:
        f"logs/{STUDY.study}/fetch_text.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        settings=text_settings,
    shell:
        """
        mechunlearn fetch-text \
            --settings {params.settings:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """


rule screen:
    input:
        model="models/{model}/model.json",
        facts=dataset,
        choices=choices,
        code=sources(LOADS, "mechunlearn.evaluate.measure", "mechunlearn.facts.roles", "mechunlearn.facts.sets", *ASKS),
    output:
        f"{HOME}/facts.parquet",
    log:
        "logs/{study}/screen/{model}-{task}.log",
    benchmark:
        "results/{study}/timing/fetch/{model}-{task}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, measure_work),
        runtime=asked(footprint.runtime, measure_work),
        gpu=asked(footprint.gpu, measure_work),
    params:
        settings=screen_settings,
        task=task_settings,
    shell:
        """
        mechunlearn screen \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --settings {params.settings:q} \
            --task {params.task:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """
