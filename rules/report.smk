# report: check the papers' claims, then put text, figures and tables on one page.


rule claims:
    input:
        metrics=rules.metrics.output.table,
        published="report/published/mechanistic_unlearning_means.csv",
        code=sources("mechunlearn.claims"),
    output:
        f"results/{STUDY.study}/claims.json",
    log:
        f"logs/{STUDY.study}/claims.log",
    benchmark:
        f"results/{STUDY.study}/timing/report/claims.tsv"
    conda:
        "../envs/base.yaml"
    threads: 1
    params:
        tasks=tasks_of_the_paper,
    shell:
        """
        mechunlearn claims \
            {input.metrics:q} \
            --published report/published \
            --tasks {params.tasks:q} \
            --out {output:q} \
            >{log:q} 2>&1
        """


rule report:
    input:
        models=[f"models/{name}/model.json" for name in STUDY.models],
        facts=layout.targets(STUDY, "facts.parquet"),
        selections=layout.targets(STUDY, "selection/{localization}.json"),
        metrics=rules.metrics.output.table,
        claims=rules.claims.output,
        figures=rules.figures.input,
        masks=layout.mask_files(STUDY, "-weights"),
        planted=rules.planted.output if PLANTED else [],
        notebook="report/report.py",
        style="report/style.css",
        published=[
            "report/published/mechanistic_unlearning_means.csv",
            "report/published/mechanistic_unlearning_cells.csv",
        ],
        code=report_sources(),
    output:
        html=report(
            f"results/{STUDY.study}/report.html",
            caption="../report/captions/report.rst",
            category="Report",
            labels={"study": STUDY.study},
        ),
        notebook=f"results/{STUDY.study}/report.ipynb",
    log:
        f"logs/{STUDY.study}/report.log",
    benchmark:
        f"results/{STUDY.study}/timing/report/report.tsv"
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        study=study_settings,
    shell:
        """
        mechunlearn report \
            --notebook {input.notebook:q} \
            --study-config {params.study:q} \
            --out {output.html:q} \
            --executed {output.notebook:q} \
            >{log:q} 2>&1
        """
