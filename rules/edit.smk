# edit: train each cell's edit, all seeds in one job, and keep the tensors that changed.


rule edit_all:
    input:
        layout.targets(STUDY, "edits/{localization}/{objective}/seed{seed}/delta.safetensors"),
    localrule: True


rule edit:
    input:
        model="models/{model}/model.json",
        facts=f"{HOME}/facts.parquet",
        text=TEXT,
        selection=f"{HOME}/selection/{{localization}}.json",
        biographies=biographies,
        code=edit_sources,
    output:
        deltas=[f"{HOME}/edits/{{localization}}/{{objective}}/seed{seed}/delta.safetensors" for seed in STUDY.seeds],
        histories=[f"{HOME}/edits/{{localization}}/{{objective}}/seed{seed}/history.json" for seed in STUDY.seeds],
    log:
        "logs/{study}/edit/{model}-{task}/{localization}-{objective}.log",
    benchmark:
        "results/{study}/timing/edit/{model}-{task}-{localization}-{objective}.tsv"
    wildcard_constraints:
        task=one_of(AT_ONCE),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=asked(footprint.mem_mb, edit_work),
        runtime=asked(footprint.runtime, edit_work),
        gpu=asked(footprint.gpu, edit_work),
    params:
        settings=edit_settings,
        seeds=seed_options,
        held_out=STUDY.evaluate.texts,
        folder=edit_folder,
        biographies=biography_options,
    shell:
        """
        mechunlearn edit \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --text {input.text:q} \
            --selection {input.selection:q} \
            --objective {wildcards.objective:q} \
            --settings {params.settings:q} \
            {params.seeds:q} \
            {params.biographies:q} \
            --held-out {params.held_out} \
            --out {params.folder:q} \
            >{log:q} 2>&1
        """


# Block after block, and how the blocks fared on the way.
use rule edit as edit_sequential with:
    output:
        deltas=rules.edit.output.deltas,
        histories=rules.edit.output.histories,
        blocks=[f"{HOME}/edits/{{localization}}/{{objective}}/seed{seed}/blocks.parquet" for seed in STUDY.seeds],
    wildcard_constraints:
        task=one_of(SEQUENTIAL),
