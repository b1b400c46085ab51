# figures: every metric of the study with its interval, and each figure drawn from them.


rule metrics:
    input:
        measurements=layout.measurement_files(STUDY),
        code=sources("mechunlearn.metrics"),
    output:
        table=f"results/{STUDY.study}/metrics.csv",
        headline=f"results/{STUDY.study}/metrics.json",
    log:
        f"logs/{STUDY.study}/metrics.log",
    benchmark:
        f"results/{STUDY.study}/timing/figures/metrics.tsv"
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        evaluate=gate_settings,
        settings=report_settings,
    shell:
        """
        mechunlearn metrics \
            {input.measurements:q} \
            --evaluate {params.evaluate:q} \
            --settings {params.settings:q} \
            --out {output.table:q} \
            --headline {output.headline:q} \
            >{log:q} 2>&1
        """


rule figures:
    input:
        layout.figure_files(STUDY),
        f"results/{STUDY.study}/figures/scaling.svg" if layout.sizes(STUDY) else [],
    localrule: True


# One figure by its name, of every model and task: `snakemake figure_relearning`.
for drawn, files in layout.figures_by_name(STUDY).items():

    rule:
        name:
            f"figure_{drawn.replace('-', '_')}"
        input:
            files,
        localrule: True


rule figure:
    input:
        unpack(figure_inputs),
        metrics=rules.metrics.output.table,
        code=figure_sources,
    output:
        svg=report(
            f"{HOME}/figures/{{figure}}.svg",
            caption="../report/captions/figure.rst",
            category=section,
            subcategory="{model}, {task}",
            labels={"model": "{model}", "task": "{task}", "figure": "{figure}"},
        ),
        png=f"{HOME}/figures/{{figure}}.png",
        pdf=f"{HOME}/figures/{{figure}}.pdf",
    log:
        "logs/{study}/figure/{model}-{task}/{figure}.log",
    benchmark:
        "results/{study}/timing/figures/{model}-{task}-{figure}.tsv"
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        folder=figure_folder,
    shell:
        """
        mechunlearn figure \
            --name {wildcards.figure:q} \
            --results {params.folder:q} \
            --metrics {input.metrics:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """


rule scaling:
    input:
        metrics=rules.metrics.output.table,
        code=sources("mechunlearn.figures.scaling"),
    output:
        svg=report(
            f"results/{STUDY.study}/figures/scaling.svg",
            caption="../report/captions/figure.rst",
            category=SECTIONS["scaling"],
            labels={"figure": "scaling"},
        ),
        png=f"results/{STUDY.study}/figures/scaling.png",
        pdf=f"results/{STUDY.study}/figures/scaling.pdf",
    log:
        f"logs/{STUDY.study}/scaling.log",
    benchmark:
        f"results/{STUDY.study}/timing/figures/scaling.tsv"
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
        mechunlearn scaling \
            --study-config {params.study:q} \
            --metrics {input.metrics:q} \
            --out {output.svg:q} \
            >{log:q} 2>&1
        """
