# mechunlearn: localize facts in a language model, edit only there, attack the edit, report.
# `snakemake` runs the default study (config/config.yaml) to results/default/report.html;
# `snakemake --configfile config/smoke.yaml` runs another. Phases: fetch_all ... figures report.
from snakemake.utils import min_version

min_version("9.25")


# A study given by --configfile stands alone: nothing of the default mixes in.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "rules/common.smk"
include: "rules/fetch.smk"
include: "rules/localize.smk"
include: "rules/edit.smk"
include: "rules/evaluate.smk"
include: "rules/mask.smk"
include: "rules/attack.smk"
include: "rules/sweep.smk"
include: "rules/figures.smk"
include: "rules/planted.smk"
include: "rules/report.smk"


rule all:
    default_target: True
    input:
        rules.report.output,


onsuccess:
    print(closing_lines(STUDY))


onerror:
    print("A job failed: its log is named above. What is finished stays; run the same command again to resume.")
