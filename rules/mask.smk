# mask: how many weights of a localization must go for the facts to go?


rule mask_all:
    input:
        layout.mask_files(STUDY),
    localrule: True


rule mask:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        text=TEXT,
        selection=f"{HOME}/selection/{{localization}}.json",
        code=sources("mechunlearn.cli.mask", *ASKS),
        benchmarks=benchmark_sources(),
    output:
        rows=f"{HOME}/masks/{{localization}}.parquet",
        weights=f"{HOME}/masks/{{localization}}-weights.parquet",
    log:
        "logs/{study}/mask/{model}-{task}/{localization}.log",
    benchmark:
        "results/{study}/timing/mask/{model}-{task}-{localization}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, mask_work),
        runtime=asked(footprint.runtime, mask_work),
        gpu=asked(footprint.gpu, mask_work),
    params:
        settings=mask_settings,
        evaluate=benchmark_settings,
        seeds=seed_options,
        held_out=STUDY.evaluate.texts,
    shell:
        """
        mechunlearn mask \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --selection {input.selection:q} \
            --settings {params.settings:q} \
            --evaluate {params.evaluate:q} \
            {params.seeds:q} \
            --held-out {params.held_out} \
            --out {output.rows:q} \
            --weights {output.weights:q} \
            >{log:q} 2>&1
        """
