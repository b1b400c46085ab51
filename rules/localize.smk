# localize: score components by each localizer, then select what each localization may train.


rule localize_all:
    input:
        layout.targets(STUDY, "scores/{localizer}.parquet", localizer=layout.localizers(STUDY)),
        layout.targets(STUDY, "selection/{localization}.json"),
    localrule: True


rule localize:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        code=localizer_sources,
    output:
        f"{HOME}/scores/{{localizer}}.parquet",
    log:
        "logs/{study}/localize/{model}-{task}/{localizer}.log",
    benchmark:
        "results/{study}/timing/localize/{model}-{task}-{localizer}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, localize_work),
        runtime=asked(footprint.runtime, localize_work),
        gpu=asked(footprint.gpu, localize_work),
    params:
        settings=localizer_settings,
    shell:
        """
        mechunlearn score \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --method {wildcards.localizer:q} \
            --settings {params.settings:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """


rule select:
    input:
        unpack(selection_inputs),
        model="models/{model}/model.json",
        code=sources("mechunlearn.localize.groups", "mechunlearn.localize.stability"),
    output:
        f"{HOME}/selection/{{localization}}.json",
    log:
        "logs/{study}/select/{model}-{task}/{localization}.log",
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        settings=selection_settings,
        options=selection_options,
    shell:
        """
        mechunlearn select \
            --model {input.model:q} \
            --localization {wildcards.localization:q} \
            --settings {params.settings:q} \
            {params.options:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """
