# planted: where facts were planted, which localizer finds the layer?


rule planted:
    input:
        scores=[
            f"{layout.home(STUDY.study, model, task)}/scores/{localizer}.parquet"
            for model, task in layout.pairs(STUDY)
            if model in PLANTED
            for localizer in LOCALIZERS
        ],
        code=sources("mechunlearn.localize.ranks", "mechunlearn.figures.planted"),
    output:
        table=f"results/{STUDY.study}/planted.csv",
        svg=report(
            f"results/{STUDY.study}/figures/planted.svg",
            caption="../report/captions/figure.rst",
            category=SECTIONS["planted"],
            labels={"figure": "planted"},
        ),
        png=f"results/{STUDY.study}/figures/planted.png",
        pdf=f"results/{STUDY.study}/figures/planted.pdf",
    log:
        f"logs/{STUDY.study}/planted.log",
    benchmark:
        f"results/{STUDY.study}/timing/figures/planted.tsv"
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
        mechunlearn planted \
            --study-config {params.study:q} \
            --out {output.table:q} \
            --figure {output.svg:q} \
            >{log:q} 2>&1
        """
