# report: check the papers' claims, then put text, figures and tables on one page.


rule costs:
    input:
        histories=layout.targets(STUDY, "edits/{localization}/{objective}/seed{seed}/history.json") if TRAINED else [],
        baselines=[f"models/{name}/training.json" for name in TRAINED],
        code=sources("mechunlearn.operations"),
    output:
        f"results/{STUDY.study}/costs.csv",
    log:
        f"logs/{STUDY.study}/costs.log",
    benchmark:
        f"results/{STUDY.study}/timing/report/costs.tsv"
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
        mechunlearn costs --study-config {params.study:q} --out {output:q} >{log:q} 2>&1
        """


rule leaderboard:
    input:
        metrics=rules.metrics.output.table,
        code=sources("mechunlearn.leaderboard"),
    output:
        table=f"results/{STUDY.study}/leaderboard.csv",
        tex=f"results/{STUDY.study}/leaderboard.tex",
    log:
        f"logs/{STUDY.study}/leaderboard.log",
    benchmark:
        f"results/{STUDY.study}/timing/report/leaderboard.tsv"
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    shell:
        """
        mechunlearn leaderboard --metrics {input.metrics:q} --out {output.table:q} >{log:q} 2>&1
        """


rule claims:
    input:
        metrics=rules.metrics.output.table,
        costs=rules.costs.output if TRAINED else [],
        published="report/published/mechanistic_unlearning_means.csv",
        code=sources("mechunlearn.claims", "mechunlearn.operations"),
    output:
        f"results/{STUDY.study}/claims.json",
    log:
        f"logs/{STUDY.study}/claims.log",
    benchmark:
        f"results/{STUDY.study}/timing/report/claims.tsv"
    conda:
        "../envs/base.yaml"
    threads: 1
    resources:
        mem_mb=light_mb,
        runtime=light_minutes,
    params:
        tasks=tasks_of_the_paper,
        costs=cost_options,
    shell:
        """
        mechunlearn claims \
            {input.metrics:q} \
            --published report/published \
            --tasks {params.tasks:q} \
            {params.costs:q} \
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
        leaderboard=rules.leaderboard.output,
        costs=rules.costs.output if TRAINED else [],
        figures=rules.figures.input,
        masks=layout.mask_files(STUDY, "-weights"),
        planted=rules.planted.output if PLANTED else [],
        notebook="report/report.py",
        page=["report/style.css", "report/sort.js"],
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
        mem_mb=light_mb,
        runtime=light_minutes,
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
