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
    threads: 1
    params:
        evaluate=gate_settings,
        settings=report_settings,
    conda:
        "../envs/base.yaml"
    shell:
        """
        mechunlearn metrics \
            {input.measurements:q} \
            --evaluate {params.evaluate:q} \
            --settings {params.settings:q} \
            --out {output.table:q} \
            --headline {output.headline:q} \
            > {log:q} 2>&1
        """
