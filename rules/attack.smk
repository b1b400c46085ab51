# attack: try to bring back what each edit removed; the unedited model shows what an attack makes of facts still there.


rule attack_all:
    input:
        layout.attack_files(STUDY),
    localrule: True


rule attack:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        text=TEXT,
        base=rules.evaluate_base.output.rows,
        deltas=rules.edit.output.deltas,
        code=attack_sources,
    output:
        f"{HOME}/attacks/{{attack}}/{{localization}}/{{objective}}.parquet",
    log:
        "logs/{study}/attack/{model}-{task}/{attack}-{localization}-{objective}.log",
    benchmark:
        "results/{study}/timing/attack/{model}-{task}-{attack}-{localization}-{objective}.tsv"
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, attack_work),
        runtime=asked(footprint.runtime, attack_work),
        gpu=asked(footprint.gpu, attack_work),
    params:
        settings=attack_settings,
        seeds=seed_options,
        held_out=STUDY.evaluate.texts,
        edits=edit_options,
    shell:
        """
        mechunlearn attack \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --method {wildcards.attack:q} \
            --settings {params.settings:q} \
            --base {input.base:q} \
            {params.edits:q} \
            {params.seeds:q} \
            --held-out {params.held_out} \
            --out {output:q} \
            >{log:q} 2>&1
        """


use rule attack as attack_base with:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        text=TEXT,
        base=rules.evaluate_base.output.rows,
        code=attack_sources,
    output:
        f"{HOME}/attacks/{{attack}}/base.parquet",
    log:
        "logs/{study}/attack/{model}-{task}/{attack}-base.log",
    benchmark:
        "results/{study}/timing/attack/{model}-{task}-{attack}-base.tsv"
    params:
        settings=attack_settings,
        seeds=seed_options,
        held_out=STUDY.evaluate.texts,
        edits=[],
